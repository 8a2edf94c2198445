"""The inbox: a webhook body is stored under a unique key before its 200, processed after, and can be processed again.

So a failed processing is repeated from the row, and a repeated webhook changes nothing. What a message means is
`calls.vapi_events`' business; Twilio's news are processed where they arrive.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import IntegrityError, transaction

from agents.models import TemplateVersion
from bridge.errors import BadMessage
from calls import away, masking, unsaid, vapi_events, vapi_report
from calls.discretion import rules_of, rules_of_call
from calls.models import CallSession, InboxMessage, Source, VapiSession
from calls.redaction import redact_body
from calls.vapi_events import NEED_THE_ID, VapiMessage
from calls.vapi_kinds import REPORT, TRANSCRIPT, label
from calls.vapi_names import named

log = logging.getLogger(__name__)

PATIENCE = timedelta(seconds=5)  # the request that brought a body is given this long to process it itself
BATCH = 500
GIVE_UP = timedelta(minutes=10)  # a message nobody's session answers to by then is a stranger's


# -- rows --------------------------------------------------------------------------------------------------------------


def _is_first(row: InboxMessage) -> bool:
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        return False
    return True


def _row(*, source: str, key: str, kind: str, body: Any, vapi_call_id: str, at: datetime, call_id: int | None) -> InboxMessage:
    return InboxMessage(source=source, key=key, kind=kind[:60], body=body, vapi_call_id=vapi_call_id, call_id=call_id, received_at=at)


def inbox_done(*, pk: int, at: datetime, call: CallSession | None = None, problem: str = "") -> bool:
    """Mark a body as processed. True for the one that did it; `problem` is our own sentence, never the body's words."""
    done: dict[str, Any] = {"processed_at": at, "problem": problem[:200]}
    if call is not None:
        done["call"] = call
    return InboxMessage.objects.filter(pk=pk, processed_at=None).update(**done) == 1


def inbox_to_do(*, now: datetime) -> Iterator[int]:
    """Bodies that should have been processed by now, oldest first, as primary keys. Each is named once."""
    waiting = InboxMessage.objects.filter(processed_at=None, received_at__lt=now - PATIENCE)
    last = 0
    while keys := list(waiting.filter(pk__gt=last).values_list("pk", flat=True)[:BATCH]):
        yield from keys
        last = keys[-1]


# -- Vapi's messages ---------------------------------------------------------------------------------------------------


class Stored(NamedTuple):
    """A message that was stored now. `session` is whose it is, if that is known yet."""

    message: VapiMessage
    session: VapiSession | None
    row: InboxMessage


def keep(message: VapiMessage, *, session: VapiSession | None, at: datetime) -> InboxMessage | None:
    """Store a message before it is answered. None when it was told before."""
    row = _row(**_of_vapi(message, session, at, unsaid.among({session.call_id} if session else ())))
    return row if _is_first(row) else None


def keep_all(told: Sequence[tuple[VapiMessage, VapiSession | None]], *, at: datetime) -> list[Stored]:
    """`keep` for many, in two statements: those that were not told before.

    Raises IntegrityError when another process stores one of them in this very moment.
    """
    stored: dict[str, Stored] = {}
    unkept = unsaid.among({session.call_id for _, session in told if session})
    for message, session in told:
        row = _row(**_of_vapi(message, session, at, unkept))
        stored.setdefault(row.key, Stored(message, session, row))
    known = set(InboxMessage.objects.filter(source=Source.VAPI, key__in=stored).values_list("key", flat=True))
    new = [each for key, each in stored.items() if key not in known]
    InboxMessage.objects.bulk_create(each.row for each in new)
    return new


def _of_vapi(message: VapiMessage, session: VapiSession | None, at: datetime, unkept: Collection[int]) -> dict[str, Any]:
    """Vapi's first webhooks may be faster than the answer that tells us its id; whose they are is said later then.

    Of the calls in `unkept` no words are stored.
    """
    call_id = session.call_id if session and session.vapi_call_id else None
    kept = message.kept()
    kept = unsaid.body(kept) if session and session.call_id in unkept else _as_stored(message.kind, kept, session)
    told = {"source": Source.VAPI, "kind": message.kind, "vapi_call_id": message.vapi_call_id}
    body = masking.without_digits_in_arguments(kept) if message.holds_arguments and _listens(session) else kept
    return {**told, "key": message.key(kept), "body": body, "at": at, "call_id": call_id}


def by_heart(message: VapiMessage) -> Any:
    """What may be kept of a message while nobody can be asked whose it is: by the rules of its call if they are known, else the usual."""
    rules = rules_of_call(message.call_sid)
    kept: Any = message.kept()
    kept = redact_body(vapi_report.redacted(kept, rules) if message.kind == REPORT else kept, rules)
    return masking.without_digits_in_arguments(kept) if message.holds_arguments else kept


def _listens(session: VapiSession | None) -> bool:
    """Whether the agent is told what the caller types, and may ask its tools with it. So it is taken to be while nobody knows."""
    return session is None or TemplateVersion.objects.filter(calls=session.call_id, keypad=True).exists()


def _as_stored(kind: str, body: Any, session: VapiSession | None) -> Any:
    """A message without what its call leaves out."""
    rules = rules_of(session.call.version_id if session else None)
    return redact_body(vapi_report.redacted(body, rules) if kind == REPORT else body, rules)


