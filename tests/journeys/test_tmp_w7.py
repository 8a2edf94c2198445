"""Thirty calls at once, in real time, through the real house: no byte lost, none doubled, none of another call.

Each call has noise of its own in both directions, two barge-ins and a tool call. `THIRTY=100` in the environment makes it a
hundred; what was measured is printed (`-s`).
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import quantiles

import pytest

from bridge.audio import load_clips
from bridge.sandbox.pattern import PatternVoice, TimedEar, noise, pattern_call, place_in, turns_in, without_silence
from bridge.sandbox.sound import FRAME, FRAME_S
from bridge.sandbox.twilio import STALLED_MS, TwilioCall
from bridge.sandbox.vapi import SandboxCall
from tests.journeys.house import OF_CALL, House

pytestmark = pytest.mark.journey

COUNT = int(os.environ.get("THIRTY", "30"))
APART_S = 0.1
UTTERS_S = 60.0
FILLER = without_silence(load_clips(Path(__file__).parents[2] / "bridge" / "clips")["one_moment"].ulaw)
TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Carried:
    """One call after it, seen from both vendors."""

    phone: TwilioCall
    vapi: SandboxCall
    voice: PatternVoice
    uttered: bytes
    audio: Counter[str]

    @property
    def in_time(self) -> bool:
        return self.phone.late_ms <= STALLED_MS

    @property
    def heard(self) -> bytes:
        """What came out of the caller's phone while the stream was open, silence left out."""
        stream = self.phone.streams[-1]
        return without_silence(self.phone.phone.playout.heard(stream.first_media_at or 0.0, stream.ended_at or 0.0))

    @property
    def clear_ms(self) -> list[float]:
        """From Vapi's word that the caller speaks, or has interrupted, to the clear at Twilio."""
        kinds = ("speech-update", "user-interrupted")
        said = [entry.at for entry in self.vapi.evidence.entries if entry.way == "out" and entry.kind in kinds]
        return [1000 * (clear.at - max(at for at in said if at <= clear.at)) for clear in self.phone.clears]


@pytest.fixture(scope="module")
def carried(house: House) -> list[Carried]:
    house.vapi.concurrency_limit = max(house.vapi.concurrency_limit, COUNT + 20)
    before, began = cpu_s(house), time.monotonic()
    calls = []
    for number in range(COUNT):
        scenario, voice = pattern_call(str(number))
        uttered = noise(f"caller {number}", UTTERS_S)
        calls.append((house.place(scenario, after_s=APART_S * number, says=uttered, ear=TimedEar()), voice, uttered))
    phones = [placed.result(120) for placed, _, _ in calls]
    took_s, spent_s = time.monotonic() - began, cpu_s(house) - before
    for phone in phones:
        try:
            house.settle(phone.call_sid, within=20)
        except AssertionError:
            print("UNSETTLED", house.row(phone.call_sid), [(c.open, c.ended_reason, c.name) for c in house.at_vapi(phone.call_sid)], house.rows(f"SELECT r.n, r.state, r.claimed_by, r.maybe_created, r.failure, r.ended_at FROM calls_vapisession r {OF_CALL}", phone.call_sid), phone.late_ms, [s.end for s in phone.streams], phone.problems)
            for e in house.rows(f"SELECT r.ms, r.kind, r.detail FROM calls_callevent r {OF_CALL} ORDER BY r.seq", phone.call_sid): print("   EV", e)
    done = [seen(house, phone, voice, uttered) for phone, (_, voice, uttered) in zip(phones, calls, strict=True)]
    report(done, took_s, spent_s)
    return done


def seen(house: House, phone: TwilioCall, voice: PatternVoice, uttered: bytes) -> Carried:
    (session,) = house.at_vapi(phone.call_sid)
    audio = house.one(f"SELECT r.audio FROM calls_callmetrics r {OF_CALL}", phone.call_sid)
    return Carried(phone, session, voice, uttered, Counter(json.loads(audio) if isinstance(audio, str) else audio))


