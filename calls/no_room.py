"""What finds no room in a queue is said in the log: the first at once, then how many once a second at most."""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)

EVERY_S = 1.0


class NoRoom:
    """Drops of one queue, `what`. Whoever puts must not wait, so a crowd of them is one line; `rest` tells of the last of a crowd."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._untold, self._told_at = 0, float("-inf")

    def dropped(self) -> None:
        self._untold += 1
        self.rest()

    def rest(self) -> None:
        """Say what was not said yet, if it is time."""
        now = time.monotonic()
        if self._untold and now - self._told_at >= EVERY_S:
            log.error("There was no room, and it is dropped", extra={"what": self._what, "count": self._untold})
            self._untold, self._told_at = 0, now
