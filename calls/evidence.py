"""What the rows of a call tell of how it went, and how it ended therefore.

News come twice, late and in any order. So an ending is no sum of news but read from all that is written, again whenever
more is: `correct`. Whoever writes news has the call's row first (`hold`): one UPDATE, after which every other writer of
that call waits for our commit. Then no two of them can overlook each other, nor wait for each other in a circle.
"""

from __future__ import annotations

from datetime import datetime

from django.db.models import F, Value
from django.db.models.functions import Greatest

from calls import lifecycle
from calls.history import NewEvent, pages_look, record_events
from calls.lifecycle import Told
from calls.models import OVER, CallbackRequest, CallSession, EndReason, RecordingKind, RecordingState, Rung, Source

PICKED_UP = "picked-up"
ANSWERED = (PICKED_UP, "completed", "answered")  # a `dial-result` that says that somebody was on the line


def hold(*, call_sid: str, at: datetime, epoch: int | None = None) -> CallSession | None:
    """A sign of life of this call, inside a transaction. None: unknown, or another epoch has it; nothing was written."""
    calls = CallSession.objects.filter(call_sid=call_sid)
    if epoch is not None:
        calls = calls.filter(epoch=epoch)
    if calls.update(last_seen_at=Greatest(F("last_seen_at"), Value(at))) == 0:
        return None
    return CallSession.objects.select_related("line").get(call_sid=call_sid)


def note_once(*, call: CallSession, kind: str, at: datetime, detail: dict[str, str]) -> bool:
    """An event of Twilio's that counts once, however often it is told. True for the first word of it. Needs `hold`."""
    if call.events.filter(kind=kind, source=Source.TWILIO, **{f"detail__{key}": value for key, value in detail.items()}).exists():
        return False
    record_events(call_sid=call.call_sid, events=[NewEvent(kind, Source.TWILIO, at, detail)])
    return True


def of(call: CallSession) -> Told:
    """All that is written of this call by now."""
    messages = call.recordings.filter(kind=RecordingKind.VOICEMAIL, state=RecordingState.COMPLETED, seconds__gt=0)
    dials = {command.detail["target"]: command for command in call.commands.filter(verb="dial")}
    finished = [command for command in dials.values() if command.done_at is not None]
    told_of = picked_up(call) - {command.detail["target"] for command in finished}
    return Told(
        message=messages.exists(),
        callback=CallbackRequest.objects.filter(call=call).exists(),
        talked=any(not command.problem for command in finished) or bool(told_of),
        waiting=call.stream_epoch < 0 or call.closed_why == "handed-over" or bool(dials) or call.rung >= Rung.VOICEMAIL,
    )


def picked_up(call: CallSession) -> set[str]:
    """The targets that somebody answered for, by all that Twilio told."""
    told = call.events.filter(kind="dial-result", detail__status__in=ANSWERED)
    return {detail.get("target", "") for detail in told.values_list("detail", flat=True)}


def correct(*, call_sid: str, said: EndReason | None = None) -> bool:
    """Read the ending of a call that is over anew. True when it changed. Needs `hold`.

    `said` is the bridge's word on the end of a stream, which is better than Twilio's word of a hang-up.
    """
    call = CallSession.objects.filter(call_sid=call_sid, status__in=OVER).first()
    if call is None:
        return False
    stands, told = EndReason(call.end_reason), of(call)
    if said is not None and stands is EndReason.CALLER_HUNG_UP and not told.waiting:
        stands = said
    reason, outcome = lifecycle.ending(stands, told)
    if (reason, outcome) == (call.end_reason, call.outcome):
        return False
    CallSession.objects.filter(pk=call.pk).update(end_reason=reason, outcome=outcome)
    pages_look(call_sid=call_sid)
    return True
