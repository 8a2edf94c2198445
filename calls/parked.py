"""The rows of a call whose agent is parked: the bridge keeps it for the stream that comes next (`bridge.parking`).

The row says so where it says why the last stream was closed. As long as that word stands the session is of use, and nobody asks
for another one. Twilio may ask what is next before the bridge has said it: then the resume door does, for the stream that comes
will know. The word is replaced once, by whoever decides: the stream that takes the agent up, the stream that did not find it, or
its keeper, who waits no more. The row count of that UPDATE says who it was.
"""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.db.models import Q

from calls import carriers, evidence, guards
from calls.guards import PARKED
from calls.history import NewEvent, record_events
from calls.models import CallSession, Source, VapiState

AWAITED = "agent-parked"  # the event of the question at the resume door that leads to the stream which may take it up
LOST = "stream-lost"


def is_said(call: CallSession) -> bool:
    """The agent of the newest stream, which is closed, is parked."""
    return call.closed_epoch == call.epoch and call.closed_why == PARKED


def is_awaited(call: CallSession) -> bool:
    """The same, and Twilio was asked for the stream that may take it up."""
    return call.closed_epoch == call.epoch - 1 and call.closed_why == PARKED


def may_be_said(call: CallSession) -> bool:
    """The stream is over by Twilio's word, and the bridge has not said its own yet: the agent of it may be parked, or may not."""
    newest = call.newest_session
    is_to_be_said = call.closed_epoch < call.epoch == call.stream_epoch and newest is not None and newest.state == VapiState.LIVE
    return is_to_be_said and not carriers.is_gone(call)


def is_awaited_in_vain(call: CallSession) -> bool:
    """It is awaited from a process that is gone, and the agent with it."""
    if not is_awaited(call):
        return False
    carrier = call.events.filter(kind=AWAITED).latest("seq").detail.get("carrier")
    return carrier is not None and carriers.is_dead(carrier)


def await_stream(call: CallSession, *, n: int, at: datetime) -> None:
    """The call has been given its next epoch, and keeps its session. Needs `evidence.hold`."""
    CallSession.objects.filter(pk=call.pk).update(closed_epoch=call.epoch, closed_why=PARKED)
    carrier = {"carrier": str(call.carried_by)} if call.carried_by else {}
    record_events(call_sid=call.call_sid, events=[NewEvent(AWAITED, Source.SYSTEM, at, {"n": n, **carrier})])


def asked_at(call: CallSession) -> datetime | None:
    """When the stream was asked for that is awaited by a parked agent."""
    return call.events.filter(kind=AWAITED).latest("seq").at if is_awaited(call) else None


def is_kept(*, call_sid: str, epoch: int) -> bool:
    """The agent of the stream of this epoch is still waited for."""
    return CallSession.objects.filter(_parked_since(epoch), call_sid=call_sid).exists()


def taken_up(*, call_sid: str, epoch: int, at: datetime) -> bool:
    """The stream of this epoch found its agent where it runs itself. True for the one that has it from now on."""
    with transaction.atomic():
        return evidence.hold(call_sid=call_sid, at=at, epoch=epoch) is not None and decided(call_sid=call_sid, epoch=epoch - 1)


def decided(*, call_sid: str, epoch: int) -> bool:
    """The agent of the stream of this epoch is parked no more. True for the one who decided that."""
    return CallSession.objects.filter(_parked_since(epoch), call_sid=call_sid).update(closed_why=LOST) == 1


def _parked_since(epoch: int) -> Q:
    """A stream after the next one is a stream whose predecessor found no agent here."""
    return guards.LIVE & Q(closed_epoch=epoch, closed_why=PARKED, epoch__in=(epoch, epoch + 1))
