"""Sound that comes unevenly: late, in bursts, with holes and in odd pieces. Seeded patterns on the core, a phone that counts samples.

What is promised the caller: every byte once and in order, and none later than a plain player would have it that waits two
cushions before it begins. So a hole is heard only where the source had one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from random import Random

import pytest

from bridge import pcm
from bridge import vapi_messages as vapi
from bridge.actions import Action, ToAgent
from bridge.audio import SILENT_FRAME
from bridge.core import BridgeCore
from bridge.pulse import PROBE
from bridge.rules import Rules
from bridge.voice import MarkCaller, ToCaller
from tests.bridge.test_core import CHUNKS, CLIPS

CUSHION_S = 0.12
FRAME_S = 0.02
BEGINS = 2.0
MOST_DRIFT_S = 0.02


@dataclass
class Call:
    """A core, a caller's ear on it, and the time. `skew`: by how much the ear's clock is faster than the core's.

    `way`: how long a mark of sound that was heard is on its way back.
    """

    skew: float = 0.0
    way: Callable[[], float] = lambda: 0.0
    now: float = 0.0
    heard: list[tuple[float, bytes]] = field(default_factory=list)  # when each piece begins to be heard
    at_vapi: list[bytes] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    ear_at: float = 0.0
    last_back: float = 0.0

    def __post_init__(self) -> None:
        self.core = BridgeCore(Rules(agent_speaks_first=False), clips=CLIPS, now=0.0)
        self.take(self.core.agent_connected(0.0))

    def seconds(self, sound: bytes) -> float:
        return len(sound) / 8000 / (1 + self.skew)

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case ToCaller(ulaw):
                    start = max(self.now, self.ear_at)
                    self.heard.append((start, ulaw))
                    self.ear_at = start + self.seconds(ulaw)
                case MarkCaller(name):
                    back = max(self.now, self.ear_at) + self.way()
                    self.marks.append((self.now if name == PROBE else max(back, self.last_back), name))
                    self.last_back = self.marks[-1][0]
                case ToAgent(ulaw):
                    self.at_vapi.append(ulaw)

    def run_to(self, until: float) -> None:
        while True:
            due = self.core.next_deadline()
            mark = min(self.marks, default=(float("inf"), ""))
            at = min(due if due is not None else float("inf"), mark[0])
            if at > until:
                break
            self.now = max(self.now, at)
            if mark[0] <= self.now:
                self.marks.remove(mark)
                self.take(self.core.mark_returned(mark[1], self.now))
            else:
                self.take(self.core.tick(self.now))
        self.now = until

    def holes(self) -> list[float]:
        """Silences between pieces, in seconds."""
        ends = [start + self.seconds(piece) for start, piece in self.heard]
        return [start - end for (start, _), end in zip(self.heard[1:], ends, strict=False) if start - end > 1e-9]


def noise(rng: Random, size: int) -> bytes:
    return rng.randbytes(size).replace(b"\xff", b"\xfe")


def pieces(rng: Random, sound: bytes, *, odd: bool) -> Iterator[bytes]:
    place = 0
    while place < len(sound):
        size = rng.choice((1, 3, 7, 159, 161, 999, 1601)) if odd else rng.choice(CHUNKS)
        yield sound[place : place + size]
        place += size


def arrivals(rng: Random, parts: list[bytes], *, jitter_s: float, stall_s: float = 0.0, pace: float = 1.0) -> list[float]:
    """When parts arrive that leave at their own pace from BEGINS on: up to `jitter_s` late, in their order.

    `stall_s`: nothing arrives for so long, four seconds into it.
    """
    times, left, last = [], BEGINS, 0.0
    stalled = BEGINS + 4.0
    for part in parts:
        late = rng.uniform(0, jitter_s)
        if stalled <= left < stalled + stall_s:
            late = max(late, stalled + stall_s - left)
        last = max(last, left + late)
        times.append(last)
        left += len(part) / 8000 / pace
    return times


def carried(call: Call, parts: list[bytes], times: list[float]) -> None:
    call.run_to(BEGINS - 0.1)
    call.heard.clear()  # the tone
    call.take(call.core.vapi_said(vapi.AgentStarted(), call.now))
    for part, at in zip(parts, times, strict=True):
        call.run_to(at)
        call.take(call.core.agent_audio(part, at))
    call.take(call.core.vapi_said(vapi.AgentStopped(), call.now))
    call.run_to(call.now + 20.0)


def in_whole_frames(parts: list[bytes]) -> list[bytes]:
    """What of each part, and of the rest of the one before it, can be sent on: the rest of a frame waits for the next part."""
    whole, rest = [], b""
    for part in parts[:-1]:
        rest += part
        cut = len(rest) - len(rest) % 160
        whole.append(rest[:cut])
        rest = rest[cut:]
    return [*whole, rest + parts[-1]]


def plain_player(parts: list[bytes], times: list[float]) -> list[float]:
    """When the last byte of each part would be heard by a player that waits two cushions."""
    ends, ear = [], 0.0
    for part, at in zip(parts, times, strict=True):
        ear = max(ear, at + 2 * CUSHION_S) + len(part) / 8000
        ends.append(ear)
    return ends


def heard_ends(call: Call, parts: list[bytes]) -> list[float]:
    """When the last byte of each part was heard."""
    ends, place, pieces_left = [], 0, iter(call.heard)
    start, piece = next(pieces_left)
    begins = 0
    for part in parts:
        place += len(part)
        while begins + len(piece) < place:
            begins += len(piece)
            start, piece = next(pieces_left)
        ends.append(start + (place - begins) / 8000)
    return ends


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("jitter_ms", [0, 100, 200, 300, 400])
@pytest.mark.parametrize("odd", [False, True])
def test_nothing_the_agent_says_is_lost_doubled_or_heard_later_than_its_jitter_makes_it(seed: int, jitter_ms: int, odd: bool) -> None:
    rng, call = Random(f"{seed} {jitter_ms}"), Call()
    sound = noise(rng, 12 * 8000 + 77)
    parts = [*pieces(rng, sound, odd=odd)]
    times = arrivals(rng, parts, jitter_s=jitter_ms / 1000)
    carried(call, parts, times)
    assert b"".join(piece for _, piece in call.heard) == sound
    whole = in_whole_frames(parts)
    ends = zip(whole, heard_ends(call, whole), plain_player(whole, times), strict=True)
    late = [heard - at_most for part, heard, at_most in ends if part]
    assert max(late) <= 1e-6
    if jitter_ms == 0 and not odd:
        assert call.holes() == []


@pytest.mark.parametrize("pace", [1.0, 3.0, 50.0])
def test_bursts_are_heard_without_a_hole(pace: float) -> None:
    rng, call = Random(f"{pace}"), Call()
    sound = noise(rng, 10 * 8000)
    parts = [*pieces(rng, sound, odd=False)]
    carried(call, parts, arrivals(rng, parts, jitter_s=0.05, pace=pace))
    assert b"".join(piece for _, piece in call.heard) == sound
    assert call.holes() == []


@pytest.mark.parametrize("stall_ms", [300, 1000, 3000])
def test_a_hole_in_the_source_is_one_hole_and_at_most_two_cushions_longer(stall_ms: int) -> None:
    rng, call = Random(stall_ms), Call()
    parts = [*pieces(rng, noise(rng, 12 * 8000), odd=False)]
    times = arrivals(rng, parts, jitter_s=0.0, stall_s=stall_ms / 1000)
    carried(call, parts, times)
    (hole,) = call.holes()
    assert 0 < hole <= stall_ms / 1000 + 2 * CUSHION_S


def said_through(call: Call, frames: list[bytes], times: list[float]) -> None:
    """The caller's frames as they come; what is in `at_vapi` afterwards came of them."""
    call.run_to(first := times[0] - 0.02)
    call.take(call.core.caller_audio(b"\x11" * 160, first))
    call.at_vapi.clear()
    for frame, at in zip(frames, times, strict=True):
        call.run_to(at)
        call.take(call.core.caller_audio(frame, at))


