"""Which processes of this machine stand still, for who cannot read their leases: a mark on the disk each, a link that costs nothing.

Whoever started such a process makes it, in the moment in which they would write it into its lease, and takes it away when the process
goes on or is dead. It counts for no longer than anybody can stand still who is looked after so: whoever started it may stand still, or
be gone, too, and the process go on.
"""

from __future__ import annotations

import hashlib
import time

from calls.disk_marks import drop, kept_at, note

MARK = "frozen"
COUNTS_FOR_S = 5.0  # who stands still for four is ended (`supportvoice.presence`)


def begins(place: str) -> None:
    """The process at this place does not answer."""
    ends(place)
    note(_name(place), MARK, {"place": place})


def ends(place: str) -> None:
    """It does, or never will."""
    drop(_name(place), MARK)


def is_seen(place: str) -> bool:
    at = kept_at(_name(place), MARK)
    return at is not None and abs(time.time() - at.timestamp()) < COUNTS_FOR_S


def _name(place: str) -> str:
    return hashlib.sha256(place.encode()).hexdigest()[:32]
