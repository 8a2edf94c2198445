"""The longest time of one Vapi session: Vapi ends it in the middle of a word, so we are through before it does.

In the first pause near its end, or a little before it at the latest, the agent says goodbye, or another session takes its place.
"""

from __future__ import annotations

from bridge.moments import NEVER
from bridge.rules import Rules

TIME_IS_UP = "exceeded-max-duration"  # the vendor's word, said by us before it does
ROLLED_OVER = "rolled-over"  # a session's longest time is near and the next one is to take its place: nothing was lost
LOOK_EVERY_S = 0.25
LEAD_S, LEAD_SHARE = 30.0, 0.4  # so long before the end a pause is looked for, of a short session this share
LATEST_S, LATEST_SHARE = 12.0, 0.2  # and so long before it a pause is not waited for any more: a goodbye has to be heard


class LongestTime:
    """`at` is when to look next. Vapi counts from when it made the session, some seconds before we are connected to it."""

    def __init__(self, rules: Rules) -> None:
        self._longest = rules.longest
        self._latest_at = NEVER
        self.at = NEVER

    def connected(self, now: float) -> None:
        if self._longest:
            self.at = now + self._longest - min(LEAD_S, self._longest * LEAD_SHARE)
            self._latest_at = now + self._longest - min(LATEST_S, self._longest * LATEST_SHARE)

    def over(self) -> None:
        self.at = NEVER

    def is_up(self, now: float, *, in_pause: bool) -> bool:
        """Whether to act now. Says yes once."""
        if in_pause or now >= self._latest_at:
            self.over()
            return True
        self.at = now + LOOK_EVERY_S
        return False
