"""Clocks that differ, over ten minutes of one turn: how late each piece is heard, from the agent's mouth to the ear, keeps within 20 ms.

Time is the core's; the phone and the vendor have their own. Jitter is any delay up to the worst, of each piece and of each mark anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import numpy as np
import pytest

from bridge import pcm, splice
from bridge import vapi_messages as vapi
from bridge.actions import Noted
from bridge.drift import PERIOD_S, Drift
from bridge.voice import AgentVoice
from tests.bridge.test_jitter import BEGINS, FRAME_S, MOST_DRIFT_S, Call, noise
from tests.bridge.test_short_ways import spelled_out

FRAMES = 30_000
SETTLED = 3_000  # frames: a minute, in which it is learnt how it was at first
DRY_S = 0.025  # what is heard so much later at once waited for a cushion; nothing else makes such a step
QUIET = b"\xff" * 160
SAME: dict[str, float] = {}


class OneTurn:
    """Ten minutes without an end; `late`: of each frame, when it will be heard less when it left."""

    def __init__(
        self, seed: str, clocks: Mapping[str, float] = SAME, *, jitter_s: float = 0.0, marks_s: float = 0.0, pauses: bool = True
    ) -> None:
        """`clocks`: by how much the `phone`'s, or the `vendor`'s, is faster."""
        self._rng, back = Random(seed), Random(f"{seed} back")
        self._vendor, self._jitter_s, self._pauses = clocks.get("vendor", 0.0), jitter_s, pauses
        self._call = Call(skew=clocks.get("phone", 0.0), way=lambda: back.uniform(0, marks_s))
        self.voice: AgentVoice = self._call.core._voice
        self._left = self._came = BEGINS
        self._number = 0
        self.speech = noise(self._rng, 160)
        self.late: list[float] = []
        self._call.run_to(BEGINS)
        self._call.take(self._call.core.vapi_said(vapi.AgentStarted(), BEGINS))

    def goes_on(self, frames: int, *, gap_s: float = 0.0, pace: float = 1.0) -> None:
        call = self._call
        self._left += gap_s
        for _ in range(frames):
            frame = QUIET if self._pauses and self._number % 90 > 75 else self.speech
            self._came = max(self._came, self._left + self._rng.uniform(0, self._jitter_s))
            call.run_to(self._came)
            relayed = call.core.relays_agent(frame, self._came)
            call.take(call.core.agent_audio(frame, self._came) if relayed is None else spelled_out(relayed))
            self.late.append(call.ear_at + self.voice.held_bytes / 8000 - self._left)
            self._left += FRAME_S / (1 + self._vendor) / pace
            self._number += 1

    @property
    def corrections(self) -> int:
        """Bytes."""
        return self.voice.left_out_bytes + self.voice.repeated_bytes

    def drifts(self) -> list[float]:
        """Of each stretch since it is settled: between two times that the ear ran dry."""
        late = np.array(self.late[SETTLED:])
        dry = np.flatnonzero(np.diff(late) > DRY_S) + 1
        return [float(np.ptp(stretch)) for stretch in np.split(late, dry)]


@pytest.mark.parametrize("pauses", [True, False], ids=["pauses", "without a pause"])
@pytest.mark.parametrize("jitter_ms", [0, 100, 400])
@pytest.mark.parametrize("clocks", [{"phone": -100e-6}, {"phone": 100e-6}, {"vendor": -100e-6}, {"vendor": 100e-6}], ids=str)
def test_one_turn_of_ten_minutes_drifts_by_20_ms_at_most(clocks: dict[str, float], jitter_ms: int, pauses: bool) -> None:
    turn = OneTurn("drift", clocks, jitter_s=jitter_ms / 1000, pauses=pauses)
    turn.goes_on(FRAMES)
    drifts = turn.drifts()
    assert max(drifts) <= MOST_DRIFT_S
    assert len(drifts) <= (2 if jitter_ms else 1)
    assert bool(turn.voice.left_out_bytes) != bool(turn.voice.repeated_bytes)  # never to and fro


@pytest.mark.parametrize("clocks", [{"phone": -100e-6}, {"vendor": 100e-6}], ids=str)
def test_it_does_so_too_when_marks_come_back_400_ms_late(clocks: dict[str, float]) -> None:
    turn = OneTurn("marks", clocks, jitter_s=0.4, marks_s=0.4)
    turn.goes_on(FRAMES)
    (drift,) = turn.drifts()
    assert drift <= MOST_DRIFT_S


@pytest.mark.parametrize(("jitter_ms", "marks_ms"), [(0, 0), (100, 0), (400, 0), (400, 100), (100, 400), (400, 400)])
def test_jitter_alone_corrects_nothing(jitter_ms: int, marks_ms: int) -> None:
    turn = OneTurn("jitter", jitter_s=jitter_ms / 1000, marks_s=marks_ms / 1000)
    turn.goes_on(FRAMES)
    assert turn.corrections == 0


@pytest.mark.parametrize("gap_s", [0.03, 0.1, 0.5, 3.0])
def test_gaps_alone_correct_nothing(gap_s: float) -> None:
    """Of which the vendor makes nothing good."""
    turn = OneTurn("gaps", jitter_s=0.005)
    for _ in range(6):
        turn.goes_on(FRAMES // 6, gap_s=gap_s)
    assert turn.corrections == 0


@pytest.mark.parametrize("pace", [1.02, 3.0])
def test_bursts_alone_correct_nothing(pace: float) -> None:
    turn = OneTurn("bursts", jitter_s=0.005)
    for _ in range(3):
        turn.goes_on(1_000, pace=pace)
        turn.goes_on(6_000)
    assert turn.corrections == 0


@pytest.mark.parametrize("phone", [-100e-6, 100e-6])
def test_every_byte_is_counted_and_the_turn_is_as_long_as_the_vendor_said_it(phone: float) -> None:
    turn = OneTurn("bytes", {"phone": phone})
    turn.goes_on(FRAMES // 2)
    call = turn._call
    audio = call.core.figures()["audio"]
    corrected = audio["to_caller_repeated"] - audio["to_caller_left_out"]
    assert abs(corrected) >= 40
    assert audio["from_agent"] == FRAMES // 2 * 160
    assert audio["to_caller"] == audio["from_agent"] + audio["clips"] + corrected - audio["from_agent_left"]
    (cut,) = [said for said in call.core.stream_lost("stream-lost", call.now) if isinstance(said, Noted)]
    unheard_ms = (call.ear_at - call.now) * 1000 + audio["from_agent_left"] / 8
    assert cut.detail["said_ms"] == FRAMES // 2 * 20
    assert cut.detail["said_ms"] - cut.detail["heard_ms"] == pytest.approx(unheard_ms, abs=MOST_DRIFT_S * 1000)


def test_what_is_said_is_corrected_in_its_pauses() -> None:
    turn = OneTurn("pauses", {"vendor": 100e-6})
    turn.goes_on(FRAMES // 2)
    heard = b"".join(piece for _, piece in turn._call.heard)
    said = sum(number % 90 <= 75 for number in range(FRAMES // 2))
    assert turn.voice.left_out_bytes > 0
    assert heard.count(turn.speech) in (said, said - 1)  # the last one may wait for the rest of its frame


def test_a_correction_that_is_due_is_none_any_more_once_the_sound_is_cut() -> None:
    """By who interrupts, and in what is played again when it was no interruption."""
    for ends in ("cut", "drop"):
        turn = OneTurn("cut", {"vendor": 100e-6}, pauses=False)
        while not turn.voice._correction:
            turn.goes_on(1)
        getattr(turn.voice, ends)(*([turn._call.now] if ends == "cut" else []))
        turn.voice.resume(turn._call.now)
        turn.goes_on(500)
        assert turn.corrections == 0


def periods(drift: Drift, spans: list[tuple[float, float]], now: float) -> list[float]:
    """What is told at the end of each: marks come back in time, and sound came with so much ahead."""
    told = []
    for least, most in spans:
        for ahead in (least, most):
            drift.came(ahead)
            drift.marked()
            now += PERIOD_S / 2
            told.append(drift.answered(0.0, now))
    return [moved for moved in told if moved]


def test_what_moves_slowly_is_told_and_by_how_much() -> None:
    slowly = [(0.12 + n * 0.002, 0.2) for n in range(12)]  # the most is steady, but the least has moved
    assert periods(Drift(), slowly, 0.0) == []
    both = [(0.12 + n * 0.002, 0.3 + n * 0.002 + n % 2 * 0.02) for n in range(12)]
    (first, *_) = periods(Drift(), both, 0.0)
    assert 0.006 < first < 0.014


def test_what_moves_on_is_told_every_thirty_seconds_at_most() -> None:
    assert 3 <= len(periods(Drift(), [(0.12 + n * 0.003,) * 2 for n in range(20)], 0.0)) <= 7


@pytest.mark.parametrize("way", [1, -1])
def test_what_was_corrected_is_told_no_more(way: int) -> None:
    drift = Drift()
    assert periods(drift, [(0.12 + way * n * 0.002,) * 2 for n in range(11)], 0.0)
    drift.corrected(way * 0.016)
    assert periods(drift, [(0.12 + way * 0.004,) * 2] * 12, 11 * PERIOD_S) == []


@pytest.mark.parametrize("step", [0.03, -0.03, 13.0])
def test_a_step_is_told_by_nobody_whenever_it_comes(step: float) -> None:
    for before in range(12):
        spans = [(0.5, 0.6)] * before + [(0.5 + min(step, 0), 0.6 + max(step, 0))] + [(0.5 + step, 0.6 + step)] * 12
        assert periods(Drift(), spans, 0.0) == []


def test_what_moved_while_no_mark_came_back_is_told_by_nobody() -> None:
    drift, now = Drift(), 0.0
    for n in range(40):
        now += 3 * PERIOD_S
        drift.came(0.12 + n * 0.002)
        assert not drift.answered(0.0, now)


# -- the cut itself --------------------------------------------------------------------------------------------------------


def a_voice(hertz: float, loudness: float = 8000.0) -> bytes:
    """A frame of a sound of five harmonics."""
    at = np.arange(160) / 8000
    sound = sum(np.sin(2 * np.pi * hertz * n * at + n) / n for n in range(1, 6))
    return pcm.encoded(np.rint(sound * loudness / 2).astype(np.int16))


@pytest.mark.parametrize("hertz", [100, 110, 130, 165, 200, 220, 300])
def test_of_a_voice_whole_periods_go_or_come_twice_and_no_edge_is_heard(hertz: int) -> None:
    frame = a_voice(hertz)
    steepest = np.abs(np.diff(pcm.decoded(frame))).max()
    for other in (splice.shorter(frame), splice.longer(frame)):
        periods = (len(other) - 160) * hertz / 8000
        assert abs(periods - round(periods)) <= 0.1
        assert 40 <= abs(len(other) - 160) <= 80
        assert np.abs(np.diff(pcm.decoded(other))).max() <= 1.1 * steepest
        assert abs(pcm.decoded(other)[0] - pcm.decoded(frame)[0]) <= steepest
        assert other[-1:] == frame[-1:]


def test_silence_stays_silence_and_any_sound_keeps_its_loudness() -> None:
    assert set(splice.shorter(QUIET) + splice.longer(QUIET)) <= {0xFF, 0x7F}
    for seed in range(50):
        frame = noise(Random(seed), 160)
        for other in (splice.shorter(frame), splice.longer(frame)):
            assert 40 <= abs(len(other) - 160) <= 80
            assert np.abs(pcm.decoded(other)).max() <= np.abs(pcm.decoded(frame)).max()


def test_a_pause_is_what_nobody_takes_for_a_word() -> None:
    assert splice.is_pause(QUIET)
    assert splice.is_pause(a_voice(150, loudness=80))
    assert not splice.is_pause(a_voice(150, loudness=400))
    assert not splice.is_pause(QUIET[:-1] + b"\x10")


def test_short_pieces_of_a_frame_are_corrected_as_well() -> None:
    """A vendor may send sound a few samples at a time: what waits for the rest of its frame is long enough."""
    voice, now = AgentVoice(), 1.0
    voice.add(QUIET * 10, now)
    voice._correction, voice._correct_by = 0.01, now
    for size in (7,) * 40:
        now += size / 8000
        voice.add(b"\xff" * size, now)
    assert 40 <= voice.left_out_bytes <= 80
    assert voice.came_bytes == 10 * 160 + 280 - voice.left_out_bytes
