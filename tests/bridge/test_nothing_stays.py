"""Two hundred calls over real sockets, fifty of them broken at random points: afterwards the process is as it was before.

The server is uvicorn as we run it, with the real consumer, ledger and links; both vendors are the sandbox, in the same loop.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import pytest
from channels.layers import channel_layers
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone
from pytest_django import Settings

from bridge.sandbox.faults import Faults
from bridge.sandbox.media import Pipe, PipeClosed
from bridge.sandbox.web import Internet
from calls import sessions
from calls.ledger import CREATORS
from calls.models import CallSession
from tests.bridge.real_sockets import SHORT, Account, Place, Stream, a_place, quick
from tests.builders import QuietPublisher, a_call, session_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.load]

WARMING, CALLS, BROKEN, AT_ONCE = 40, 200, 50, 40
OURS = ("bridge.", "calls.", "agents.", "supportvoice.")


# -- a caller ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Break:
    """What goes wrong with a call, and when."""

    what: str = ""
    after_s: float = 0.0
    faults: Faults = field(default_factory=quick)


def breaks(seed: int, count: int) -> Iterator[Break]:
    """So many calls, one in four of them broken somewhere."""
    rng = Random(seed)
    ours = ("vanish", "no-stop", "stop", "half-open", "never starts", "wrong token", "garbage", "leaves during create")
    for number in range(count):
        at = rng.uniform(0.0, 2.0)
        if number % 4:
            yield Break()
        elif rng.random() < 0.6:
            what = rng.choice(ours)
            yield Break(what, at, quick(create_delay_s=1.0 if "create" in what else 0.05))
        else:
            yield Break(faults=vapi_breaks(rng, at))


def vapi_breaks(rng: Random, at: float) -> Faults:
    faults = quick()
    match rng.randrange(4):
        case 0:
            faults.close_after_s, faults.close_code = at, rng.choice((0, 1001, 1006, 1011, 1012))
        case 1:
            faults.socket_status = rng.choice((403, 500))
        case 2:
            faults.create_status = rng.choice((401, 402, 429, 500))
        case 3:
            faults.garbage = rng.choice(("json", "binary", "long", "flood"))
    return faults


async def call(place: Place, row: CallSession, pk: int, wrong: Break, *, by_worker: bool = True) -> None:
    """One caller from the stream's upgrade to its end, at the pace of the clock."""
    web, creating = Internet(), None
    place.vapi.of_call[row.call_sid] = (SHORT, wrong.faults)
    if by_worker:
        creating = place.in_thread(partial(sessions.start_conversation, vapi_session_pk=pk, by="worker", client=place.account))
        await asyncio.wait({creating}, timeout=0.0 if wrong.what == "leaves during create" else 5.0)  # else while the disclosure is spoken
    pipe = await place.upgrade(web)
    stream = Stream(pipe, row, "forged" if wrong.what == "wrong token" else "")
    if wrong.what == "never starts":
        pipe.abort()
    else:
        await stream.begin()
        await carry(stream, pipe, wrong)
    await web.close()
    if creating is not None:
        await asyncio.gather(creating, return_exceptions=True)  # a database that was busy is the row's affair


async def carry(stream: Stream, pipe: Pipe, wrong: Break) -> None:
    streaming = asyncio.create_task(stream.run())
    await asyncio.wait({streaming}, timeout=wrong.after_s if wrong.what else None)
    with suppress(PipeClosed):
        match wrong.what:
            case "vanish" | "leaves during create":
                pipe.abort()
            case "no-stop":
                await pipe.close()
            case "stop":
                await stream.stop()
                await pipe.close()
            case "half-open":
                streaming.cancel()
                pipe.pause()
                await asyncio.sleep(4.0)  # the bridge has left by then; its goodbye is not read
                pipe.abort()
            case "garbage":
                for _ in range(40):
                    await pipe.send("stammer")
    await asyncio.wait({streaming}, timeout=20)
    assert streaming.done()


# -- the process -----------------------------------------------------------------------------------------------------------


