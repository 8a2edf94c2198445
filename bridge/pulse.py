"""Whether Twilio is still there, either way. A dead socket looks like a caller whose line is silent, and only one of them answers.

To us: Twilio may send no sound for a while (its carrier's choice), so silence proves nothing. A mark does: Twilio returns it at
once when nothing is being played. After 1.5 s without a message one is sent, and another 1.5 s later the socket is given
up. The second wait runs from the mark and not from the last message: if our own process slept, it must get to read first.

From us: the caller's sound may come for ever while nothing of ours gets through, or so late that nobody can talk like that.
Every mark comes back, once its sound was played or cleared. One that is two seconds overdue says that the caller hears nothing
of us; while the agent is silent a mark is sent now and then for this alone. A Twilio that has never returned one is not judged
by it.

Pure: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

from bridge.actions import Action, Leave
from bridge.moments import NEVER
from bridge.rules import Rules
from bridge.voice import MarkCaller

PROBE = "probe"
LOST = Leave("stream-dead", "Twilio's socket is half-open")
UNHEARD = Leave("stream-dead", "nothing of ours gets through to Twilio")


class Pulse:
    """`at` is when `check` wants to be called. Every message of Twilio's is `heard`, by then; every mark is `answered`."""

    def __init__(self, rules: Rules, now: float) -> None:
        self._rules = rules
        self._probed_at: float | None = None
        self._unanswered_since: float | None = None  # the first probe that has not come back
        self._answered_at = now
        self._answers = False
        self._is_doubted = False
        self._heard_at = now
        self.at = now + rules.probe_after

    def heard(self, at: float) -> None:
        self._heard_at = max(self._heard_at, at)

    def answered(self, now: float) -> None:
        """A mark came back, and they come in their order."""
        self._heard_at = self._answered_at = now
        self._answers, self._unanswered_since = True, None
        probe_at = now + self._rules.idle_probe_after
        if probe_at < self.at:
            self.at = probe_at

    def check(self, now: float, mark_due: float | None = None) -> list[Action]:
        """Nothing, a mark to be answered, or the end. `mark_due`: when the oldest mark that is not back should have been."""
        if now >= self._lost_at():
            self.at = NEVER
            return [LOST]
        due = self._due(mark_due)
        if due is not None and now >= due + self._rules.overdue_after:
            if self._is_doubted:
                self.at = NEVER
                return [UNHEARD]
            self._is_doubted, self.at = True, now + self._rules.read_first  # it may have come while our own process slept
            return []
        self._is_doubted = False
        out: list[Action] = []
        if now >= self._probe_at(due):
            self._probed_at = now
            if self._unanswered_since is None:
                self._unanswered_since = now
            due = self._due(mark_due)
            out = [MarkCaller(PROBE)]
        self.at = min(self._lost_at(), self._probe_at(due), NEVER if due is None else due + self._rules.overdue_after)
        return out

    def _due(self, mark_due: float | None) -> float | None:
        if not self._answers:
            return None
        probe = self._unanswered_since
        return probe if mark_due is None else mark_due if probe is None else min(mark_due, probe)

    def _lost_at(self) -> float:
        """When nothing will have come for too long, also since something was asked."""
        if self._probed_at is None or self._heard_at >= self._probed_at:
            return NEVER
        return max(self._probed_at, self._heard_at + self._rules.probe_after) + self._rules.probe_within

    def _probe_at(self, due: float | None) -> float:
        """The sum that `at` is: a difference may round the other way, for ever."""
        if self._probed_at is not None and self._heard_at < self._probed_at:
            return NEVER
        if due is None and self._answers:
            return self._answered_at + self._rules.idle_probe_after
        return self._heard_at + self._rules.probe_after
