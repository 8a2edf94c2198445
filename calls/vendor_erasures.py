"""What the vendors must delete: asked for once, and asked again until each says that it is gone.

A row for each thing, written in the transaction that erases ours: so it is asked for even if we die right after. Whoever
comes first takes a row by moving its next time on, so two at once share the work. "Not known" is as good as "gone". A vendor
who refuses (a key that is no longer ours, say) is asked once a day, for as long as it takes, and pages show why.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from django.db.models import F, QuerySet

from bridge.errors import BridgeError, TwilioUnavailable, VapiUnavailable
from calls.models import VapiAccount, VendorErasure

log = logging.getLogger(__name__)

AGAIN_AFTER = (*(timedelta(minutes=minutes) for minutes in (1, 5, 30, 120, 360)), timedelta(days=1))  # then daily
REFUSED_AGAIN = AGAIN_AFTER[-1]
AT_ONCE = 100  # a look; an account that asks for thousands is locked out for a while
WITHIN_S = 45.0
FORGOTTEN_AFTER = timedelta(days=30)
NO_ACCOUNT = "There is no account of this vendor in the settings."


class Vapi(Protocol):
    """What we need of `bridge.vapi_http.VapiClient`."""

    def delete_call(self, call_id: str) -> bool: ...


class Twilio(Protocol):
    """What we need of `bridge.twilio_rest.TwilioRest`."""

    def delete_recording(self, sid: str, account_sid: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Vendors:
    """Who is asked; None: we have no account there. `backup` is Vapi too, for the calls that were made there."""

    vapi: Vapi | None
    twilio: Twilio | None
    backup: Vapi | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking."""

    gone: int = 0
    waiting: int = 0

    def __bool__(self) -> bool:
        return bool(self.gone or self.waiting)


def want_gone(*, kind: VendorErasure.Kind, ids: Iterable[str], account_sid: str = "", asked_for: str = "", at: datetime) -> int:
    """Have these deleted. Returns how many are news; what was wanted before a person asked for it is asked for again at once."""
    wanted = list(dict.fromkeys(ids))
    before = VendorErasure.objects.filter(kind=kind, vendor_id__in=wanted)
    known = set(before.values_list("vendor_id", flat=True))
    if asked_for:
        before.filter(done_at=None).update(asked_for=asked_for, next_at=at)
    about = {"kind": kind, "account_sid": account_sid, "asked_for": asked_for, "asked_at": at, "next_at": at}
    rows = [VendorErasure(vendor_id=vendor_id, **about) for vendor_id in wanted if vendor_id not in known]
    VendorErasure.objects.bulk_create(rows, ignore_conflicts=True)
    return len(rows)


def waiting() -> QuerySet[VendorErasure]:
    """What some vendor has still to delete, oldest first."""
    return VendorErasure.objects.filter(done_at=None)


def ask(
    *, vendors: Vendors, now: datetime, asked_for: str = "", within_s: float = WITHIN_S, clock: Callable[[], float] = time.monotonic
) -> Asked:
    """Ask for what is due, AT_ONCE at most; with `asked_for`, only what that person wanted gone. Nothing is begun after `within_s`."""
    until = clock() + within_s
    due = waiting().filter(next_at__lte=now)
    if asked_for:
        due = due.filter(asked_for=asked_for)
    gone = left = 0
    for row in list(due.order_by("next_at", "pk")[:AT_ONCE]):
        if clock() >= until:
            break
        if _is_mine(row, now):
            done = _ask(row, vendors, now)
            gone, left = gone + done, left + (not done)
    return Asked(gone, left)


def _is_mine(row: VendorErasure, now: datetime) -> bool:
    again = now + AGAIN_AFTER[min(row.tries, len(AGAIN_AFTER) - 1)]
    taken = VendorErasure.objects.filter(pk=row.pk, done_at=None, next_at=row.next_at)
    return taken.update(next_at=again, tries=F("tries") + 1) == 1


def _ask(row: VendorErasure, vendors: Vendors, now: datetime) -> bool:
    """True when it is gone. A problem is told in our own words."""
    mine = VendorErasure.objects.filter(pk=row.pk)
    try:
        _delete(row, vendors)
    except BridgeError as problem:
        log.warning("A vendor has not deleted yet", extra={"kind": row.kind, "erasure": row.pk, "problem": str(problem)})
        later = {} if isinstance(problem, VapiUnavailable | TwilioUnavailable) else {"next_at": now + REFUSED_AGAIN}
        mine.update(problem=str(problem)[:200], **later)
        return False
    mine.update(done_at=now, problem="")
    return True


def _delete(row: VendorErasure, vendors: Vendors) -> None:
    vapi = vendors.backup if row.account_sid == VapiAccount.BACKUP else vendors.vapi
    match row.kind:
        case VendorErasure.Kind.VAPI_CALL if vapi is not None:
            vapi.delete_call(row.vendor_id)
        case VendorErasure.Kind.TWILIO_RECORDING if vendors.twilio is not None:
            vendors.twilio.delete_recording(row.vendor_id, row.account_sid)
        case _:
            raise BridgeError(NO_ACCOUNT)


def forget_done(*, now: datetime) -> int:
    """Ids of what has been gone for a month are of no use to anybody."""
    return VendorErasure.objects.filter(done_at__lt=now - FORGOTTEN_AFTER).delete()[0]
