"""Publishing never waits and never fails: brokers that refuse, that freeze, and none at all."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from channels.layers import InMemoryChannelLayer
from channels_redis.core import RedisChannelLayer

from bridge import live
from calls.publisher import Publisher


@pytest.fixture
def refusing(tmp_path: Path) -> Path:
    """A socket file with nobody behind it: connecting is refused at once."""
    path = tmp_path / "refusing.sock"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
    return path


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """A socket that takes connections and never says a word."""
    path = tmp_path / "frozen.sock"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen(16)
        yield path


def a_task(path: Path, **options: float) -> Any:
    app = Celery("dead", broker=f"redis+socket://{path}", set_as_current=False)
    app.conf.broker_transport_options = {
        "socket_timeout": 0.2,
        "socket_connect_timeout": 0.2,
        "max_retries": 1,
        "interval_start": 0.0,
    } | options
    app.conf.task_publish_retry = False

    @app.task(name="dead.task")
    def nothing(number: int) -> None:
        """Nobody will ever run it."""

    return nothing


class Layer(InMemoryChannelLayer):
    """A layer in memory that remembers what was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, dict[str, Any]]] = []

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        self.sent.append((group, message))


def test_enqueueing_on_a_dead_broker_takes_less_than_5_ms_and_is_counted(refusing: Path) -> None:
    task = a_task(refusing)
    layer = RedisChannelLayer(hosts=[f"unix://{refusing}"])
    publisher = Publisher(layer=lambda: layer)
    times = sorted(timed(lambda: enqueue(publisher, task)) for _ in range(200))
    assert times[190] < 0.005  # the slowest few are those in which this machine did something else
    wait_for(lambda: publisher.counts.failed >= 2, within_s=10)
    assert publisher.counts.published == 0
    publisher.stop(within_s=10)


def test_a_frozen_broker_fills_the_queue_and_no_further(frozen: Path, caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher(layer=lambda: None, limit=20)
    task = a_task(frozen)
    times = sorted(timed(lambda: publisher.task(task, 1)) for _ in range(100))
    assert times[95] < 0.005
    assert publisher.counts.dropped >= 79
    assert "There was no room" in caplog.text
    publisher.stop(within_s=0)


def test_hints_reach_the_groups_of_the_call_and_of_all_pages() -> None:
    layer = Layer()
    publisher = Publisher(layer=lambda: layer)
    public_id, before = uuid.UUID(int=7), time.time()
    publisher.tell("CA1", live.SESSION)
    publisher.rows(public_id, 12)
    publisher.stop()
    rows = {"type": "rows.written", "calls": {str(public_id): 12}}
    at = layer.sent[0][1]["at"]
    assert before <= at <= time.time()
    assert layer.sent == [
        ("call.CA1", {"type": "live.hint", "hint": "session", "at": at}),
        ("rows", rows),
    ]


def test_a_burst_of_rows_of_many_calls_is_one_hint_with_their_newest_numbers() -> None:
    layer = Layer()

    def slow_to_find() -> Layer:
        time.sleep(0.2)
        return layer

    publisher = Publisher(layer=slow_to_find)
    publisher.tell("CA1", live.SESSION)  # keeps the thread busy while the burst comes
    for seq in range(1, 501):
        for number in (1, 2):
            publisher.rows(uuid.UUID(int=number), seq)
    ends = {str(uuid.UUID(int=number)): 500 for number in (1, 2)}
    publisher.stop(within_s=10)
    told = [message["calls"] for group, message in layer.sent if group == "rows"]
    assert told in ([ends], [{str(uuid.UUID(int=1)): 1}, ends])


def test_after_a_failure_hints_are_dropped_for_a_while_instead_of_queueing(refusing: Path) -> None:
    layer = RedisChannelLayer(hosts=[f"unix://{refusing}"])
    publisher = Publisher(layer=lambda: layer)
    for _ in range(50):
        publisher.tell("CA1", live.SESSION)
    publisher.stop(within_s=10)
    assert publisher.counts.failed == 1
    assert publisher.counts.dropped == 49


def test_a_forked_child_has_a_thread_of_its_own() -> None:
    from calls import publisher as module

    before = module.install(Publisher(layer=lambda: None))
    try:
        module.tell("CA1", live.SESSION)
        child = os.fork()
        if child == 0:
            os._exit(0 if module.install(Publisher())._thread is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        module.install(before).stop()


async def test_a_listener_hears_the_hints_of_its_call_alone() -> None:
    layer = InMemoryChannelLayer()
    heard: list[str] = []

    async def listen() -> None:
        async for hint in live.listen(layer, "CA1"):
            heard.append(hint)

    listening = asyncio.create_task(listen())
    while not layer.groups:
        await asyncio.sleep(0)
    await live.tell(layer, "CA2", live.SPEECH, at=time.time())
    await live.tell(layer, "CA1", live.COMMANDS, at=time.time())
    while not heard:
        await asyncio.sleep(0)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert heard == ["commands"]
    assert layer.groups == {}


async def test_speech_of_a_moment_that_is_over_is_not_heard_and_what_waits_in_rows_is() -> None:
    layer, now = InMemoryChannelLayer(), 1_800_000_000.0
    hints = live.listen(layer, "CA1", wall=lambda: now)
    first = asyncio.ensure_future(anext(hints))
    while not layer.groups:
        await asyncio.sleep(0)
    for hint, age_s in ((live.SPEECH, 6.0), (live.INTERRUPTED, 0.5), (live.COMMANDS, 6.0), (live.INTERRUPTED, 0.3)):
        await live.tell(layer, "CA1", hint, at=now - age_s)
    assert [await first, await anext(hints)] == [live.COMMANDS, live.INTERRUPTED]
    await hints.aclose()


def test_a_sid_that_no_layer_would_take_still_has_a_group() -> None:
    assert live.group("CA1") == "call.CA1"
    assert live.group("x y/é" * 40).startswith("call.")
    assert len(live.group("x" * 500)) < 100


def enqueue(publisher: Publisher, task: Any) -> None:
    publisher.task(task, 1)
    publisher.tell("CA1", live.SESSION)
    publisher.rows(uuid.UUID(int=7), 1)


def timed(job: Callable[[], None]) -> float:
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def wait_for(truth: Callable[[], bool], within_s: float = 5.0) -> None:
    until = time.monotonic() + within_s
    while not truth():
        assert time.monotonic() < until
        time.sleep(0.005)
