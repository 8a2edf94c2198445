"""Whether Twilio is still there. A half-open socket looks like a caller whose line is silent, and only one of them answers.

Twilio may send no sound for a while (its carrier's choice), so silence proves nothing. A mark does: Twilio returns it at
once when nothing is being played. After 1.5 s without a message one is sent, and another 1.5 s later the socket is given
up. The second wait runs from the mark and not from the last message: if our own process slept, it must get to read first.
Pure: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

from bridge.actions import Action, Leave
from bridge.rules import Rules
from bridge.voice import MarkCaller

PROBE = "probe"
LOST = Leave("stream-lost", "Twilio's socket is half-open")


class Pulse:
    """`at` is when `check` wants to be called. Every message of Twilio's sets `heard_at`."""

    def __init__(self, rules: Rules, now: float) -> None:
        self._rules = rules
        self._probed_at: float | None = None
        self.heard_at = now
        self.at = now + rules.probe_after

    def check(self, now: float) -> list[Action]:
        """Nothing, a mark to be answered, or the end."""
        if self._probed_at is not None and self.heard_at < self._probed_at:
            self.at = float("inf")
            return [LOST]
        if now >= self.heard_at + self._rules.probe_after:  # the very sum that `at` was: a difference may round below it for ever
            self._probed_at, self.at = now, now + self._rules.probe_within
            return [MarkCaller(PROBE)]
        self._probed_at, self.at = None, self.heard_at + self._rules.probe_after
        return []
