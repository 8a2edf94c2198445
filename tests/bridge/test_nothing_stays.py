"""Two hundred calls over real sockets, fifty of them broken at random points: afterwards the process is as it was before.

`make abuse ABUSED=5000` breaks so many, all of them. The server is uvicorn as we run it, with the real consumer, ledger and links;
both vendors are the sandbox, in the same loop. A call takes little more than a second, and nothing is waited for by the clock: what
a busy machine does late is looked for again until it is so, and what is left behind never goes away.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import pytest
from channels.layers import channel_layers
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone
from pytest_django import Settings

from bridge.sandbox.faults import NO_CLOSE_FRAME, RESET, Faults
from bridge.sandbox.media import Pipe, PipeClosed
from bridge.sandbox.web import Internet
from bridge.vapi_http import VapiClient
from calls import orphans, sessions
from calls.ledger import CREATORS
from calls.models import CallSession, VapiSession
from tests.bridge.real_sockets import SHORT, Place, Stream, a_place, quick
from tests.builders import QuietPublisher, a_call, call_sid, session_of

ABUSED = int(os.environ.get("ABUSED", "0"))
CALLS, BROKEN, AT_ONCE = (ABUSED, ABUSED, 24) if ABUSED else (200, 50, 24)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long, pytest.mark.timeout(600 + CALLS)]

LASTS_S = 1.4  # a call that nothing breaks
PATIENCE_S = 60.0
LEFT_WITHIN_S = 10.0
OURS = ("bridge.", "calls.", "agents.", "supportvoice.")
POOLS = ("ledger", "worker", "asyncio")  # threads of these have a bound of their own; the last is the loop's


# -- a caller ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Break:
    """What goes wrong with a call, and when."""

    what: str = ""
    after_s: float = 0.0
    faults: Faults = field(default_factory=quick)


WHOLE = Break()


def _by_caller(what: str, **faults: Any) -> Callable[[float], Break]:
    return lambda at: Break(what, at, quick(**faults))


def _by_vapi(**faults: Any) -> Callable[[float], Break]:
    return lambda _at: Break(faults=quick(**faults))


def _vapi_goes(code: int) -> Callable[[float], Break]:
    return lambda at: Break(faults=quick(close_after_s=at, close_code=code))


BREAKS: Sequence[Callable[[float], Break]] = (
    *(_by_caller(what) for what in ("vanish", "no-stop", "stop", "half-open", "never starts", "wrong token", "garbage")),
    _by_caller("leaves during create", create_delay_s=1.0),
    *(_vapi_goes(code) for code in (RESET, 1001, NO_CLOSE_FRAME, 1011, 1012)),
    *(_by_vapi(socket_status=status) for status in (403, 500)),
    *(_by_vapi(create_status=status) for status in (401, 402, 429, 500)),
    *(_by_vapi(strikes_in_turn=1, strikes_after_s=0.0, garbage=kind) for kind in ("bad-json", "huge-text", "unknown", "empty")),
)


def broken(rng: Random, count: int) -> list[Break]:
    """So many, every kind as often as any other, each at a random point."""
    kinds = [kind for _ in range(-(-count // len(BREAKS))) for kind in rng.sample(BREAKS, len(BREAKS))]
    return [kind(rng.uniform(0.0, LASTS_S)) for kind in kinds[:count]]


def mixed(rng: Random, count: int, wrongs: Sequence[Break]) -> list[Break]:
    """So many calls, these among them."""
    calls = [*wrongs, *[WHOLE] * (count - len(wrongs))]
    rng.shuffle(calls)
    return calls


async def call(place: Place, row: CallSession, pk: int, wrong: Break, *, by_worker: bool = True) -> None:
    """One caller from the stream's upgrade to its end, at the pace of the clock."""
    web, creating = Internet(), None
    place.vapi.of_call[row.call_sid] = (SHORT, wrong.faults)
    if by_worker:
        creating = place.in_thread(partial(sessions.start_conversation, vapi_session_pk=pk, by="worker", client=place.account))
        speaks_s = 0.0 if wrong.what == "leaves during create" else PATIENCE_S  # the disclosure, meanwhile
        await asyncio.wait({creating}, timeout=speaks_s)
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
                await asyncio.wait_for(pipe.gone(), PATIENCE_S)  # the bridge has left by then; its goodbye is not read
                pipe.abort()
            case "garbage":
                for _ in range(40):
                    await pipe.send("stammer")
    await asyncio.wait({streaming}, timeout=PATIENCE_S)
    assert streaming.done()


# -- the process -----------------------------------------------------------------------------------------------------------


def standing() -> dict[str, Any]:
    """Everything a call could leave behind.

    Threads of pools do not count, nor the connection each of them keeps. Nor do SQLite's descriptors, which it keeps after a
    close until nobody in the process holds a lock: open connections are counted instead.
    """
    gc.collect()
    things, layer = gc.get_objects(), channel_layers["default"]
    pooled = {thread.ident for thread in threading.enumerate() if thread.name.startswith(POOLS)}
    return {
        "tasks": Counter(map(name_of, asyncio.all_tasks())),
        "descriptors": Counter(re.sub(r"[0-9]+", "", where) for where in descriptors() if "sqlite" not in where),
        "databases": len([item for item in things if issubclass(type(item), BaseDatabaseWrapper) and is_kept(item, pooled)]),
        "threads": Counter(thread.name for thread in threading.enumerate() if thread.ident not in pooled),
        "groups": dict(layer.groups),  # type: ignore[attr-defined]
        "channels": len(layer.channels),  # type: ignore[attr-defined]
        "objects": Counter({name: count for kind, count in Counter(map(type, things)).items() if (name := name_of_ours(kind))}),
    }