def silences(call: Call) -> list[int]:
    """How many frames of silence were put into each place."""
    runs = groupby(piece == SILENT_FRAME for piece in call.at_vapi)
    return [len([*run]) for is_silence, run in runs if is_silence]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("jitter_ms", [0, 100, 200, 300, 400])
def test_all_the_caller_says_arrives_in_order_and_what_comes_late_is_hardly_torn_apart(seed: int, jitter_ms: int) -> None:
    """Silence between two halves of a word stays there: until the network is known a few frames of it, afterwards next to none."""
    rng, call = Random(f"up {seed} {jitter_ms}"), Call()
    frames = [noise(rng, 160) for _ in range(1000)]
    times = arrivals(rng, frames, jitter_s=jitter_ms / 1000)
    said_through(call, frames, times)
    assert [piece for piece in call.at_vapi if piece != SILENT_FRAME] == frames
    known = call.at_vapi.index(frames[100])
    assert known - 100 <= (20 if jitter_ms else 0)
    assert len(call.at_vapi) - len(frames) - (known - 100) <= (4 if jitter_ms else 0)


@pytest.mark.parametrize("pause_s", [0.11, 0.31, 0.71, 2.01])
def test_a_line_that_really_pauses_is_filled_as_ever(pause_s: float) -> None:
    """Nothing is made up for after such a pause, so the next one is no lateness either."""
    call, frames = Call(), [b"\x7e" * 160] * 500  # soft: it is no word that Vapi should tell of
    times = [BEGINS + n * FRAME_S + n // 50 * pause_s for n in range(len(frames))]
    said_through(call, frames, times)
    since_frame = FRAME_S + pause_s
    assert silences(call) == [int((since_frame - 0.06) / FRAME_S) + 1] * 9


def test_a_pause_in_an_uneven_network_is_waited_for_a_quarter_of_a_second_and_then_filled() -> None:
    rng, call = Random("uneven"), Call()
    frames = [noise(rng, 160) for _ in range(500)]
    said_through(call, frames, arrivals(rng, frames, jitter_s=0.4))
    call.at_vapi.clear()
    last = call.now
    call.run_to(last + 0.2)
    assert call.at_vapi == []
    call.run_to(last + 1.0)
    assert 36 <= len(call.at_vapi) <= 40


def test_ten_seconds_of_calm_and_holes_are_filled_as_before() -> None:
    rng, call = Random("calm"), Call()
    frames = [noise(rng, 160) for _ in range(2500)]
    times = arrivals(rng, frames[:500], jitter_s=0.4)
    times += [BEGINS + n * FRAME_S + 0.4 for n in range(500, 2500)]
    said_through(call, frames, times)
    call.at_vapi.clear()
    call.run_to(call.now + 0.0601)
    assert call.at_vapi == [SILENT_FRAME]


# -- ten minutes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [-100e-6, 0.0, 100e-6])
def test_ten_minutes_drift_by_20_ms_at_most_when_the_callers_clock_is_another(skew: float) -> None:
    """Turns of five seconds, a second apart: how late the last word of each is, from the agent's mouth to the ear."""
    call, rng, late = Call(skew=skew), Random("drift"), list[float]()
    call.run_to(2.0)
    for turn in range(100):
        began = 2.0 + turn * 6.0
        call.run_to(began)
        call.take(call.core.vapi_said(vapi.AgentStarted(), began))
        for n in range(250):
            call.run_to(began + n * FRAME_S)
            call.take(call.core.agent_audio(noise(rng, 160), call.now))
        call.run_to(began + 5.0)
        call.take(call.core.vapi_said(vapi.AgentStopped(), call.now))
        call.run_to(began + 5.5)
        late.append(call.ear_at - (began + 5.0))
    assert call.now > 600
    assert max(late) - min(late) <= MOST_DRIFT_S


@pytest.mark.parametrize("skew", [-100e-6, 0.0, 100e-6])
def test_ten_minutes_of_the_caller_are_ten_minutes_at_vapi(skew: float) -> None:
    call, frames = Call(), 30_000
    call.at_vapi.clear()
    for n in range(frames):
        at = 0.01 + n * FRAME_S / (1 + skew)
        call.run_to(at)
        call.take(call.core.caller_audio(b"\x11" * 160, at))
    assert abs(sum(map(len, call.at_vapi)) / 160 - frames) * FRAME_S <= MOST_DRIFT_S


def test_ten_minutes_of_wide_sound_are_ten_minutes_to_the_sample() -> None:
    wide, narrow, rng = pcm.ToWide(), pcm.ToTelephone(), Random("wide")
    heard = sum(len(narrow.feed(part)) for _ in range(600) for part in pieces(rng, wide.feed(b"\x55" * 8000), odd=True))
    assert heard == 600 * 8000
