"""Sound that is queued while nothing is sent: an alarm, once for each time it happens.

Either our own process does not get to it, or the other end does not read. Pure: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations


class Stuck:
    """Told of a queue now and then: whether anything waits in it, and how much has left it so far.

    `is_looking`: something waited when it looked last.
    """

    def __init__(self, after: float) -> None:
        self._after = after
        self._left = 0
        self._since: float | None = None
        self.is_looking = False

    def look(self, now: float, *, waits: bool, left: int) -> int:
        """The ms for which nothing has left, when that is too long; 0 otherwise, and when it was said before."""
        self.is_looking = waits
        if not waits or left != self._left:
            self._left, self._since = left, now if waits else None
            return 0
        if self._since is None:
            self._since = now
        stuck = now - self._since
        if stuck < self._after:
            return 0
        self._since = float("inf")  # said; until something leaves
        return int(stuck * 1000)