def is_kept(database: BaseDatabaseWrapper, pooled: set[int | None]) -> bool:
    return database.connection is not None and getattr(database, "_thread_ident", None) not in pooled


def descriptors() -> Iterator[str]:
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one of this very listing
            yield os.readlink(f"/proc/self/fd/{number}")


def name_of(task: asyncio.Task[Any]) -> str:
    return str(getattr(task.get_coro(), "__qualname__", "?"))


def name_of_ours(kind: type) -> str:
    """Empty for strangers, and for connections: each thread of a pool has one, counted above."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name if name.startswith(OURS) and not issubclass(kind, BaseDatabaseWrapper) else ""


async def all_of(place: Place, rows: list[tuple[CallSession, int]], wrongs: list[Break]) -> None:
    """So many at once, one after the other; then everything is ended that the tasks of a real house would end."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, row: CallSession, pk: int, wrong: Break) -> None:
        async with room:
            await call(place, row, pk, wrong, by_worker=number % 7 != 3)

    await asyncio.gather(*(one(number, row, pk, wrong) for number, ((row, pk), wrong) in enumerate(zip(rows, wrongs, strict=True))))
    await everybody_is_done(place)
    await place.in_thread(partial(end_what_is_left, [pk for _, pk in rows], place.account))
    async with asyncio.timeout(PATIENCE_S):
        while place.vapi.open_calls() or any("run_asgi" in name_of(task) for task in asyncio.all_tasks()):
            await asyncio.sleep(0.05)


async def everybody_is_done(place: Place) -> None:
    """Nobody creates a Vapi call any more."""
    together = threading.Barrier(CREATORS)
    waiting = [place.creators.take(together.wait) for _ in range(CREATORS)]
    await asyncio.gather(*(asyncio.wrap_future(each) for each in waiting if each is not None))


def end_what_is_left(pks: list[int], account: VapiClient) -> None:
    """As the worker does, which tries again when the database is busy."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            for pk in VapiSession.objects.filter(pk__in=pks, ended_at=None).values_list("pk", flat=True):
                sessions.end_session(pk=pk, client=account, at=timezone.now())
            orphans.end_orphans(client=account, now=timezone.now())
            return
        except OperationalError:
            assert time.monotonic() < until


async def forget(place: Place, published: QuietPublisher) -> None:
    """What the vendors and the stand-ins of this test remember of the calls is no leak of ours."""
    async with asyncio.timeout(PATIENCE_S):
        for each in place.vapi.calls.values():
            await each.done.wait()  # the vendor's report comes a second after the end
    place.account.close()
    place.vapi.calls.clear()
    place.vapi.of_call.clear()
    published.items.clear()


def rows_of(count: int) -> list[tuple[CallSession, int]]:
    """Calls with a session each, like the first of them: how they come about is not what is looked at here."""
    first, said = a_call(), {}
    for each in CallSession._meta.concrete_fields:
        if not each.unique:
            said[each.attname] = getattr(first, each.attname)
    calls = CallSession.objects.bulk_create(CallSession(**said, call_sid=call_sid()) for _ in range(count - 1))
    asked = VapiSession.objects.bulk_create(VapiSession(call=call, n=0, asked_at=timezone.now()) for call in calls)
    return [(first, session_of(first).pk), *((session.call, session.pk) for session in asked)]


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
    rng = Random(2)
    warm = mixed(rng, len(BREAKS) + 4, [kind(0.5) for kind in BREAKS])  # whatever is kept for the next time is there afterwards
    wrongs = mixed(rng, CALLS, broken(rng, BROKEN))
    warming, rows = rows_of(len(warm)), rows_of(CALLS)

    async def live() -> dict[str, Any]:
        async with a_place() as place:
            await all_of(place, warming, warm)
            await forget(place, published)
            before = standing()
            await all_of(place, rows, wrongs)
            await forget(place, published)
            return await left_behind(before)

    assert asyncio.run(live()) == {}
    carried = CallSession.objects.filter(closed_why="agent-ended").count()
    assert carried > (CALLS - BROKEN) / 2, "hardly a call was carried"
    print(f"{CALLS} calls, {BROKEN} broken at random points, {carried} that came to their end: nothing stays")  # noqa: T201
    assert CallSession.objects.filter(stream_epoch=0, closed_epoch=-1).count() == 0, "a stream that nobody closed"


async def left_behind(before: dict[str, Any]) -> dict[str, Any]:
    """What there is more of than before, and stays."""
    until = time.monotonic() + LEFT_WITHIN_S
    while (left := more_than(before, standing())) and time.monotonic() < until:
        await asyncio.sleep(0.5)
    return left


def more_than(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What there is more of than before, by kind."""
    grown: dict[str, Any] = {}
    for kind, now in after.items():
        if isinstance(now, Counter):
            grown |= {f"{kind} {name}": (before[kind][name], count) for name, count in now.items() if count > before[kind][name]}
        elif now != before[kind]:
            grown[kind] = (before[kind], now)
    return grown
