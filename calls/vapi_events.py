"""What Vapi's webhooks tell us: read from a body, and made into lines, endings and figures.

What is kept of a message is its own part: the vendor sends prompts, capability URLs and our own secret along with every
message, and none of those belongs into a row. Every handler may be run again, and in any order with the others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from django.utils.crypto import salted_hmac

from bridge import live
from bridge.errors import BadMessage
from bridge.untrusted import parse_untrusted
from calls import history, masking, mixed_up, reports, services, sessions, split_numbers, vapi_report
from calls.history import NewLine
from calls.models import CallSession, InboxMessage, VapiSession
from calls.vapi_kinds import FETCHED, REPORT, TRANSCRIPT, Deed, deed
from calls.vapi_names import named

BODY_LIMIT = 256 * 1024
REPORT_LIMIT = 8 * 1024 * 1024
BODY_NODES = 30_000
REPORT_NODES = 1_000_000  # 20,000 turns, which the vendor tells three times over
LONGEST_KIND = 60
LATEST_MS = 10**14
FINAL_ONLY = 'transcript[transcriptType="final"]'
# Around every message: what we told the vendor ourselves, and the conversation so far once more.
NOT_OURS = {
    "call",
    "assistant",
    "newAssistant",
    "customer",
    "contact",
    "phoneNumber",
    "chat",
    "session",
    "artifact",
    "messages",
    "messagesOpenAIFormatted",
    "conversation",
    "toolWithToolCallList",
}
OF_A_REPORT = {"type", "timestamp", "endedReason", "startedAt", "endedAt", "cost", "costs", "costBreakdown", "summary", "analysis"}
OF_ITS_ARTIFACT = {"structuredOutputs", "performanceMetrics"}
SPOKEN = {"role", "message", "time", "endTime", "duration"}
MASKED = {"toolCallList", "toolCalls", "functionCall", "analysis", "summary", "structuredOutputs"}  # lines are `redaction`'s
ADDRESS = re.compile(r"(url|uri)s?$", re.IGNORECASE)

refused: Counter[str] = Counter()  # messages, by kind, that are not as the vendor documents them


@dataclass(frozen=True, slots=True)
class VapiMessage:
    """One server message. `call_sid` and `n` come from the name we gave the Vapi call; empty and 0 when it has another.
    `claim` is that of the create that made the call; empty when it shows none.

    `is_long`: making it into history takes seconds. `is_fetched`: a report we asked for, because none had come.
    """

    kind: str
    vapi_call_id: str
    call_sid: str
    n: int
    body: dict[str, Any]
    is_long: bool = False
    is_fetched: bool = False
    claim: str = ""

    def kept(self) -> dict[str, Any]:
        """What of the message is stored."""
        own = _report_kept(self.body) if self.kind == REPORT else {key: self.body[key] for key in self.body.keys() - NOT_OURS}
        name = f"{self.call_sid}.{self.n}" if self.call_sid else ""
        call = {"id": self.vapi_call_id, "name": name} | ({"claim": self.claim} if self.claim else {})
        ours: dict[str, Any] = {"call": call} | ({FETCHED: True} if self.is_fetched else {})
        return {**_without_addresses(_without_secrets(own)), **ours}

    def key(self, kept: Mapping[str, Any]) -> str:
        """Equal for the same message told twice. The vendor gives messages no id; a report there is one of per call, and a fetched one."""
        own = FETCHED.encode() * self.is_fetched if self.kind == REPORT else orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)
        told = b"|".join((b"vapi", self.vapi_call_id.encode(), self.kind.encode(), own))
        return salted_hmac("calls.inbox", told, algorithm="sha256").hexdigest()

    @property
    def holds_arguments(self) -> bool:
        """Whether it may tell with what a model asked its tools."""
        return self.kind == REPORT or not MASKED.isdisjoint(self.body)

    @property
    def is_only_counted(self) -> bool:
        partial = self.kind == TRANSCRIPT and self.body.get("transcriptType") != "final"
        return partial or deed(self.kind) is Deed.COUNTED

    @property
    def vendor_ms(self) -> int:
        """The vendor's time of the message in epoch ms; 0 without a sane one."""
        return _ms(self.body.get("timestamp"))

    @property
    def live_hint(self) -> str:
        """What a running call should look at now: the socket says the same, but not always first."""
        if self.kind == "user-interrupted":
            return live.INTERRUPTED
        if self.kind == "speech-update" and self.body.get("role") == "user" and self.body.get("status") == "started":
            return live.SPEECH
        return ""