def report(calls: list[Carried], took_s: float, spent_s: float) -> None:
    late = sorted(call.phone.late_ms for call in calls)
    first = sorted(call.phone.first_sound_ms or 0 for call in calls)
    clears = sorted(ms for call in calls for ms in call.clear_ms)
    lost = sum(len(without_silence(bytes(call.vapi.evidence.downlink))) - len(call.heard) for call in calls)
    print(  # noqa: T201
        f"\n{len(calls)} calls in {took_s:.1f} s: phones late by {at(late, 50)} ms (p99 {at(late, 99)}), first sound {at(first, 50)} ms"
        f" (p95 {at(first, 95)}), clear after its cause {at(clears, 50):.1f} ms (p99 {at(clears, 99):.1f}), {spent_s:.1f} s of CPU in the"
        f" house and {time.process_time():.1f} in the vendors; {lost} bytes of the agents were cut by {len(clears)} clears"
    )


def at(values: list[float] | list[int], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def cpu_s(house: House) -> float:
    """CPU seconds of the household's processes and their children so far."""
    spent, parents = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, fields = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[pid], spent[pid] = int(fields[1]), sum(map(int, fields[11:13])) / TICKS_S
    ours = {member.process.pid for member in house.stack.members.values()}
    while more := {pid for pid, parent in parents.items() if parent in ours and pid not in ours}:
        ours |= more
    return sum(spent.get(pid, 0.0) for pid in ours)


def test_every_call_came_to_its_end_by_itself(carried: list[Carried], house: House) -> None:
    for call in carried:
        assert call.vapi.ended_reason == "assistant-ended-call"
        assert (call.phone.problems, call.phone.violations) == ([], [])
        assert house.row(call.phone.call_sid)["end_reason"] == "agent_ended", house.events(call.phone.call_sid)


def test_what_arrives_at_vapi_is_what_its_own_caller_said_byte_for_byte(carried: list[Carried]) -> None:
    for call in carried:
        stream = call.phone.streams[-1]
        uplink = bytes(call.vapi.evidence.uplink)
        arrived = without_silence(uplink)
        assert 0 <= call.audio["silence_to_agent"] - (len(uplink) - len(arrived)) <= 4000  # some is filled in as Vapi closes
        place = place_in(call.uttered, arrived)
        began = call.phone.phone.origin + (place // FRAME + 1) * FRAME_S
        assert place % FRAME == 0
        assert 0.05 <= began - stream.started_at <= 0.12  # the stream's first frame
        assert call.audio["from_caller_dropped"] == 0
        closed = next(entry.at for entry in call.vapi.evidence.entries if entry.kind == "close")
        assert began + len(arrived) / 8000 >= closed - 0.2 - call.phone.late_ms / 1000  # to the last moment


def test_what_a_caller_hears_is_what_their_own_agent_said_but_for_the_end_of_a_turn_that_was_cut(carried: list[Carried]) -> None:
    for call in carried:
        sent = turns_in(without_silence(bytes(call.vapi.evidence.downlink)), call.voice.said)
        heard_clips, heard = call.audio["clips"] > 0, call.heard
        if heard_clips:
            assert heard.startswith(FILLER)
            heard = heard.removeprefix(FILLER)
        played = turns_in(heard, call.voice.said)
        cut = [number for number, (whole, part) in enumerate(zip(sent, played, strict=True)) if part < whole]
        assert all(part <= whole for whole, part in zip(sent, played, strict=True))
        assert cut in ([1, 2], [1], [2], [])
        assert len(call.phone.clears) >= 2
        assert call.audio["from_agent"] == len(call.vapi.evidence.downlink)
        assert call.audio["from_agent_dropped"] == 0
        if call.in_time:
            assert cut == [1, 2]
            assert abs(call.audio["from_agent_flushed"] - (sum(sent) - sum(played))) <= 0.1 * 8000 * len(cut)


def test_every_barge_in_of_thirty_calls_is_carried_out_at_once(carried: list[Carried]) -> None:
    in_time = [call for call in carried if call.in_time]
    print(f"\n{len(in_time)} of {len(carried)} calls were kept time of")  # noqa: T201
    for call in in_time:
        assert all(later.at - clear.at >= 0.49 for clear, later in pairwise(call.phone.clears))
        assert max(call.clear_ms) <= 250


def test_every_tool_was_called_once_and_answered(carried: list[Carried], house: House) -> None:
    for call in carried:
        kinds = house.kinds(call.phone.call_sid)
        assert (kinds.count("tool-called"), kinds.count("tool-answered")) == (1, 1)
        assert len(call.vapi.webhooks("tool-calls")) == 1
