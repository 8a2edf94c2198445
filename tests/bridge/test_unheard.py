"""The way to the caller is dead while their own sound still comes: the marks that do not come back tell, soon, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge import vapi_messages as vapi
from bridge.actions import Action, Leave
from bridge.audio import Clip
from bridge.core import BridgeCore
from bridge.pulse import PROBE, UNHEARD
from bridge.rules import Rules
from bridge.voice import FlushCaller, MarkCaller, ToCaller

CLIPS = {name: Clip(name, b"\x10" * 1600) for name in ("one_moment", "trouble", "connecting_colleague")}
FRAME = b"\x7e" * 160  # a caller who listens
NOTICED_S = 3.5  # less than a caller may sit in silence, by as much as it takes to send them elsewhere
PER_S = 8000


class Line:
    """A caller whose sound comes every 20 ms, and a Twilio that plays at its pace and returns marks, `late_s` later, until it is `deaf`."""

    def __init__(self, *, late_s: Callable[[float], float] = lambda at: 0.02, returns: bool = True, **rules: float) -> None:
        self.core = BridgeCore(Rules(agent_speaks_first=False, **rules), clips=CLIPS, now=0.0)  # type: ignore[arg-type]
        self.now, self.deaf, self.probes = 0.0, False, 0
        self.left: list[Leave] = []
        self._late_s, self._returns = late_s, returns
        self._ear = 0.0
        self._owed: list[tuple[float, str]] = []
        self._frames = 0
        self.left_at: float | None = None
        self.did(self.core.agent_connected(0.0))

    def did(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Leave():
                    self.left.append(action)
                    self.left_at = self.now
                case ToCaller(ulaw) if not self.deaf:
                    self._ear = max(self._ear, self.now) + len(ulaw) / PER_S
                case FlushCaller() if not self.deaf:
                    self._ear = self.now
                    self._owed = [(self.now, name) for _, name in self._owed]
                case MarkCaller(name) if not self.deaf:
                    self.probes += name == PROBE
                    self._owed.append((max(self._ear, self.now) + self._late_s(self.now), name))

    def speaks(self, ms: int) -> None:
        self.did(self.core.vapi_said(vapi.AgentStarted(), self.now))
        self.did(self.core.agent_audio(b"\x55" * (ms * 8), self.now))
        self.did(self.core.vapi_said(vapi.AgentStopped(), self.now))

    def goes_on(self, until: float, *, reads: bool = True) -> None:
        """Whatever is due first: a frame, a mark, a wish of the core's."""
        while not self.left:
            frame = self._frames * 0.02
            mark = self._owed[0][0] if self._owed and self._returns and reads else float("inf")
            tick = self.core.next_deadline() or float("inf")
            at = min(frame if reads else float("inf"), mark, tick)
            if at > until:
                break
            self.now = max(self.now, at)
            if at == mark:
                self.did(self.core.mark_returned(self._owed.pop(0)[1], self.now))
            elif at == frame and reads:
                self._frames += 1
                self.did(self.core.caller_audio(FRAME, self.now))
            else:
                self.did(self.core.tick(self.now))
        self.now = max(self.now, until)
        self._frames = max(self._frames, int(self.now / 0.02)) if not reads else self._frames


def test_a_caller_who_thinks_for_a_minute_is_asked_now_and_then_and_left_alone() -> None:
    line = Line()
    line.goes_on(60.0)
    assert line.left == []
    assert 50 <= line.probes <= 60


@pytest.mark.parametrize("dead_at", [5.0, 5.3, 5.9, 6.4, 7.0])
def test_a_way_that_dies_in_silence_is_noticed_before_the_caller_has_waited_too_long(dead_at: float) -> None:
    line = Line()
    line.goes_on(dead_at)
    line.deaf = True
    line.goes_on(30.0)
    assert line.left == [UNHEARD]
    assert line.left_at is not None
    assert line.left_at - dead_at <= NOTICED_S


@pytest.mark.parametrize("dead_at", [2.0, 2.07, 2.19, 3.5])
def test_a_way_that_dies_in_a_sentence_is_noticed_within_three_seconds(dead_at: float) -> None:
    line = Line()
    line.speaks(20_000)
    line.goes_on(dead_at)
    line.deaf = True
    line.goes_on(30.0)
    assert line.left == [UNHEARD]
    assert line.left_at is not None
    assert 2.0 <= line.left_at - dead_at <= 3.0


def test_a_clear_that_is_never_carried_out_tells_of_it_too() -> None:
    line = Line()
    line.speaks(20_000)
    line.goes_on(2.0)
    line.deaf = True
    line.did(line.core.vapi_said(vapi.CallerSpoke(), 2.0))
    line.did(line.core.vapi_said(vapi.CallerInterrupted(), 2.1))
    line.goes_on(30.0)
    assert line.left == [UNHEARD]
    assert line.left_at is not None
    assert line.left_at <= 2.0 + 3.0


def test_a_caller_who_interrupts_again_and_again_is_well_heard() -> None:
    line = Line()
    for second in range(2, 30, 2):
        line.speaks(1500)
        line.goes_on(second - 0.7)
        line.did(line.core.vapi_said(vapi.CallerSpoke(), line.now))
        line.did(line.core.vapi_said(vapi.CallerInterrupted(), line.now))
        line.goes_on(float(second))
    assert line.left == []


def test_a_line_on_which_every_word_comes_ever_later_is_given_up() -> None:
    line = Line(late_s=lambda at: at / 4)
    line.speaks(40_000)
    line.goes_on(60.0)
    assert line.left == [UNHEARD]
    assert line.left_at is not None
    assert line.left_at < 15.0


def test_a_bad_line_whose_marks_come_a_second_late_is_not() -> None:
    line = Line(late_s=lambda at: 1.0)
    line.speaks(40_000)
    line.goes_on(60.0)
    assert line.left == []


def test_a_process_that_slept_reads_what_waited_for_it_before_it_judges() -> None:
    line = Line()
    line.speaks(20_000)
    line.goes_on(3.0)
    line.now = 9.0  # it slept; the clock's wishes come first, the socket's news right after
    line.did(line.core.tick(line.now))
    assert line.left == []
    line.goes_on(40.0)
    assert line.left == []


def test_a_twilio_that_never_returned_a_mark_is_not_judged_by_it() -> None:
    line = Line(returns=False)
    line.speaks(20_000)
    line.goes_on(60.0)
    assert line.left == []


def test_a_line_that_stands_still_for_two_seconds_after_a_mark_was_asked_back_is_not_given_up_for_it() -> None:
    line = Line()
    line.goes_on(10.01)  # a mark was sent in this moment or will be soon, and none comes back
    line.goes_on(12.0, reads=False)
    assert line.left == []
    line.goes_on(30.0)
    assert line.left == []