# -- reading -----------------------------------------------------------------------------------------------------------


def read(raw: bytes) -> VapiMessage:
    """The message in a webhook's body. Raises BadMessage; only an end-of-call report may be longer than BODY_LIMIT."""
    long = len(raw) > BODY_LIMIT
    envelope = parse_untrusted(raw, max_bytes=REPORT_LIMIT, max_nodes=REPORT_NODES if long else BODY_NODES)
    body = envelope.get("message") if isinstance(envelope, dict) else None
    if not isinstance(body, dict) or not isinstance(body.get("type"), str) or not body["type"].strip():
        raise BadMessage("The body holds no message with a type.")
    kind = body["type"][:LONGEST_KIND]
    if body["type"] == FINAL_ONLY:
        kind, body = TRANSCRIPT, {**body, "transcriptType": "final"}
    if long and kind != REPORT:
        raise BadMessage("The message is longer than its kind may be.")
    call = _dict(body.get("call"))
    call_sid, n = named(call.get("name"))
    return VapiMessage(
        kind=kind, vapi_call_id=_text(call.get("id"), 64), call_sid=call_sid, n=n, body=body, is_long=long, claim=_claim(call)
    )


def fetched(call: Mapping[str, Any]) -> VapiMessage:
    """What `GET /call/{id}` says of a call that is over, as the report it stands for: the fields have the same names."""
    call_sid, n = named(call.get("name"))
    told = {**call, "type": REPORT}
    return VapiMessage(kind=REPORT, vapi_call_id=call["id"], call_sid=call_sid, n=n, body=told, is_fetched=True, claim=_claim(call))


def _claim(call: Mapping[str, Any]) -> str:
    return _text(_dict(_dict(call.get("assistantOverrides")).get("metadata")).get("claim"), 36)


def _report_kept(body: Mapping[str, Any]) -> dict[str, Any]:
    """A report without its copies, its prompt and its addresses; of an artifact stays that it exists."""
    artifact = _dict(body.get("artifact"))
    listed = artifact.get("messages", body.get("messages"))
    spoken = [message for message in map(_dict, listed if isinstance(listed, list) else []) if _text(message.get("role"), 20) in SPEAKERS]
    kinds = {key: True for keys in vapi_report.ARTIFACTS.values() for key in keys if artifact.get(key)}
    own = _without_secrets({key: artifact[key] for key in OF_ITS_ARTIFACT & artifact.keys()})
    told = [{key: message[key] for key in SPOKEN & message.keys()} for message in spoken]
    return {key: body[key] for key in OF_A_REPORT & body.keys()} | {"artifact": {**kinds, **own, "messages": told}}


