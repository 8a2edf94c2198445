"""How old a message of the vendor's is when it reaches us, by no agreement of its clock and ours.

The vendor's stamps are held against our monotonic clock. By how much the two differ the quickest message of a call tells: that one
counts as new, and each other one is as old as it took longer. A way that is equally slow for all is not seen. A clock of the
vendor's that was put right, or a stamp from nowhere, is forgotten after two minutes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

WINDOW_S = 60.0
MOST_CALLS = 2000  # whose messages come to one process at once, and many more


class VendorAges:
    """What is kept of a call is three numbers; of too many calls those that were silent longest are forgotten."""

    def __init__(self, most: int = MOST_CALLS) -> None:
        self._most = most
        self._seen: OrderedDict[str, tuple[float, float, float]] = OrderedDict()  # since when; the quickest since, and before
        self._lock = threading.Lock()

    def age_s(self, call: str, stamp_ms: int, *, now: float) -> float:
        """The age of a message of this call with this stamp, at `now` in monotonic seconds. Each message teaches something of the next."""
        apart = now - stamp_ms / 1000
        with self._lock:
            since, quickest, before = self._seen.get(call, (now, apart, apart))
            if now - since >= WINDOW_S:
                since, quickest, before = now, apart, quickest
            quickest = min(quickest, apart)
            self._seen[call] = since, quickest, before
            self._seen.move_to_end(call)
            if len(self._seen) > self._most:
                self._seen.popitem(last=False)
        return apart - min(quickest, before)