def standing() -> dict[str, Any]:
    """Everything a call could leave behind.

    Threads of pools with a size of their own do not count. Nor do SQLite's descriptors, which it keeps after a close until
    nobody in the process holds a lock: open connections are counted instead.
    """
    gc.collect()
    layer = channel_layers["default"]
    pools = ("ledger", "worker")
    return {
        "tasks": Counter(map(name_of, asyncio.all_tasks())),
        "descriptors": Counter(re.sub(r"[0-9]+", "", where) for where in descriptors() if "sqlite" not in where),
        "databases": sum(item.connection is not None for item in gc.get_objects() if isinstance(item, BaseDatabaseWrapper)),
        "threads": sorted(thread.name for thread in threading.enumerate() if not thread.name.startswith(pools)),
        "groups": dict(layer.groups),  # type: ignore[attr-defined]
        "channels": len(layer.channels),  # type: ignore[attr-defined]
        "objects": Counter(name for item in gc.get_objects() if (name := class_of(item)).startswith(OURS)),
    }


def descriptors() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one of this very listing
            yield os.readlink(f"/proc/self/fd/{number}")


def name_of(task: asyncio.Task[Any]) -> str:
    return str(getattr(task.get_coro(), "__qualname__", "?"))


def class_of(item: object) -> str:
    return f"{type(item).__module__}.{type(item).__qualname__}"


async def all_of(place: Place, rows: list[tuple[CallSession, int]], wrongs: list[Break]) -> None:
    """So many at once, one after the other; then everything is ended that the tasks of a real house would end."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, row: CallSession, pk: int, wrong: Break) -> None:
        async with room:
            await call(place, row, pk, wrong, by_worker=number % 7 != 3)

    await asyncio.gather(*(one(number, row, pk, wrong) for number, ((row, pk), wrong) in enumerate(zip(rows, wrongs, strict=True))))
    await place.in_thread(partial(end_what_is_left, [row.call_sid for row, _ in rows], place.account))
    async with asyncio.timeout(20):
        while place.vapi.open_calls() or any("run_asgi" in name_of(task) for task in asyncio.all_tasks()):
            await asyncio.sleep(0.05)


def end_what_is_left(call_sids: list[str], account: Account) -> None:
    for call_sid in call_sids:
        for pk in sessions.open_sessions(call_sid=call_sid):
            sessions.end_session(pk=pk, client=account, at=timezone.now())


async def forget(place: Place, published: QuietPublisher) -> None:
    """What the vendors and the stand-ins of this test remember of the calls is no leak of ours."""
    together = threading.Barrier(CREATORS)
    await asyncio.gather(*(asyncio.wrap_future(place.creators.submit(together.wait)) for _ in range(CREATORS)))  # whoever creates is done
    place.account.let_go()
    await asyncio.sleep(1.2)  # the vendor's report comes a second after the end
    place.vapi.calls.clear()
    place.vapi.of_call.clear()
    published.items.clear()


def rows_of(count: int) -> list[tuple[CallSession, int]]:
    calls = [a_call() for _ in range(count)]
    return [(call, session_of(call).pk) for call in calls]


@pytest.fixture(autouse=True)
def no_log_records() -> Iterator[None]:
    """A record with a traceback, kept for the test's report, keeps a whole call alive."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def one_channel_layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    channel_layers.backends.clear()


def test_after_two_hundred_calls_fifty_of_them_broken_the_process_is_as_before(
    published: QuietPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    warming, rows = rows_of(WARMING), rows_of(CALLS)
    warm, wrongs = list(breaks(1, WARMING)), list(breaks(2, CALLS))
    assert sum(wrong != Break() for wrong in wrongs) == BROKEN

    async def live() -> tuple[dict[str, Any], dict[str, Any]]:
        async with a_place() as place:
            await all_of(place, warming, warm)
            await forget(place, published)
            before = standing()
            await all_of(place, rows, wrongs)
            await forget(place, published)
            return before, standing()

    before, after = asyncio.run(live())
    assert more_than(before, after) == {}
    assert CallSession.objects.filter(stream_epoch=0, closed_epoch=-1).count() == 0, "a stream that nobody closed"


def more_than(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What there is more of than before, by kind."""
    grown: dict[str, Any] = {}
    for kind, now in after.items():
        if isinstance(now, Counter):
            grown |= {f"{kind} {name}": (before[kind][name], count) for name, count in now.items() if count > before[kind][name]}
        elif now != before[kind]:
            grown[kind] = (before[kind], now)
    return grown
