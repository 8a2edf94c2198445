"""When a row may change: the condition of every compare-and-set in the life of a call, as data.

Whoever changes a row filters with one of these and updates; the row count says who won. They are values and no code, so the
exhaustive model of a call (`tests/model`) asks the very same conditions, and can leave a term of them out to see what it is for.
"""

from __future__ import annotations

import uuid

from django.db.models import F, Q

from calls import lifecycle
from calls.models import Status, VapiState

PARKED = "parked"  # `closed_why` of a stream that was lost and whose agent waits for the next one (`calls.parked`)
LIVE = Q(ended_at__isnull=True)
AGENT_WANTED = LIVE & Q(closed_epoch__lt=F("epoch"))  # of the call of a session: a stream is there, or may come
UNCLAIMED = Q(state=VapiState.ASKED)
BEING_CREATED = Q(state=VapiState.CLAIMED)
SESSION_OPEN = Q(ended_at__isnull=True)


def owner(epoch: int) -> Q:
    """Whoever has this epoch owns the stream; everybody else writes nothing."""
    return Q(epoch=epoch)


def live_owner(epoch: int) -> Q:
    return LIVE & owner(epoch)


def may_become(to: Status, epoch: int) -> Q:
    return owner(epoch) & Q(status__in=lifecycle.sources(to))


def token_unused(epoch: int) -> Q:
    """The one-time token of an epoch lets its first stream in, and no other."""
    return may_become(Status.STREAMING, epoch) & Q(stream_epoch__lt=epoch)


def stream_not_closed(epoch: int) -> Q:
    return owner(epoch) & Q(closed_epoch__lt=epoch)


def awaited_after(epoch: int) -> Q:
    """Somebody has given the call its next epoch, and that stream is still to come."""
    return live_owner(epoch + 1) & Q(stream_epoch__lte=epoch, status=Status.CONNECTING)


def place_unchanged(given: int) -> Q:
    """Nobody has been given this place with the AI since it was found free."""
    return Q(given=given)


def claimed_with(claim: uuid.UUID) -> Q:
    return Q(claim=claim, state=VapiState.CLAIMED)
