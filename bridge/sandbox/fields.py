"""The forms Twilio fills in: which fields a request about a call, a child leg, a stream or a recording carries. Only dicts, no I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from bridge.sandbox.dial import Attempt
from bridge.sandbox.seen import Recording

CALLER_LIVES = ("SAN FRANCISCO", "CA", "94105")
CALL_TOKEN = "%7B%22parentCallInfoToken%22%3A%22eyJhbGciOiJFUzI1NiJ9.e30.sig%22%2C%22identityHeaderTokens%22%3A%5B%5D%7D"  # noqa: S105
SIP_CODES: Mapping[str, str] = {"busy": "486", "no-answer": "487", "canceled": "487", "failed": "404"}
API_VERSION = "2010-04-01"
ACCOUNTS = f"/{API_VERSION}/Accounts"

Form = dict[str, str]


@dataclass(frozen=True, slots=True)
class Parties:
    """Whose call it is."""

    account_sid: str
    call_sid: str
    from_number: str
    to_number: str


def standard(parties: Parties, status: str) -> Form:
    """The fields of every request of a call; while it still rings, ten more."""
    form = {
        "AccountSid": parties.account_sid,
        "ApiVersion": API_VERSION,
        "CallSid": parties.call_sid,
        "CallStatus": status,
        "Direction": "inbound",
        "From": parties.from_number,
        "To": parties.to_number,
        "Caller": parties.from_number,
        "Called": parties.to_number,
        **_place("From", *CALLER_LIVES),
        **_place("To"),
    }
    if status == "ringing":
        stamp = {"CallToken": CALL_TOKEN, "StirVerstat": "TN-Validation-Passed-A"}
        form |= {**_place("Caller", *CALLER_LIVES), **_place("Called"), **stamp}
    return form


def ending(parties: Parties, status: str, *, seconds: int, wall: float) -> Form:
    """The number's status callback."""
    return {**standard(parties, status), **_duration(seconds), **_progress(0, wall)}


def child(parties: Parties, attempt: Attempt) -> Form:
    """The standard fields of a leg that was dialled."""
    return {
        "AccountSid": parties.account_sid,
        "ApiVersion": API_VERSION,
        "CallSid": attempt.call_sid,
        "ParentCallSid": parties.call_sid,
        "CallStatus": attempt.status,
        "Direction": "outbound-dial",
        "From": attempt.caller_id,
        "To": attempt.number,
        "Caller": attempt.caller_id,
        "Called": attempt.number,
    }


def child_event(parties: Parties, attempt: Attempt, *, wall: float) -> Form:
    """A step of a leg that was dialled; numbered, since callbacks may overtake each other."""
    form = {**child(parties, attempt), **_progress(len(attempt.events) - 1, wall)}
    if attempt.events[-1] == "completed":
        form |= _duration(attempt.duration_s)
        if attempt.status in SIP_CODES:
            form["SipResponseCode"] = SIP_CODES[attempt.status]
    return form


def stream_event(parties: Parties, sid: str, name: str, event: str, *, error: str, wall: float) -> Form:
    """A step of a stream."""
    now = datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    form = {"AccountSid": parties.account_sid, "CallSid": parties.call_sid, "StreamSid": sid, "StreamName": name or sid}
    return {**form, "StreamEvent": event, "Timestamp": now, **({"StreamError": error} if error else {})}


def recorded(parties: Parties, recording: Recording) -> Form:
    """What an action is told of the recording that was just made."""
    return {
        "RecordingUrl": f"https://api.twilio.com{ACCOUNTS}/{parties.account_sid}/Recordings/{recording.sid}",
        "RecordingSid": recording.sid,
        "RecordingDuration": str(math.ceil(recording.seconds)),
    }


def recording_event(parties: Parties, recording: Recording, status: str) -> Form:
    """A recording's status callback; how long it is, is only known when it is done."""
    form = {"AccountSid": parties.account_sid, "CallSid": parties.call_sid, **recorded(parties, recording)}
    if status == "in-progress":
        del form["RecordingDuration"]
    return form | {
        "RecordingStatus": status,
        "RecordingChannels": str(recording.channels),
        "RecordingStartTime": rfc2822(recording.wall),
        "RecordingSource": recording.source,
        "RecordingTrack": recording.track,
    }


def rfc2822(wall: float) -> str:
    return format_datetime(datetime.fromtimestamp(wall, UTC))


def day_of(wall: float) -> str:
    """2026-11-22, of UTC."""
    return datetime.fromtimestamp(wall, UTC).date().isoformat()


def _progress(number: int, wall: float) -> Form:
    return {"Timestamp": rfc2822(wall), "CallbackSource": "call-progress-events", "SequenceNumber": str(number)}


def _place(who: str, city: str = "", state: str = "", code: str = "") -> Form:
    return {f"{who}City": city, f"{who}State": state, f"{who}Zip": code, f"{who}Country": "US"}


def _duration(seconds: int) -> Form:
    return {"CallDuration": str(seconds), "Duration": str(math.ceil(seconds / 60))}
