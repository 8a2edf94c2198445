"""What a stream tells the ledger, as values, and as the spool keeps them: plain JSON, without what its call leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any

from bridge.ports import CallRef, Closing, Note
from calls.discretion import rules_of_call
from calls.redaction import redact_body, redact_growing


@dataclass(frozen=True, slots=True)
class Told:
    ref: CallRef
    note: Note


@dataclass(frozen=True, slots=True)
class Alive:
    ref: CallRef
    at: float


@dataclass(frozen=True, slots=True)
class Obeyed:
    ref: CallRef
    command_id: int
    at: float


@dataclass(frozen=True, slots=True)
class PersonAsked:
    ref: CallRef
    at: float


@dataclass(frozen=True, slots=True)
class Closed:
    ref: CallRef
    closing: Closing
    at: float
    now: float
    stored: Future[bool] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A stream that was let in while nobody could be asked. `held_by`: the life of the process that carries it, if it has a lease."""

    ref: CallRef
    account_sid: str
    stream_sid: str
    at: float
    held_by: str = ""


@dataclass(frozen=True, slots=True)
class Created:
    """A Vapi call that was made, or whose making was answered, while nobody could be asked."""

    ref: CallRef
    n: int
    at: float
    vapi_call_id: str = ""
    socket_url: str = field(default="", repr=False)
    control_url: str = field(default="", repr=False)
    failure: str = ""
    maybe_created: bool = False


@dataclass(frozen=True, slots=True)
class Resumed:
    """Another agent of a stream was asked for, number `n`, while nobody could be asked: `raw` says how the one before was lost."""

    ref: CallRef
    n: int
    at: float
    raw: str
    account: str = "main"


@dataclass(frozen=True, slots=True)
class Asked:
    """The first agent of a stream was asked for, number `n`, while its row could not be read, though that may have one."""

    ref: CallRef
    n: int
    at: float


Entry = Told | Alive | Obeyed | PersonAsked | Closed | Admitted | Created | Resumed | Asked
KINDS: dict[str, type[Entry]] = {
    kind.__name__: kind for kind in (Told, Alive, Obeyed, PersonAsked, Closed, Admitted, Created, Resumed, Asked)
}


def kept(entry: Entry) -> dict[str, Any]:
    """The entry as it may stand in the spool."""
    rules = rules_of_call(entry.ref.call_sid)
    told: dict[str, Any] = {"kind": type(entry).__name__, "ref": asdict(entry.ref)}
    match entry:
        case Told(_, note):
            detail = redact_body(dict(note.detail), rules)
            if note.kind == "transcript-partial" and isinstance(detail.get("text"), str):
                detail["text"] = redact_growing(detail["text"], rules)
            return {**told, "note": {"kind": note.kind, "source": note.source, "at": note.at, "now": note.now, "detail": detail}}
        case Closed(_, closing, at, now):
            last = {"why": closing.why, "raw": closing.raw, "figures": dict(closing.figures)}
            return {**told, "closing": last, "at": at, "now": now}
    return {**asdict(entry), **told}


def read(told: Mapping[str, Any]) -> Entry:
    """What `kept` made JSON of."""
    parts = dict(told)
    kind = KINDS[parts.pop("kind")]
    parts["ref"] = CallRef(**parts["ref"])
    if "note" in parts:
        parts["note"] = Note(**parts["note"])
    if "closing" in parts:
        parts["closing"] = Closing(**parts["closing"])
    return kind(**parts)
