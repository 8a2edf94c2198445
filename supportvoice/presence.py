"""Whether a serving process moves at all. Its parent asks every quarter of a second; a thread of it answers, whatever its loop does.

Pure: `now` is monotonic seconds of the one who asks.
"""

from __future__ import annotations

ASK_S = 0.25
MISSED_AFTER_S = 1.5  # sooner than a lease ends (`calls.leases`): nobody who stands still for a second is given up
ENDED_AFTER_S = 4.0  # sooner than a caller, or a vendor who waits for its answer, has heard nothing for five seconds
LATE_S = 1.0


class Presence:
    """Of one process, from `now` on."""

    def __init__(self, now: float) -> None:
        self._answered_at = self._looked_at = now

    def answered(self, now: float) -> None:
        self._answered_at = now

    def silent_s(self, now: float) -> float:
        """For how long. To be asked every `ASK_S`: whoever comes late to it stood still too, and gives the other one its time again."""
        if now - self._looked_at > LATE_S:
            self._answered_at = now
        self._looked_at = now
        return now - self._answered_at
