"""Only Twilio's stream breaks, on real sockets: the agent waits, and whoever has the call then is one agent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from channels.layers import channel_layers
from django.utils import timezone
from pytest_django import Settings

from bridge.parking import Over, Parking, Spot
from bridge.sandbox.pattern import KNOWN_BY, SILENCE, PatternVoice, TimedEar, noise, without_silence
from bridge.sandbox.script import Scenario
from bridge.sandbox.vapi import SandboxCall
from bridge.sandbox.web import Internet
from calls import endings, handover, ladder, lookout, services, sessions
from calls.lookout import with_news
from calls.models import CallSession, EndReason, Rung, VapiState
from tests.bridge.real_sockets import SHORT, Place, Stream, a_place, quick
from tests.builders import a_call, session_of

pytestmark = pytest.mark.django_db(transaction=True)

SENTENCE = noise("the agent's", 3.0)
TALKS = replace(SHORT, ear=lambda: TimedEar(()), voice=lambda words: SENTENCE)
A_BUSY_MACHINE_S = 2.0


@pytest.fixture(autouse=True)
def one_channel_layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    channel_layers.backends.clear()


@dataclass
class Caller:
    """One phone call, and the streams it had one after the other."""

    row: CallSession
    place: Place
    streams: list[Stream] = field(default_factory=list)
    web: Internet = field(default_factory=Internet)

    async def agent_made(self) -> None:
        """What the worker does when the newest session is asked for."""
        pk = (await self.place.in_thread(partial(session_of, self.row))).pk
        await self.place.in_thread(partial(sessions.start_conversation, vapi_session_pk=pk, by="worker", client=self.place.account))

    async def useless_ended(self) -> None:
        """What the worker does after a stream, or its agent, is over."""
        for pk in await self.place.in_thread(partial(sessions.open_sessions, call_sid=self.row.call_sid)):
            await self.place.in_thread(partial(sessions.end_session, pk=pk, client=self.place.account, at=timezone.now()))

    async def stream(self, place: Place, *, epoch: int = 0) -> tuple[Any, asyncio.Task[None]]:
        pipe = await place.upgrade(self.web)
        stream = Stream(pipe, self.row, epoch=epoch, sid=f"MZ{epoch}")
        self.streams.append(stream)
        await stream.begin()
        return pipe, asyncio.create_task(stream.run())

    async def at_the_door(self, epoch: int = 0) -> ladder.Step | handover.AskAnew:
        asking = partial(handover.next_step, call_sid=self.row.call_sid, epoch=epoch, at=timezone.now())
        step: ladder.Step | handover.AskAnew = await self.place.in_thread(asking)
        return step

    async def until(self, true: Callable[[], bool], *, within: float = 8.0) -> None:
        deadline = time.monotonic() + within
        while not await self.place.in_thread(true):
            assert time.monotonic() < deadline, f"not so after {within:.0f} s"
            await asyncio.sleep(0.02)

    def at_vapi(self) -> list[SandboxCall]:
        return [call for call in self.place.vapi.calls.values() if call.name.startswith(self.row.call_sid)]

    def kinds(self) -> list[str]:
        return list(self.row.events.order_by("seq").values_list("kind", flat=True))

    def detail(self, kind: str) -> Any:
        return self.row.events.get(kind=kind).detail


@asynccontextmanager
async def talking(parking: Parking, scenario: Scenario, **faults: Any) -> AsyncIterator[tuple[Caller, Any, asyncio.Task[None]]]:
    """A call in the middle of the agent's first sentence."""
    async with a_place(parking=parking) as place:
        caller = Caller(await place.in_thread(a_call), place)
        place.vapi.of_call[caller.row.call_sid] = (scenario, quick(**faults))
        await caller.agent_made()
        pipe, running = await caller.stream(place)
        while len(caller.streams[0].heard) < 8000:
            await asyncio.sleep(0.02)
        yield caller, pipe, running
        await caller.web.close()


def on_a_call(
    work: Callable[[Caller, Any], Awaitable[Any]],
    *,
    parking: Callable[[], Parking] = Parking,
    scenario: Scenario = TALKS,
    **faults: Any,
) -> Caller:
    async def live() -> Caller:
        async with talking(parking(), scenario, **faults) as (caller, pipe, running):
            await work(caller, pipe)
            await asyncio.gather(running, return_exceptions=True)
            return caller

    return asyncio.run(live())


def nobody_is_left(caller: Caller) -> bool:
    return not caller.place.vapi.open_calls() and len(caller.place.parking) == 0


