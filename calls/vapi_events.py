"""What Vapi's webhooks tell us: read, kept under a unique key, then made into lines, endings and figures.

A body is stored before its 200 and processed after, so a failed processing is repeated from the row and a repeated
webhook changes nothing. What is kept is the message's own part: the vendor sends prompts, capability URLs and our own
secret along with every message, and none of those belongs into a row.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
from django.db import InterfaceError, OperationalError

from bridge import live
from bridge.errors import BadMessage
from bridge.untrusted import parse_untrusted
from calls import history, sessions
from calls.models import CallSession, InboxMessage, Role, Source, VapiSession

log = logging.getLogger(__name__)

BODY_LIMIT = 256 * 1024
REPORT_LIMIT = 8 * 1024 * 1024
BODY_NODES = 30_000
REPORT_NODES = 400_000
TOOL_CALLS = "tool-calls"
REPORT = "end-of-call-report"
FINAL_ONLY = 'transcript[transcriptType="final"]'
NAME = re.compile(r"(CA[0-9a-fA-F]{32})(?:\.([0-9]{1,4}))?", re.ASCII)
NOT_OURS = {"call", "assistant", "customer", "phoneNumber", "chat", "session", "toolWithToolCallList"}
GIVE_UP = timedelta(minutes=15)  # a message nobody's session answers to by then is a stranger's
BIGGEST_COST_USD = 10_000
refused: Counter[str] = Counter()  # messages, by kind, that are not as the vendor documents them

ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "bot": Role.ASSISTANT}


@dataclass(frozen=True, slots=True)
class VapiMessage:
    """One server message. `call_sid` and `n` come from the name we gave the Vapi call; empty and 0 when it has another."""

    kind: str
    vapi_call_id: str
    call_sid: str
    n: int
    vendor_ms: int
    body: dict[str, Any]

    def kept(self) -> dict[str, Any]:
        """What of the message is stored."""
        own = {key: value for key, value in self.body.items() if key not in NOT_OURS}
        own["call"] = {"id": self.vapi_call_id, "name": f"{self.call_sid}.{self.n}" if self.call_sid else ""}
        return own

    def key(self) -> str:
        """Equal for the same message told twice. The vendor gives messages no id; a report there is one of per call."""
        own = b"" if self.kind == REPORT else orjson.dumps(self.kept(), option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(b"|".join((b"vapi", self.vapi_call_id.encode(), self.kind.encode(), own))).hexdigest()

    @property
    def is_partial(self) -> bool:
        return self.kind == "transcript" and self.body.get("transcriptType") != "final"

    @property
    def live_hint(self) -> str:
        """What a running call should look at now: the socket says the same, but not always first."""
        if self.kind == "user-interrupted":
            return live.INTERRUPTED
        if self.kind == "speech-update" and self.body.get("role") == "user" and self.body.get("status") == "started":
            return live.SPEECH
        return ""


def read(raw: bytes) -> VapiMessage:
    """The message in a webhook's body. Raises BadMessage; only an end-of-call report may be longer than 256 KiB."""
    long = len(raw) > BODY_LIMIT
    envelope = parse_untrusted(raw, max_bytes=REPORT_LIMIT, max_nodes=REPORT_NODES if long else BODY_NODES)
    body = envelope.get("message") if isinstance(envelope, dict) else None
    if not isinstance(body, dict) or not isinstance(body.get("type"), str):
        raise BadMessage("The body holds no message with a type.")
    kind = "transcript" if body["type"] == FINAL_ONLY else body["type"][:60]
    if long and kind != REPORT:
        raise BadMessage("The message is longer than its kind may be.")
    if kind == "transcript" and body["type"] == FINAL_ONLY:
        body = {**body, "transcriptType": "final"}
    call = _dict(body.get("call"))
    named = NAME.fullmatch(_text(call.get("name"), 40))
    stamp = body.get("timestamp")
    return VapiMessage(
        kind=kind,
        vapi_call_id=_text(call.get("id"), 64),
        call_sid=named[1] if named else "",
        n=int(named[2] or 0) if named else 0,
        vendor_ms=int(stamp) if isinstance(stamp, int | float) else 0,
        body=body,
    )


def session_of(*, vapi_call_id: str, call_sid: str, n: int) -> VapiSession | None:
    """Whose message it is: by the vendor's id, or by our name for it while that id is still on its way to us."""
    known = VapiSession.objects.select_related("call", "call__version", "call__line")
    session = known.filter(vapi_call_id=vapi_call_id).first() if vapi_call_id else None
    if session is None and call_sid:
        session = known.filter(call__call_sid=call_sid, n=n, vapi_call_id=None).first()
    return session


