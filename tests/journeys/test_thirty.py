"""Thirty calls at once, in real time, through the real house: no byte lost, none doubled, none of another call.

Each call has noise of its own in both directions, two barge-ins and a tool call. `make thirty CALLS=100` makes it a
hundred; what was measured is printed.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

import pytest

from bridge.audio import load_clips
from bridge.sandbox.pattern import PatternVoice, TimedEar, noise, pattern_call, place_in, turns_in, without_silence
from bridge.sandbox.sound import FRAME, FRAME_S
from bridge.sandbox.twilio import STALLED_MS, TwilioCall
from bridge.sandbox.vapi import SandboxCall
from bridge.tone import TONE
from tests.journeys.house import OF_CALL, House

pytestmark = [pytest.mark.journey, pytest.mark.load]

COUNT = int(os.environ.get("THIRTY", "30"))
APART_S = 0.4  # all of them talk at the same time for half of their length, and no two say the same at the same moment
CALL_S = 24.0
UTTERS_S = 90.0
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
    def played(self) -> int:
        """Bytes that came out of it."""
        stream = self.phone.streams[-1]
        return self.phone.phone.playout.played(stream.first_media_at or 0.0, stream.ended_at or 0.0)

    @property
    def said_by_agent(self) -> bytes:
        return without_silence(bytes(self.vapi.evidence.downlink))

    @property
    def clear_ms(self) -> list[float]:
        """From Vapi's word that the caller speaks, or has interrupted, to the clear at Twilio."""
        kinds = ("speech-update", "user-interrupted")
        said = [entry.at for entry in self.vapi.evidence.entries if entry.way == "out" and entry.kind in kinds]
        return [1000 * (clear.at - max(at for at in said if at <= clear.at)) for clear in self.phone.clears]


@pytest.fixture(scope="module")
def carried(house: House) -> list[Carried]:
    """All calls, over and settled; placed once more when the machine did not keep time of most of them."""
    house.vapi.concurrency_limit = max(house.vapi.concurrency_limit, COUNT + 20)
    for attempt in ("first", "second"):
        calls = place_all(house, attempt)
        if sum(call.in_time for call in calls) >= 0.8 * COUNT:
            break
    return calls


def place_all(house: House, attempt: str) -> list[Carried]:
    before, vendors_before, began = cpu_s(house), time.process_time(), time.monotonic()
    placed = []
    for number in range(COUNT):
        scenario, voice = pattern_call(f"{attempt} {number}")
        uttered = noise(f"caller {attempt} {number}", UTTERS_S)
        placed.append((house.place(scenario, after_s=APART_S * number, says=uttered, ear=TimedEar()), voice, uttered))
    phones = [calling.result(120) for calling, _, _ in placed]
    took_s, spent = time.monotonic() - began, cpu_s(house)
    spent.subtract(before)
    spent["vendors"] = time.process_time() - vendors_before  # type: ignore[assignment]
    for phone in phones:
        house.settle(phone.call_sid, within=60)
    calls = [seen(house, phone, voice, uttered) for phone, (_, voice, uttered) in zip(phones, placed, strict=True)]
    report(calls, took_s, spent)
    return calls


def seen(house: House, phone: TwilioCall, voice: PatternVoice, uttered: bytes) -> Carried:
    sessions = house.at_vapi(phone.call_sid)
    assert len(sessions) == 1, f"{len(sessions)} sessions at Vapi; the phone was late by {phone.late_ms} ms: {house.kinds(phone.call_sid)}"
    audio = house.one(f"SELECT r.audio FROM calls_callmetrics r {OF_CALL}", phone.call_sid)
    return Carried(phone, sessions[0], voice, uttered, Counter(json.loads(audio) if isinstance(audio, str) else audio))