async def hangs_up(caller: Caller) -> None:
    over = partial(endings.leg_over, call_sid=caller.row.call_sid, status="completed", at=timezone.now())
    await caller.place.in_thread(over)


@pytest.mark.parametrize("gap_ms", [0, 20, 50, 500])
def test_the_next_stream_hears_the_rest_of_the_sentence_from_the_same_agent(gap_ms: int) -> None:
    async def broken(caller: Caller, pipe: Any) -> None:
        """Without a gap the resume door may be asked before the bridge has said that the stream is over, or even knows."""
        pipe.abort()
        await asyncio.sleep(gap_ms / 1000)
        assert await caller.at_the_door() == ladder.Resume()
        pipe, running = await caller.stream(caller.place, epoch=1)
        await caller.until(lambda: "re-attached" in caller.kinds())
        await caller.until(lambda: bytes(caller.streams[1].heard).rstrip(SILENCE).endswith(SENTENCE[-KNOWN_BY:]))
        await hangs_up(caller)  # or the agent would wait for its caller once more
        pipe.abort()
        await running

    caller = on_a_call(broken)
    first, then = caller.streams
    begins = SENTENCE.find(bytes(then.heard[:KNOWN_BY]))
    assert 0 < begins <= len(first.heard)  # not a word is missing
    assert SENTENCE[begins:] == bytes(then.heard).rstrip(SILENCE)  # the sandbox fills its last message up
    caller.row.refresh_from_db()
    assert (caller.row.rung, caller.row.epoch, caller.row.vapi_sessions.count()) == (Rung.AI, 1, 1)
    assert len(caller.at_vapi()) == 1
    assert "conversation-lost" not in caller.kinds()
    assert caller.detail("re-attached")["gap_ms"] < gap_ms + 1000 * A_BUSY_MACHINE_S


