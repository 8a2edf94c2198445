"""What Twilio's news about the end of a call mean: the caller's leg is over, a message was left, a call back was asked for.

Whichever comes first ends the call; each later one is written down all the same, and the ending is read anew from all of
them (`calls.evidence`). So their order does not matter, and neither does it when one of them comes twice or never.
"""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from calls import callbacks, evidence, handover, recordings, services
from calls.models import CallSession, EndReason, RecordingKind, RecordingState, Rung

LEG_ENDS = {
    "completed": EndReason.CALLER_HUNG_UP,
    "canceled": EndReason.CALLER_HUNG_UP,
    "busy": EndReason.CALLER_HUNG_UP,
    "no-answer": EndReason.CALLER_HUNG_UP,
    "failed": EndReason.FAILED,
}
STATES = {
    "completed": RecordingState.COMPLETED,
    "absent": RecordingState.ABSENT,
    "deleted": RecordingState.ABSENT,
    "failed": RecordingState.FAILED,
}


def leg_over(*, call_sid: str, status: str, at: datetime) -> bool:
    """The caller's own leg is over, by Twilio's CallStatus. True when that ended the call."""
    with transaction.atomic():
        if evidence.hold(call_sid=call_sid, at=at) is None:
            return False
        return services.end_call(call_sid=call_sid, at=at, reason=LEG_ENDS[status], raw=status)


def message_left(*, call_sid: str, epoch: int, recording: str, seconds: int, at: datetime) -> bool:
    """The voicemail has heard the caller, for so many seconds (0: nothing). True when that ended the call.

    `recording` is Twilio's id of it; without one only the recording's own callback can tell of the message.
    """
    with transaction.atomic():
        call = evidence.hold(call_sid=call_sid, at=at, epoch=epoch)
        if call is None:
            return False
        services.lower_rung(call_sid=call_sid, rung=Rung.VOICEMAIL, why=handover.NOBODY, at=at)
        if recording and seconds > 0:
            _keep_message(call, recording, RecordingState.COMPLETED, seconds, at)
        return services.end_call(call_sid=call_sid, at=at, reason=EndReason.CALLER_HUNG_UP) or evidence.correct(call_sid=call_sid)


def callback_asked(*, call_sid: str, epoch: int, at: datetime) -> bool:
    """The caller wants to be called back and waits no longer. True when that ended the call."""
    with transaction.atomic():
        call = evidence.hold(call_sid=call_sid, at=at, epoch=epoch)
        if call is None:
            return False
        services.lower_rung(call_sid=call_sid, rung=Rung.VOICEMAIL, why=handover.NOBODY, at=at)
        callbacks.promise(call=call, at=at)
        return services.end_call(call_sid=call_sid, at=at, reason=EndReason.CALLBACK_PROMISED) or evidence.correct(call_sid=call_sid)


def recording_told(*, call_sid: str, sid: str, kind: RecordingKind, status: str, seconds: int, at: datetime) -> bool:
    """What Twilio tells of a recording, by its RecordingStatus. True when it is news; it never ends a call."""
    with transaction.atomic():
        call = evidence.hold(call_sid=call_sid, at=at)
        if call is None:
            return False
        if status == "in-progress":
            return recordings.begun(call=call, sid=sid, kind=kind, at=at)
        state = STATES.get(status)
        if state is None:
            return False
        if kind == RecordingKind.VOICEMAIL and state == RecordingState.COMPLETED and seconds > 0:
            services.lower_rung(call_sid=call_sid, rung=Rung.VOICEMAIL, why=handover.NOBODY, at=at)
            is_news = _keep_message(call, sid, state, seconds, at)
        else:
            is_news = recordings.ready(call=call, sid=sid, kind=kind, state=state, seconds=seconds, at=at)
        evidence.correct(call_sid=call_sid)
    return is_news


def stream_failed(*, call_sid: str, raw: str, at: datetime) -> bool:
    """Twilio lost the stream; the bridge may not know it yet. True when it is news. What is next is asked by itself."""
    with transaction.atomic():
        call = evidence.hold(call_sid=call_sid, at=at)
        detail = {"why": "stream-error", "raw": raw}
        return call is not None and evidence.note_once(call=call, kind="stream-closed", at=at, detail=detail)


def fallback_asked(*, call_sid: str, door: str, code: str, at: datetime) -> bool:
    """Twilio could not use what one of our doors said, by its error code. True when it is news."""
    with transaction.atomic():
        call = evidence.hold(call_sid=call_sid, at=at)
        detail = {"door": door, "code": code}
        return call is not None and evidence.note_once(call=call, kind="fallback-asked", at=at, detail=detail)


def _keep_message(call: CallSession, sid: str, state: RecordingState, seconds: int, at: datetime) -> bool:
    """A message wants an answer, whoever left it."""
    is_news = recordings.ready(call=call, sid=sid, kind=RecordingKind.VOICEMAIL, state=state, seconds=seconds, at=at)
    if evidence.of(call).message:
        callbacks.promise(call=call, at=at)
    return is_news
