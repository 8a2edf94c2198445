"""How late things come lately, and how long sound is therefore held back or waited for.

On a socket nothing is lost: it comes late, and then all at once. That can be seen. What Twilio answers comes back sometimes
sooner, sometimes later than the sound it stands for would say; the caller's frames stay away and are made up for. A caller
whose line really brings nothing is told from that by what follows: nothing is made up for then.

So towards the caller the beginning of a stretch of sound waits until as much of it is here as things came late: what comes late then
finds the ear still busy. And towards the agent a hole is not filled as long as its sound may still come, for silence put between
the halves of a word stays there. On an even network neither does anything, and ten to twenty seconds after the last unevenness
it is forgotten.

Pure: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

HELD_BACK_MOST_S = 0.4
WAITED_MOST_S = 0.25  # the agent should not be without any sound for longer
MADE_UP_FOR = 0.5  # so much of a hole came later: it was no pause
SEEN_SHORTER_S = 0.04  # than it is: a hole is looked at every 20 ms, or 10 ms after
BEYOND = 1.5  # what comes may be later than what came: a handful of answers says little
PERIOD_S = 10.0

Span = tuple[float, float]

NOTHING: Span = (float("inf"), float("-inf"))


class Lateness:
    """One stream's network. `cushion` is for the caller's ear, `patience` for the agent's."""

    def __init__(self) -> None:
        self._answers = _Lately()
        self._holes = _Lately()
        self._hole_at = float("-inf")
        self._hole_s = 0.0
        self._sound_s = 0.0  # of the caller's, before that hole

    def answered(self, late_s: float, now: float) -> None:
        """Twilio answered, so much later than it could have at best."""
        self._answers.add(late_s, now)

    def hole(self, began: float, now: float, *, sound_s: float) -> None:
        """Since `began` no frame of the caller's has come; before, so many seconds of sound had. Tell it again while it lasts."""
        if began != self._hole_at:
            self._judge(began, sound_s)
            self._hole_at, self._sound_s = began, sound_s
        self._hole_s = now - began

    def cushion(self, now: float) -> float:
        """How much of the agent's sound should be here before the ear is given any."""
        return min(BEYOND * max(self._answers.width(now), self._holes.width(now)), HELD_BACK_MOST_S)

    def patience(self, now: float) -> float:
        """How long a hole of the caller's may yet be made up for."""
        longest = self._holes.width(now)
        return min(longest + SEEN_SHORTER_S, WAITED_MOST_S) if longest else 0.0

    def _judge(self, now: float, sound_s: float) -> None:
        """The hole before this one: was it made up for until now?"""
        missing_s = now - self._hole_at - (sound_s - self._sound_s)
        if now - self._hole_at < PERIOD_S and missing_s <= self._hole_s * (1 - MADE_UP_FOR):
            self._holes.add(0.0, now)
            self._holes.add(self._hole_s, now)


class _Lately:
    """Between which values something was, in these ten seconds and in the ten before."""

    def __init__(self) -> None:
        self._began = float("-inf")
        self._these: Span | None = None
        self._before: Span | None = None

    def add(self, value: float, now: float) -> None:
        self._turn_over(now)
        low, high = self._these or NOTHING
        if not low <= value <= high:
            self._these = min(low, value), max(high, value)

    def width(self, now: float) -> float:
        self._turn_over(now)
        spans = [span for span in (self._these, self._before) if span]
        return max(high for _, high in spans) - min(low for low, _ in spans) if spans else 0.0

    def _turn_over(self, now: float) -> None:
        if now - self._began < PERIOD_S:
            return
        self._before = self._these if now - self._began < 2 * PERIOD_S else None
        self._began, self._these = now, None