def process(*, pk: int, at: datetime) -> bool:
    """`enter` for a row that was stored before, perhaps by somebody else, who may have entered it by now."""
    row = InboxMessage.objects.get(pk=pk)
    if row.processed_at is not None:
        return True
    told = row.body.get("call", {}) if isinstance(row.body, dict) else {}
    call_sid, n = named(told.get("name"))
    session = vapi_events.session_of(vapi_call_id=row.vapi_call_id, call_sid=call_sid, n=n, claim=str(told.get("claim", "")))
    return enter(row, session, at=at)


def enter(row: InboxMessage, session: VapiSession | None, *, at: datetime) -> bool:
    """Make a stored message of a session into history. True when it is done with; safe to run again.

    False while the session it belongs to is not known yet: it is tried again later, for GIVE_UP at most.
    """
    if session is None or (row.kind in NEED_THE_ID and not session.vapi_call_id):
        return at - row.received_at > GIVE_UP and inbox_done(pk=row.pk, at=at, problem="It belongs to no session of ours.")
    if row.call_id is None:  # it was stored before anybody knew by whose rules
        _store_again(row, session)
    try:
        vapi_events.handle(row, session)
    except BadMessage as problem:
        log.warning("A message of Vapi is not as documented", extra={"inbox": row.pk, "kind": label(row.kind), "problem": str(problem)})
        inbox_done(pk=row.pk, at=at, call=session.call, problem=str(problem))
    else:
        inbox_done(pk=row.pk, at=at, call=session.call)
    return True


def _store_again(row: InboxMessage, session: VapiSession) -> None:
    body = _as_stored(row.kind, row.body, session)
    if body != row.body:
        row.body = body
        row.save(update_fields=["body"])


def enter_all(stored: Sequence[Stored], *, at: datetime) -> list[Stored]:
    """`enter` for many, inside a transaction; lines in as many statements as for one. Returns those whose session is not known yet.

    What fails is logged, and tried again from its row.
    """
    finals = [each for each in stored if _is_final(each)]
    if finals:
        with _left_for_later(finals):
            _enter_finals(finals, at=at)
    waiting: list[Stored] = []
    for each in (each for each in stored if not _is_final(each)):
        with _left_for_later([each]):
            if not enter(each.row, each.session, at=at):
                waiting.append(each)
    return waiting


def _is_final(each: Stored) -> bool:
    return each.row.kind == TRANSCRIPT and each.session is not None


def _enter_finals(finals: Sequence[Stored], *, at: datetime) -> None:
    problems = vapi_events.finals([(each.row, each.session) for each in finals if each.session])
    done = [each for each in finals if each.row.pk not in problems]
    InboxMessage.objects.filter(pk__in=[each.row.pk for each in done if each.row.call_id]).update(processed_at=at)
    for each in finals:
        if each.session and (each.row.pk in problems or not each.row.call_id):
            inbox_done(pk=each.row.pk, at=at, call=each.session.call, problem=problems.get(each.row.pk, ""))


@contextmanager
def _left_for_later(stored: Sequence[Stored]) -> Iterator[None]:
    try:
        with transaction.atomic():
            yield
    except Exception as problem:  # whatever it is: the vendor is told that we have these messages, and we have
        detail = {"inbox": [each.row.pk for each in stored], "problem": type(problem).__name__}
        log.error("A stored message of Vapi could not be processed", extra=detail)


def attempt(*, pk: int, at: datetime) -> None:
    """`process`, of what nobody waits for. What fails here is tried again from the row."""
    try:
        process(pk=pk, at=at)
    except Exception as problem:  # whatever it is, `reprocess` has the last word
        log.error("A stored message of Vapi could not be processed", extra={"inbox": [pk], "problem": type(problem).__name__})


def reprocess(*, pk: int, at: datetime) -> bool:
    """`process` for a row its own request did not finish. One that fails again is marked and not tried a third time.

    Raises what `away` knows when the database is away: the rows are not to blame, and all can wait.
    """
    try:
        return process(pk=pk, at=at)
    except Exception as problem:  # whatever it is, the rows behind this one have their turn
        if away.is_away(problem):
            raise
        name = type(problem).__name__
        log.error("A stored message of Vapi failed again and is given up", extra={"inbox": pk, "problem": name})
        return inbox_done(pk=pk, at=at, problem=f"It could not be processed ({name}).")


def again(pk: int, at: datetime) -> bool:
    """Process a stored message of Vapi's once more. True when it is done with; False when it waits for its session.

    What it told before is not told twice. A body of Twilio's is not processed again: its news are in the rows.
    """
    stored = InboxMessage.objects.filter(pk=pk, source=Source.VAPI)
    if stored.update(processed_at=None, problem="") == 0:
        return False
    return reprocess(pk=pk, at=at)


def catch_up(*, vapi_session_pk: int, at: datetime) -> None:
    """Process what came before its Vapi call was known to us: the vendor may be faster than its own answer."""
    known = VapiSession.objects.filter(pk=vapi_session_pk).exclude(vapi_call_id=None)
    early = InboxMessage.objects.filter(vapi_call_id__in=known.values("vapi_call_id"), processed_at=None)
    for pk in list(early.values_list("pk", flat=True)):
        reprocess(pk=pk, at=at)
