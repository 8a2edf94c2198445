"""Two things at the same moment, on real sockets: streams that claim one call, and callers who leave while their agent is being made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import partial

import pytest
from channels.layers import channel_layers
from django.utils import timezone
from pytest_django import Settings

from bridge.sandbox.web import Internet
from calls import sessions
from calls.models import CallSession, Status
from calls.vapi_names import named
from tests.bridge.real_sockets import Place, Stream, a_place, quick
from tests.builders import QuietPublisher, a_call

pytestmark = pytest.mark.django_db(transaction=True)

POLICY_VIOLATION = 1008


@pytest.fixture(autouse=True)
def one_channel_layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    channel_layers.backends.clear()


async def stream(place: Place, row: CallSession, *, after_s: float, sid: str, until: Awaitable[None]) -> Stream:
    """One media socket with the call's token, left politely after `until` unless the server closes first."""
    await asyncio.sleep(after_s)
    web = Internet()
    pipe = await place.upgrade(web)
    made = Stream(pipe, row, sid=sid)
    await made.begin()
    running, leaving = asyncio.create_task(made.run()), asyncio.ensure_future(until)
    await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if not running.done():
        await made.stop()
        await pipe.close()
    await running
    await web.close()
    return made


async def at_vapi(place: Place, row: CallSession) -> None:
    """Until this call's conversation exists at Vapi."""
    while row.call_sid not in {named(call.name)[0] for call in place.vapi.calls.values()}:
        await asyncio.sleep(0.02)


def test_of_two_streams_with_one_token_one_is_carried_and_the_other_never_touches_vapi() -> None:
    gaps_ms = (0, 1, 5, 20, 50) * 2
    rows = [a_call() for _ in gaps_ms]
    twins = {row.call_sid: number % 2 == 0 for number, row in enumerate(rows)}  # every other pair shares the stream's name as well

    async def race(place: Place, row: CallSession, gap_ms: int) -> list[Stream]:
        sids = ["MZ1", "MZ1" if twins[row.call_sid] else "MZ2"]
        return await asyncio.gather(
            *(stream(place, row, after_s=n * gap_ms / 1000, sid=sid, until=at_vapi(place, row)) for n, sid in enumerate(sids)),
        )

    async def live() -> tuple[list[list[Stream]], list[str]]:
        async with a_place() as place:
            place.vapi.faults = quick(mute=True)
            done = await asyncio.gather(*(race(place, row, gap_ms) for row, gap_ms in zip(rows, gaps_ms, strict=True)))
            return done, [named(call.name)[0] for call in place.vapi.calls.values()]

    pairs, made = asyncio.run(live())
    for pair in pairs:
        assert sorted(each.close_code == POLICY_VIOLATION for each in pair) == [False, True]
    assert sorted(made) == sorted(row.call_sid for row in rows)
    for row in rows:
        row.refresh_from_db()
        assert (row.closed_why, row.status) == ("caller-left", Status.RECOVERING)  # the end of the call is Twilio's to tell
        assert row.events.filter(kind="stream-started").count() == 1


def end_sessions(place: Place, row: CallSession) -> None:
    """What the worker does when the stream's end is stored."""
    for pk in sessions.open_sessions(call_sid=row.call_sid):
        sessions.end_session(pk=pk, client=place.account, at=timezone.now())


@pytest.mark.long
def test_a_caller_who_leaves_while_the_bridge_makes_the_agent_leaves_nobody_behind(published: QuietPublisher) -> None:
    """Nobody has claimed the session, so the bridge does, 1.0 s after the stream opened; the create takes 0.8 s."""
    leaves_ms = (0, 50, 500, 900, 1000, 1050, 1200, 1500, 1750, 1800, 1850, 2000, 2500, 3000)
    rows = [a_call() for _ in leaves_ms]

    async def live() -> tuple[float, list[str]]:
        async with a_place() as place:
            place.vapi.faults = quick(create_delay_s=0.8, mute=True)
            streams = (
                stream(place, row, after_s=0.0, sid="MZ1", until=asyncio.sleep(ms / 1000)) for row, ms in zip(rows, leaves_ms, strict=True)
            )
            await asyncio.gather(*streams)
            await asyncio.sleep(0.9)  # the last create is answered
            answered = time.monotonic()
            await asyncio.gather(*(place.in_thread(partial(end_sessions, place, row)) for row in rows))
            while (still := place.vapi.open_calls()) and time.monotonic() - answered < 5.0:
                await asyncio.sleep(0.05)
            return time.monotonic() - answered, [call.name for call in still]

    took_s, still_open = asyncio.run(live())
    assert still_open == []
    assert took_s <= 2.0
    for row in rows:
        row.refresh_from_db()
        assert row.closed_why == "caller-left"
        assert ("calls.tasks.end_sessions", (row.call_sid,)) in published.tasks  # for the rows, and whatever else may be open