def _without_secrets(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a model asked tools for, and made of a talk, holds whatever callers dictate to it."""
    return {key: masking.masked(part) if key in MASKED else part for key, part in body.items()}


def _without_addresses(value: Any) -> Any:
    """Every text under a name that ends in `url` is a key to something: True stays in its place."""
    match value:
        case dict():
            return {key: bool(part) if _is_address(key, part) else _without_addresses(part) for key, part in value.items()}
        case list():
            return [_without_addresses(part) for part in value]
    return value


def _is_address(key: str, value: Any) -> bool:
    return isinstance(value, str) and ADDRESS.search(key) is not None


def session_of(*, vapi_call_id: str, call_sid: str, n: int, claim: str = "") -> VapiSession | None:
    """Whose message it is: by the vendor's id, or by our name for it while that id is on its way to us, or was told us wrongly."""
    known = VapiSession.objects.select_related("call").filter(vapi_call_id=vapi_call_id).first() if vapi_call_id else None
    return mixed_up.whose(vapi_call_id=vapi_call_id, call_sid=call_sid, n=n, claim=claim, known=known)


def with_sessions(messages: Sequence[VapiMessage]) -> list[tuple[VapiMessage, VapiSession | None]]:
    """`session_of` for many messages, in one statement unless some are faster than the answer that tells us their id."""
    ids = {message.vapi_call_id for message in messages} - {""}
    known = {session.vapi_call_id: session for session in VapiSession.objects.filter(vapi_call_id__in=ids).select_related("call")}
    return [
        (each, mixed_up.whose(vapi_call_id=each.vapi_call_id, call_sid=each.call_sid, n=each.n, claim=each.claim, known=told))
        for each, told in ((message, known.get(message.vapi_call_id)) for message in messages)
    ]


def call_sid_of(message: VapiMessage) -> str:
    """The call a message is about; our name for it says so without the database. Empty for a stranger's."""
    if message.call_sid:
        return message.call_sid
    session = session_of(vapi_call_id=message.vapi_call_id, call_sid="", n=0)
    return session.call.call_sid if session else ""


# -- what each kind means ----------------------------------------------------------------------------------------------


def finals(told: Sequence[tuple[InboxMessage, VapiSession]]) -> dict[int, str]:
    """Make finals of any calls into lines, in as many statements as for one. Returns what is wrong with some, by the row's key."""
    lines: list[NewLine] = []
    problems: dict[int, str] = {}
    for row, session in told:
        try:
            lines += _final(row, session)
        except BadMessage as problem:
            refused[row.kind] += 1
            problems[row.pk] = str(problem)
    history.add_lines(lines)
    reports.settle_again(sessions={session for _, session in told}, at=told[0][0].received_at)
    return problems


def _final(row: InboxMessage, session: VapiSession) -> list[NewLine]:
    """The line of a final; none when nobody says anything in it."""
    said_by, text = row.body.get("role"), row.body.get("transcript")
    if not isinstance(said_by, str) or not isinstance(text, str):
        raise BadMessage("A transcript has no role or no text.")
    role = vapi_report.ROLES.get(said_by)
    if role is None or not text.strip():
        return []
    known = _text(_dict(row.body.get("call")).get(split_numbers.FIRST_TOLD), 64)
    return [NewLine(session.call, row.vapi_call_id, role, text.strip(), _vendor_ms(row), row.received_at, session.n, known)]


def _transcript(row: InboxMessage, session: VapiSession) -> None:
    """A final after the report was merged may have words the report had to tell, so that is looked at again."""
    history.add_lines(_final(row, session))
    reports.settle_again(sessions={session}, at=row.received_at)  # also for a line known before: whoever stored it may have died here


def _vendor_ms(row: InboxMessage) -> int:
    """The vendor's time of a message; without a sane one it is placed by its arrival."""
    return _ms(row.body.get("timestamp")) or int(row.received_at.timestamp() * 1000)


def _ms(stamp: Any) -> int:
    return int(stamp) if isinstance(stamp, int | float) and not isinstance(stamp, bool) and 0 < stamp < LATEST_MS else 0


def _status(row: InboxMessage, session: VapiSession) -> None:
    status = row.body.get("status")
    if not isinstance(status, str):
        raise BadMessage("A status update has no status.")
    if status == "ended":
        sessions.session_ended(vapi_call_id=row.vapi_call_id, raw=_text(row.body.get("endedReason"), 200), at=row.received_at)


def _report(row: InboxMessage, session: VapiSession) -> None:
    reports.merge(session=session, report=row.body, at=row.received_at)
    sessions.report_arrived(
        vapi_call_id=row.vapi_call_id,
        raw=_text(row.body.get("endedReason"), 200),
        cost_usd=vapi_report.cost_usd(row.body.get("cost")),
        at=row.received_at,
    )


def _control(row: InboxMessage, session: VapiSession) -> None:
    """Vapi asks us to hang up, which it only does when told to. Nobody is ever called on its word."""
    if row.body.get("request") != "hang-up":
        raise BadMessage("Vapi asked us to call somebody, which we never do.")
    if not session.call.is_over:
        call = session.call
        services.ask(call=call, key=f"end-call:{call.call_sid}:{call.epoch}", verb="end-call", detail={}, at=row.received_at)


Handler = Callable[[InboxMessage, VapiSession], None]
HANDLERS: Mapping[str, Handler] = {TRANSCRIPT: _transcript, "status-update": _status, REPORT: _report, "phone-call-control": _control}
NEED_THE_ID = {"status-update", REPORT}
SPEAKERS = set(vapi_report.ROLES)


def handle(row: InboxMessage, session: VapiSession) -> CallSession:
    """Make a stored message into history. Raises BadMessage when it is not as documented, which is counted."""
    handler = HANDLERS.get(row.kind)
    try:
        if handler is not None:
            handler(row, session)
    except BadMessage:
        refused[row.kind] += 1
        raise
    return session.call


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any, longest: int) -> str:
    """The text if it is one and fits; a longer one is none of ours."""
    return value if isinstance(value, str) and len(value) <= longest else ""