def report(calls: list[Carried], took_s: float, spent: Counter[str]) -> None:
    late = [call.phone.late_ms for call in calls]
    first = [call.phone.first_sound_ms or 0 for call in calls]
    clears = [ms for call in calls for ms in call.clear_ms]
    lost = sum(len(call.said_by_agent) - len(call.heard) for call in calls)
    kept = sum(call.in_time for call in calls)
    print(  # noqa: T201
        f"\n{len(calls)} calls in {took_s:.1f} s, {kept} of them kept in time."
        f" Phones late by {at(late, 50):.0f} ms (p99 {at(late, 99):.0f}), first sound {at(first, 50):.0f} ms (p95 {at(first, 95):.0f}),"
        f" clear after its cause {at(clears, 50):.1f} ms (p99 {at(clears, 99):.1f})."
        f" CPU seconds: {', '.join(f'{name} {seconds:.1f}' for name, seconds in spent.items())}."
        f" {lost} bytes of the agents were cut by {len(clears)} clears."
    )


def at(values: list[float] | list[int], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]


def cpu_s(house: House) -> Counter[str]:
    """CPU seconds so far, by member of the household, children included."""
    spent, parents = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, fields = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[pid], spent[pid] = int(fields[1]), sum(map(int, fields[11:13])) / TICKS_S
    owners = {member.process.pid: name for name, member in house.stack.members.items()}
    while more := {pid: owners[parent] for pid, parent in parents.items() if parent in owners and pid not in owners}:
        owners |= more
    total: Counter[str] = Counter()
    for pid, name in owners.items():
        total[name] += spent.get(pid, 0.0)  # type: ignore[assignment]
    return total


def test_all_calls_were_there_at_the_same_time(carried: list[Carried]) -> None:
    spans = [(call.phone.streams[-1].started_at, call.phone.streams[-1].ended_at or 0.0) for call in carried]
    most = max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans)
    assert most >= min(COUNT, round(CALL_S / APART_S))


def test_every_call_came_to_its_end_by_itself(carried: list[Carried], house: House) -> None:
    for call in carried:
        assert call.vapi.ended_reason == "assistant-ended-call"
        assert call.phone.violations == []
        if call.in_time:
            assert house.row(call.phone.call_sid)["end_reason"] == "agent_ended"


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
        sent = turns_in(call.said_by_agent, call.voice.said)
        heard = call.heard.removeprefix(without_silence(TONE.ulaw)).removeprefix(FILLER) if call.audio["clips"] else call.heard
        played = turns_in(heard, call.voice.said)
        cut = [number for number, (whole, part) in enumerate(zip(sent, played, strict=True)) if part < whole]
        assert all(part <= whole for whole, part in zip(sent, played, strict=True))
        assert len(call.phone.clears) >= len(cut)
        if call.in_time:
            assert cut == [1, 2]


def test_the_bytes_a_caller_hears_are_vapis_without_the_flushed_and_with_our_clips_exactly(carried: list[Carried]) -> None:
    for call in carried:
        audio = call.audio
        cleared = sum(clear.dropped for clear in call.phone.clears)
        unsent = audio["from_agent_let_go"] + audio["to_caller_overtaken"]
        flushed = unsent + cleared - audio["to_caller_taken_back"]  # what is taken back is let go, or played again
        assert audio["from_agent"] == len(call.vapi.evidence.downlink)
        assert audio["from_agent_dropped"] == 0
        assert call.played == audio["from_agent"] - flushed + audio["clips"]


def test_every_barge_in_of_thirty_calls_is_carried_out_at_once(carried: list[Carried]) -> None:
    in_time = [call for call in carried if call.in_time]
    assert in_time, "this machine kept time of no call at all"
    for call in in_time:
        assert all(later.at - clear.at >= 0.49 for clear, later in pairwise(call.phone.clears))
        assert max(call.clear_ms) <= 500
    assert median([ms for call in in_time for ms in call.clear_ms]) <= 50


def test_every_tool_was_called_once_and_answered(carried: list[Carried], house: House) -> None:
    for call in carried:
        kinds = house.kinds(call.phone.call_sid)
        assert (kinds.count("tool-called"), kinds.count("tool-answered")) == (1, 1)
        assert len(call.vapi.webhooks("tool-calls")) == 1