def test_a_stream_that_reaches_another_process_asks_for_another_agent_and_the_first_one_is_ended() -> None:
    async def broken(caller: Caller, pipe: Any) -> None:
        async with a_place(beside=caller.place, parking=Parking()) as other:
            pipe.abort()
            await caller.until(lambda: CallSession.objects.filter(closed_epoch=0).exists())
            assert await caller.at_the_door() == ladder.Resume()
            assert await caller.place.in_thread(caller.row.vapi_sessions.count) == 1
            pipe, running = await caller.stream(other, epoch=1)
            await caller.until(lambda: caller.row.vapi_sessions.count() == 2)
            began = time.monotonic()
            await caller.useless_ended()
            await caller.agent_made()
            await caller.until(lambda: len(caller.place.vapi.open_calls()) == 1 and not len(caller.place.parking))
            assert time.monotonic() - began < 2.0 + A_BUSY_MACHINE_S
            await caller.until(lambda: len(caller.streams[1].heard) > 0)
            await hangs_up(caller)
            pipe.abort()
            await running

    caller = on_a_call(broken)
    caller.row.refresh_from_db()
    assert (caller.row.rung, caller.row.epoch) == (Rung.RESUMED, 1)
    assert [call.name[-2:] for call in caller.at_vapi()] == [".0", ".1"]
    assert caller.kinds().count("conversation-lost") == 1
    assert "re-attached" not in caller.kinds()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One for each look for commands, of which there are many."""
    seen: list[int] = []

    def counted(refs: Any) -> Any:
        seen.append(len(refs))
        return with_news(refs)

    monkeypatch.setattr(lookout, "EVERY_S", 0.02)
    monkeypatch.setattr(lookout, "with_news", counted)
    return seen


@pytest.mark.parametrize("when", ["before the end is stored", "after that"])
def test_an_agent_that_ends_the_call_while_its_caller_is_away_ends_it_on_the_next_stream(
    looks: list[int], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def ends(caller: Caller) -> None:
        call = CallSession.objects.get(pk=caller.row.pk)
        services.ask(call=call, key=f"end-call:{call.call_sid}:{call.epoch}", verb="end-call", detail={}, at=timezone.now())

    at_once = services.stream_closed

    def closed(**stream: Any) -> bool:
        if when == "before the end is stored" and not asked:
            asked.append(call[0])
            ends(call[0])
        return at_once(**stream)

    async def broken(caller: Caller, pipe: Any) -> None:
        call.append(caller)
        pipe.abort()
        await caller.until(lambda: CallSession.objects.filter(closed_why="parked").exists())
        if when == "after that":
            await caller.place.in_thread(partial(ends, caller))
        seen = len(looks)
        await caller.until(lambda: len(looks) > seen + 40)  # longer than it takes to write that it was done
        assert await caller.place.in_thread(lambda: [each.done_at for each in caller.row.commands.all()]) == [None]
        assert await caller.at_the_door() == ladder.Resume()
        _, running = await caller.stream(caller.place, epoch=1)
        await asyncio.wait_for(running, 15.0)  # the bridge closes it

    call: list[Caller] = []
    asked: list[Caller] = []
    monkeypatch.setattr(services, "stream_closed", closed)
    caller = on_a_call(broken, parking=lambda: Parking(waits_s=60.0))
    caller.row.refresh_from_db()
    assert (caller.row.closed_why, caller.row.end_reason) == ("agent-ended", EndReason.AGENT_ENDED)
    [command] = caller.row.commands.all()
    assert (command.done_at is not None, command.problem) == (True, "")


def test_a_person_who_was_asked_for_while_the_caller_is_away_is_not_asked_for_a_second_time(looks: list[int]) -> None:
    async def broken(caller: Caller, pipe: Any) -> None:
        pipe.abort()
        await caller.until(lambda: CallSession.objects.filter(closed_why="parked").exists())
        key, at = services.hand_over_key(caller.row.call_sid, 0), timezone.now()
        await caller.place.in_thread(partial(services.ask, call=caller.row, key=key, verb="hand-over", detail={}, at=at))
        seen = len(looks)
        await caller.until(lambda: len(looks) > seen + 40)  # longer than it takes to write that it was done
        assert await caller.at_the_door() != ladder.Resume()
        await caller.until(lambda: nobody_is_left(caller))

    caller = on_a_call(broken, parking=lambda: Parking(waits_s=60.0))
    [command] = caller.row.commands.filter(verb="hand-over")
    assert (command.done_at is not None, command.problem) == (True, "the stream ended first")


def test_a_caller_who_hangs_up_meanwhile_leaves_nobody_behind() -> None:
    """Nobody ends the session but its keeper: the worker may be away."""

    async def broken(caller: Caller, pipe: Any) -> None:
        pipe.abort()
        await caller.until(lambda: CallSession.objects.filter(closed_epoch=0).exists())
        began = time.monotonic()
        await hangs_up(caller)
        await caller.until(lambda: nobody_is_left(caller))
        assert time.monotonic() - began < 2.0 + 0.5 + A_BUSY_MACHINE_S  # rows are looked at every two seconds when no hint comes

    caller = on_a_call(broken, parking=lambda: Parking(waits_s=60.0))
    assert len(caller.at_vapi()) == 1


async def is_broken_and_replaced(caller: Caller, pipe: Any) -> None:
    """The stream breaks, Twilio asks, and another agent is asked for although nobody came."""
    pipe.abort()
    await caller.until(lambda: CallSession.objects.filter(closed_epoch=0).exists())
    assert await caller.at_the_door() == ladder.Resume()
    await caller.until(lambda: caller.row.vapi_sessions.count() == 2)
    await caller.until(lambda: nobody_is_left(caller))


def test_when_nobody_comes_the_agent_is_ended_and_the_next_one_is_asked_for_the_stream_that_is_late() -> None:
    caller = on_a_call(is_broken_and_replaced, parking=lambda: Parking(waits_s=1.0))
    assert session_of(caller.row).state == VapiState.ASKED
    assert caller.detail("conversation-lost")["raw"] == "its agent waited in vain"
    waited = caller.detail("waited-in-vain")
    assert waited == {"n": 0, "ms": waited["ms"], "said_ms": waited["said_ms"]}
    assert waited["ms"] >= 1000
    assert 0 < waited["said_ms"] < 3000  # of a sentence of three seconds, of which one was heard


def test_when_nobody_asks_the_agent_is_ended_and_the_door_asks_for_the_next_one() -> None:
    async def broken(caller: Caller, pipe: Any) -> None:
        pipe.abort()
        await caller.until(lambda: CallSession.objects.filter(closed_why="stream-lost").exists())
        await caller.until(lambda: nobody_is_left(caller))
        assert await caller.place.in_thread(caller.row.vapi_sessions.count) == 1
        assert await caller.at_the_door() == ladder.Resume()

    caller = on_a_call(broken, parking=lambda: Parking(waits_s=0.5))
    assert session_of(caller.row).n == 1


def test_an_agent_that_is_gone_meanwhile_is_replaced_at_once() -> None:
    on_a_call(is_broken_and_replaced, parking=lambda: Parking(waits_s=60.0), close_after_s=3.0)


class KeeperEnded(Parking):
    """Whoever keeps an agent is cancelled in the moment in which it is taken up, and lets nothing go."""

    async def keep(self, spot: Spot) -> Over:
        if await super().keep(spot) is Over.TAKEN:
            raise asyncio.CancelledError
        return Over.LATE


def test_an_agent_that_its_keeper_does_not_let_go_is_replaced_after_a_second() -> None:
    async def broken(caller: Caller, pipe: Any) -> None:
        pipe.abort()
        await caller.until(lambda: CallSession.objects.filter(closed_why="parked").exists())
        assert await caller.at_the_door() == ladder.Resume()
        pipe, running = await caller.stream(caller.place, epoch=1)
        began = time.monotonic()
        await caller.until(lambda: caller.row.vapi_sessions.count() == 2)
        assert 1.0 <= time.monotonic() - began < 1.0 + A_BUSY_MACHINE_S
        await caller.useless_ended()
        await caller.agent_made()
        await caller.until(lambda: len(caller.place.vapi.open_calls()) == 1)
        await caller.until(lambda: len(caller.streams[1].heard) > 0)
        await hangs_up(caller)
        pipe.abort()
        await running

    caller = on_a_call(broken, parking=lambda: KeeperEnded(waits_s=60.0))
    assert [call.name[-2:] for call in caller.at_vapi()] == [".0", ".1"]
    assert "re-attached" not in caller.kinds()


def test_an_agent_that_says_goodbye_meanwhile_is_heard_out_and_then_the_call_is_over() -> None:
    """Its socket is closed when the next stream comes. Thanked in its first sentence, this agent says a last one."""
    voice = PatternVoice("the agent's", (2.0, 2.0))

    async def broken(caller: Caller, pipe: Any) -> None:
        while voice.said[-1][:KNOWN_BY] not in caller.streams[0].heard or len(voice.said) < 2:
            await asyncio.sleep(0.02)
        pipe.abort()
        assert await caller.at_the_door() == ladder.Resume()
        while caller.place.vapi.open_calls():
            await asyncio.sleep(0.02)
        assert len(caller.place.parking) == 1
        _, running = await caller.stream(caller.place, epoch=1)
        await running  # the bridge closes it

    caller = on_a_call(broken, parking=lambda: Parking(waits_s=60.0), scenario=replace(SHORT, voice=voice))
    first, then = caller.streams
    rest, last = without_silence(bytes(then.heard)), voice.said[-1]
    assert last.endswith(rest)
    assert last.find(rest) <= len(first.heard) - first.heard.find(last[:KNOWN_BY])  # not a word is missing
    assert len(rest) > len(last) // 2
    caller.row.refresh_from_db()
    assert (caller.row.closed_why, caller.row.end_reason, caller.row.rung) == ("agent-ended", EndReason.AGENT_ENDED, Rung.AI)
    assert len(caller.at_vapi()) == 1
    assert "conversation-lost" not in caller.kinds()


def test_a_process_that_is_told_to_leave_parks_nobody_any_more() -> None:
    stays = [True]

    async def broken(caller: Caller, pipe: Any) -> None:
        pipe.abort()
        await caller.until(lambda: CallSession.objects.filter(closed_epoch=0).exists())
        assert len(caller.place.parking) == 1
        stays[0] = False
        began = time.monotonic()
        await caller.until(lambda: nobody_is_left(caller))
        assert time.monotonic() - began < 0.5 + A_BUSY_MACHINE_S
        await caller.until(lambda: CallSession.objects.filter(closed_why="stream-lost").exists())
        assert await caller.at_the_door() == ladder.Resume()

    caller = on_a_call(broken, parking=lambda: Parking(is_open=lambda: stays[0], waits_s=60.0))
    assert session_of(caller.row).n == 1


def test_who_finds_no_room_is_resumed_as_ever() -> None:
    async def broken(caller: Caller, pipe: Any) -> None:
        pipe.abort()
        await caller.until(lambda: CallSession.objects.filter(closed_epoch=0, closed_why="stream-lost").exists())
        assert await caller.at_the_door() == ladder.Resume()

    caller = on_a_call(broken, parking=lambda: Parking(most=0))
    assert session_of(caller.row).n == 1
    assert caller.place.parking.refused == 1
