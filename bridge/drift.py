"""How far two clocks have moved the agent's sound: the vendor's, by which it comes, and the telephone's, by which it is heard.

100 ppm between them are 6 ms a minute. Neither can be asked; but how much sound is ahead of the ear when more comes tells of the
first, and how long after its time a mark is back tells of the second. Jitter moves both, by a hundred times as much. It has an edge
that is sharp, though: nothing comes sooner than its way takes, or nothing later than some bound. So of the first minute and of the
last the least and the most are compared, and of the two whichever was steadier from one quarter to the next is believed. The less
steady, the more it has to have moved. What moves by more than 25 ms within a minute, as gaps and bursts do, was moved by no clock:
that way is measured from there anew.

Pure: `now` is seconds of a monotonic clock, and only marks are asked what time it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from bridge.lateness import NOTHING, Span
from bridge.moments import NEVER

PERIOD_S = 15.0
PERIODS = 4
STEP_S = 0.025
LEAST_S = 0.006
DOUBT = 0.25  # of what the edges move by themselves
REST = 2  # periods from one correction to the next: no clock is worse than one in 3,000


class Drift:
    """Of one stretch of sound. `ahead`: how much was ahead of the ear when the newest came, `least`: at the least since a mark was back.

    Whoever has no time for `came` sets them.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """What comes now is heard sooner or later than what came before, and no clock made it so."""
        self._ahead, self._late = _Way(), _Way()
        self._until = -NEVER
        self._rest = 0
        self.ahead = self.least = NEVER

    def came(self, ahead_s: float) -> None:
        """More sound, when so much was ahead of the ear."""
        self.ahead = ahead_s
        if ahead_s < self.least:
            self.least = ahead_s

    def marked(self) -> None:
        """Five of these a second are enough to know the most."""
        if self.ahead != NEVER:
            self._ahead.add(self.ahead)

    def answered(self, late_s: float, now: float) -> float:
        """A mark is back so long after its time. By how much too late sound is heard, when that is worth a correction; else 0."""
        self._late.add(late_s)
        self._with_least()
        return 0.0 if now < self._until else self._period_over(now)

    def follow(self) -> float:
        """By how much the ear is later than its time says, which is put right now."""
        late_s, _ = self._late.moved()
        self._late.shift(-late_s)
        self._ahead.shift(late_s)
        self.ahead += late_s
        return late_s

    def corrected(self, by_s: float) -> None:
        """So much was left out; repeated, if it is negative."""
        self._with_least()
        self._ahead.shift(-by_s)
        self.ahead -= by_s

    def _with_least(self) -> None:
        if self.least != NEVER:
            self._ahead.add(self.least)
            self.least = NEVER

    def _period_over(self, now: float) -> float:
        is_whole = now < self._until + PERIOD_S  # else it is the first, or nothing came back for long
        self._until = now + PERIOD_S
        self._ahead.period_over(is_whole=is_whole)
        self._late.period_over(is_whole=is_whole)
        self._rest = max(0, self._rest - 1)
        (ahead_s, ahead_doubt), (late_s, late_doubt) = self._ahead.moved(), self._late.moved()
        moved_s = ahead_s + late_s
        if self._rest or abs(moved_s) < LEAST_S + DOUBT * (ahead_doubt + late_doubt):
            return 0.0
        self._rest = REST
        return moved_s


class _Way:
    """Between which values something was, in the first periods and in the last."""

    def __init__(self) -> None:
        self._now = NOTHING
        self._first: list[Span] = []
        self._last: deque[Span] = deque(maxlen=PERIODS)

    def add(self, value: float) -> None:
        low, high = self._now
        if not low <= value <= high:
            self._now = min(low, value), max(high, value)

    def period_over(self, *, is_whole: bool) -> None:
        span, self._now = self._now, NOTHING
        if not is_whole or span is NOTHING:
            return
        self._last.append(span)
        if min(map(_width, _edges(self._last))) > STEP_S:
            self._first.clear()
            self._last.clear()
        elif len(self._first) < PERIODS:
            self._first.append(span)

    def moved(self) -> tuple[float, float]:
        """By how much, and by how much less or more it may be; nothing until that can be told."""
        if len(self._first) < PERIODS:
            return 0.0, 0.0
        (least, most), (least_now, most_now) = _edges(self._first), _edges(self._last)
        doubt, moved = min(
            (_width(least) + _width(least_now), min(least_now) - min(least)),
            (_width(most) + _width(most_now), max(most_now) - max(most)),
        )
        return (moved, doubt) if doubt <= 2 * STEP_S else (0.0, 0.0)

    def shift(self, by: float) -> None:
        """What was measured of late would have been so much more."""
        low, high = self._now
        self._now = NOTHING if self._now is NOTHING else (low + by, high + by)
        self._last = deque(((low + by, high + by) for low, high in self._last), maxlen=PERIODS)


def _edges(spans: Sequence[Span]) -> tuple[list[float], list[float]]:
    return [low for low, _ in spans], [high for _, high in spans]


def _width(values: Sequence[float]) -> float:
    return max(values) - min(values)