def call_sid_of(message: VapiMessage) -> str:
    """The call a message is about; our name for it says so without the database. Empty for a stranger's."""
    if message.call_sid:
        return message.call_sid
    session = session_of(vapi_call_id=message.vapi_call_id, call_sid="", n=0)
    return session.call.call_sid if session else ""


def keep(message: VapiMessage, *, at: datetime) -> int | None:
    """Store a message before it is answered. Its primary key, or None when it was told before."""
    row = history.store_inbox(
        source=Source.VAPI, key=message.key(), kind=message.kind, body=message.kept(), vapi_call_id=message.vapi_call_id, at=at
    )
    return row.pk if row else None


def process_inbox(*, pk: int, at: datetime) -> bool:
    """Make a stored message into history. True when it is done with; safe to run again.

    False while the session it belongs to is not known yet: it is tried again later, for GIVE_UP at most.
    """
    row = InboxMessage.objects.get(pk=pk)
    if row.processed_at is not None:
        return True
    named = NAME.fullmatch(_text(_dict(row.body.get("call")).get("name"), 40))
    session = session_of(vapi_call_id=row.vapi_call_id, call_sid=named[1] if named else "", n=int(named[2] or 0) if named else 0)
    if session is None or (row.kind in NEED_THE_ID and not session.vapi_call_id):
        return at - row.received_at > GIVE_UP and history.inbox_done(pk=pk, at=at, problem="It belongs to no session of ours.")
    handler = HANDLERS.get(row.kind)
    try:
        if handler is not None:
            handler(row, session)
    except BadMessage as problem:
        return _refused(row, str(problem), at=at, call=session.call)
    return history.inbox_done(pk=pk, at=at, call=session.call)


def reprocess(*, pk: int, at: datetime) -> bool:
    """`process_inbox` for a row its own request did not finish. One that fails again is marked and not tried a third time.

    Raises OperationalError or InterfaceError when the database is away: the rows are not to blame, and all can wait.
    """
    try:
        return process_inbox(pk=pk, at=at)
    except (OperationalError, InterfaceError):
        raise
    except Exception as problem:
        name = type(problem).__name__
        log.error("A stored message of Vapi failed again and is given up", extra={"inbox": pk, "problem": name})
        return history.inbox_done(pk=pk, at=at, problem=f"It could not be processed ({name}).")


def _refused(row: InboxMessage, problem: str, *, at: datetime, call: CallSession) -> bool:
    refused[row.kind] += 1
    log.warning("A message of Vapi is not as documented", extra={"inbox": row.pk, "kind": row.kind, "problem": problem})
    return history.inbox_done(pk=row.pk, at=at, call=call, problem=problem)


def _transcript(row: InboxMessage, session: VapiSession) -> None:
    said_by, text, stamp = row.body.get("role"), row.body.get("transcript"), row.body.get("timestamp")
    if not isinstance(said_by, str) or not isinstance(text, str):
        raise BadMessage("A transcript has no role or no text.")
    role = ROLES.get(said_by)
    if role is None or not text.strip():
        return
    history.add_line(
        call=session.call,
        vapi_call_id=row.vapi_call_id,
        role=role,
        text=text.strip(),
        vendor_ms=int(stamp) if isinstance(stamp, int | float) else 0,
        at=row.received_at,
        n=session.n,
    )


def _status(row: InboxMessage, session: VapiSession) -> None:
    status = row.body.get("status")
    if not isinstance(status, str):
        raise BadMessage("A status update has no status.")
    if status == "ended":
        sessions.session_ended(vapi_call_id=row.vapi_call_id, raw=_text(row.body.get("endedReason"), 200))


def _report(row: InboxMessage, session: VapiSession) -> None:
    """Its words stay in the inbox row; the cost and the vendor's reason go where they are asked for."""
    sessions.report_arrived(
        vapi_call_id=row.vapi_call_id,
        raw=_text(row.body.get("endedReason"), 200),
        cost_usd=_cost(row.body.get("cost")),
        at=row.received_at,
    )


HANDLERS = {"transcript": _transcript, "status-update": _status, REPORT: _report}
NEED_THE_ID = {"status-update", REPORT}


def _cost(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= BIGGEST_COST_USD:
        return None
    return round(Decimal(str(value)), 4)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any, longest: int) -> str:
    """The text if it is one and fits; a longer one is none of ours."""
    return value if isinstance(value, str) and len(value) <= longest else ""
