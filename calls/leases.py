"""A lease of each serving process: whether it is well, and who has what it leaves when it is not.

Each raises the counter of its own every half second, as long as its event loop is well. Everybody reads everybody's counter and
times it with a clock of their own, so no two clocks need agree. A counter that stood still for `LEASE_S`, or whose process its
parent or its machine knows to be dead, is claimed by one conditional UPDATE; the calls go to the claimer with it (`calls.rescue`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Q

from calls.lease_rows import ProcessLease

LEASE_S = 2.0
RENEW_EVERY_S = 0.5
KEPT_FOR = timedelta(hours=1)  # a claimed lease; it is of no use but to be looked at

# Asked two and four times a second, all life long: these statements are not put together anew.
RENEW = "UPDATE calls_processlease SET counter = counter + 1, frozen_at = NULL WHERE boot = %s AND dead_at IS NULL AND claimed_by IS NULL"
BEATS = """SELECT boot, counter, dead_at IS NOT NULL, frozen_at IS NOT NULL, place FROM calls_processlease
    WHERE claimed_by IS NULL AND boot <> %s"""


class Beat(NamedTuple):
    """A lease that nobody has claimed, as it was read."""

    boot: uuid.UUID
    counter: int
    is_dead: bool = False  # somebody saw it die, or sees that it is not there
    is_frozen: bool = False  # it is there, and somebody who would know sees that it does not go on


class Sign(NamedTuple):
    """What was seen last of a process, and when."""

    beat: Beat
    at: float


class Observer:
    """Whose counter stands still. Pure: `now` is monotonic seconds of the one who looks."""

    def __init__(self, lease_s: float = LEASE_S) -> None:
        self._lease = lease_s
        self._signs: dict[uuid.UUID, Sign] = {}

    def look(self, beats: Iterable[Beat], now: float) -> list[Sign]:
        """The last signs of those that are to be claimed."""
        before, self._signs = self._signs, {}
        for beat in beats:
            seen = before.get(beat.boot)
            moved = seen is None or seen.beat.counter != beat.counter
            self._signs[beat.boot] = Sign(beat, now if seen is None or moved else seen.at)
        return [sign for sign in self._signs.values() if sign.beat.is_dead or sign.beat.is_frozen or now - sign.at >= self._lease]

    def forget(self) -> None:
        """Time everybody anew."""
        self._signs = {}


def begin(*, boot: uuid.UUID, at: datetime, place: str = "") -> None:
    ProcessLease.objects.get_or_create(boot=boot, defaults={"born_at": at, "place": place})


def renew(*, boot: uuid.UUID) -> bool:
    """The process is well. False when it is taken for dead: its calls are no longer its own."""
    with connection.cursor() as cursor:
        cursor.execute(RENEW, [_as_stored(boot)])
        return bool(cursor.rowcount == 1)


def died(*, boot: uuid.UUID, at: datetime) -> None:
    """Whoever started this process, or it itself, says that it carries nothing any more."""
    lease, _ = ProcessLease.objects.get_or_create(boot=boot, defaults={"born_at": at, "dead_at": at})
    ProcessLease.objects.filter(pk=lease.pk, dead_at=None).update(dead_at=at)


def frozen(*, boot: uuid.UUID, at: datetime) -> None:
    """Nothing of it goes on, as whoever started it, or a thread of its own, sees. It takes that back itself if it can."""
    ProcessLease.objects.filter(boot=boot, dead_at=None).update(frozen_at=at)


def beats(*, but: uuid.UUID, is_gone: Callable[[str], bool] = lambda place: False) -> list[Beat]:
    """The leases of all others that nobody has claimed."""
    with connection.cursor() as cursor:
        cursor.execute(BEATS, [_as_stored(but)])
        rows = cursor.fetchall()
    return [
        Beat(uuid.UUID(str(boot)), counter, bool(is_dead) or is_gone(place), bool(is_frozen))
        for boot, counter, is_dead, is_frozen, place in rows
    ]


def claim(sign: Sign, *, by: uuid.UUID, at: datetime) -> bool:
    """Take over from a process that has given no sign since. True for the one that did. Clears old leases away with it."""
    no_sign = Q(counter=sign.beat.counter) | Q(dead_at__isnull=False) | Q(frozen_at__isnull=False)
    lease = ProcessLease.objects.filter(no_sign, boot=sign.beat.boot, claimed_by=None)
    if lease.update(claimed_by=by, claimed_at=at) == 0:
        return False
    ProcessLease.objects.filter(claimed_at__lt=at - KEPT_FOR).delete()
    return True


def _as_stored(boot: uuid.UUID) -> Any:
    return ProcessLease._meta.get_field("boot").get_db_prep_value(boot, connection)
