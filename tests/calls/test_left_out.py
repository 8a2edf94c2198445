"""What is left out is nowhere: told at the real doors, then looked for in the bytes of the database's files and in the log."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from agents.models import TemplateVersion
from bridge.ports import CallRef, Note
from calls import callbacks, discretion, export, inbox, intake, services, vapi_events
from calls.ledger import DatabaseLedger
from calls.marks import CARD, EMAIL, LEFT_OUT, PHONE
from calls.models import CallbackRequest, CallEvent, CallSession, InboxMessage, Status, ToolRun, TranscriptLine, VapiSession, VapiState
from supportvoice.logs import FieldsFormatter
from tests import on_disk
from tests.builders import FakeVapi, a_call, a_callback, a_version, session_of
from tests.calls import doors
from tests.calls.card_forms import FORMS, HALVES, INNOCENT

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="the bytes are those of SQLite's files"),
]

START = 1_795_342_807_000
HERE = "Sure, it is {} and no other."
_clock = itertools.count(START, 200_000)  # each conversation by itself


@pytest.fixture(autouse=True)
def configured(settings: Settings) -> None:
    settings.VAPI_WEBHOOK_SECRETS = [doors.SECRET]


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Every line of the process, as it is printed."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Kept()
    handler.setFormatter(FieldsFormatter())
    logging.getLogger().addHandler(handler)
    yield lines
    logging.getLogger().removeHandler(handler)


def a_live_call(**rules: Any) -> CallSession:
    call = a_call(status=Status.STREAMING)
    if rules:
        version = a_version(**rules)
        CallSession.objects.filter(pk=call.pk).update(version=version)
        call.refresh_from_db()
    VapiSession.objects.filter(call=call).update(state=VapiState.LIVE, vapi_call_id=f"v-{call.call_sid}", live_at=timezone.now())
    return call


def post(call: CallSession, kind: str, **said: Any) -> None:
    """A message of Vapi's, at its door."""
    vendors = {"id": f"v-{call.call_sid}", "name": f"{call.call_sid}.0"}
    body = json.dumps({"message": {"type": kind, "call": vendors, **said}})
    answer = Client().post("/webhook/vapi", data=body, content_type="application/json", headers={"X-Vapi-Secret": doors.SECRET})
    assert answer.status_code == 200


def final(call: CallSession, text: str, ms: int, role: str = "user") -> None:
    post(call, "transcript", transcriptType="final", role=role, transcript=text, timestamp=ms)


def said(call: CallSession, **rows: Any) -> list[str]:
    return list(TranscriptLine.everything.filter(call=call, **rows).exclude(role="system").values_list("said", flat=True))


def bytes_of_the_database() -> bytes:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert cursor.fetchone()[0] == 0
    return on_disk.bytes_of_the_database()


def found_in(stored: bytes, told: Sequence[str]) -> list[str]:
    """Which of these can be found, as they were told, as JSON spells them, or by their digits alone."""
    spelled = {each: {each, json.dumps(each)[1:-1], "".join(filter(str.isdigit, each))} for each in told}
    return [each for each, ways in spelled.items() if any(way.encode() in stored for way in ways if len(way) > 4)]


def tell(form: str) -> None:
    """A conversation about one card, at every door that takes what people said."""
    call, ms, text = a_live_call(), next(_clock), HERE.format(form)
    final(call, text, ms)
    final(call, f"I repeat: {form}", ms + 5000, "assistant")
    asked = {"id": f"t-{call.call_sid}", "name": "pay", "parameters": {"card": form, "note": text, form: [form]}}
    post(call, "tool-calls", toolCallList=[asked])
    post(call, "transfer-update", destination={"message": text})
    services.ask(call=call, key=f"say:{call.call_sid}", verb="say", detail={"text": text}, at=timezone.now())
    turns = [{"role": "user", "message": text, "time": ms}, {"role": "bot", "message": f"I repeat: {form}", "time": ms + 4000}]
    analysis = {"summary": text, "successEvaluation": form, "structuredData": {"card": form}}
    told = {"transcript": text, "summary": text, "analysis": analysis, "messages": turns}
    post(call, "end-of-call-report", endedReason="hangup", **told, artifact={"messages": turns, "transcript": text})
    assert said(call) == [said for said in said(call) if CARD in said]


def test_none_of_forty_forms_of_a_card_number_is_stored_or_logged(log: list[str]) -> None:
    final(a_live_call(), "planted 9182736455", next(_clock))  # to see that what is stored is found
    for form in FORMS:
        tell(form)
    stored = bytes_of_the_database()
    assert found_in(stored, ["planted 9182736455"]) != []
    assert found_in(stored, FORMS) == []
    assert found_in("\n".join(log).encode(), FORMS) == []


@pytest.mark.parametrize("order", ["as told", "the other way round"])
def test_no_part_of_a_card_number_told_in_several_finals_is_left(order: str) -> None:
    for parts in HALVES:
        call, ms = a_live_call(), next(_clock)
        told = [(part, ms + 6000 * place) for place, part in enumerate(parts)]
        for part, moment in told if order == "as told" else told[::-1]:
            final(call, part, moment)
            final(call, "Okay, go on.", moment + 2000, "assistant")
        assert all(CARD in line for line in said(call, role="user")), said(call)
    stored = bytes_of_the_database()
    for parts in HALVES:
        assert found_in(stored, [part for part in parts if len(part) > 12]) == []


def test_what_was_heard_of_a_line_is_rewritten_with_it() -> None:
    call, now = a_live_call(), timezone.now()
    line = {"call": call, "vapi_call_id": f"v-{call.call_sid}", "role": "assistant", "n": 0}
    ms = next(_clock)
    TranscriptLine.objects.create(
        **line, said="I have 4539 1488, is", heard="part", heard_text="I have 4539", vendor_ms=ms, text_hash="a", at=now
    )
    TranscriptLine.objects.create(**line, said="So 4539 1488", heard="part", heard_text="So 4539", vendor_ms=ms + 1, text_hash="b", at=now)
    final(call, "0343 6467, right?", ms + 3000, "assistant")
    heard = list(TranscriptLine.objects.filter(call=call, role="assistant").values_list("said", "heard_text"))
    assert heard == [("I have 4539 1488, is", "I have 4539"), (f"So {CARD}", f"So {CARD}"), (f"{CARD}, right?", "")]


def test_the_same_final_told_again_is_one_row_also_after_it_was_rewritten() -> None:
    call, ms = a_live_call(), next(_clock)
    final(call, "4539 1488", ms)
    final(call, "0343 6467", ms + 3000)
    post(call, "transcript", transcriptType="final", role="user", transcript="4539 1488", timestamp=ms, again=True)
    for pk in InboxMessage.objects.filter(call=call).values_list("pk", flat=True):
        assert inbox.again(pk, timezone.now())
    assert said(call) == [CARD, CARD]
    assert [event.detail["text"] for event in CallEvent.objects.filter(call=call, kind="transcript-final", source="vapi")] == [CARD, CARD]
    assert "4539" not in json.dumps(list(InboxMessage.objects.filter(call=call, body__again=None).values_list("body", flat=True)))


def test_partials_hold_no_number_neither_whole_nor_while_it_grows() -> None:
    ledger = DatabaseLedger(token_key=b"k" * 32, client=FakeVapi(), deadline_s=5.0)
    call = a_live_call()
    ref = CallRef(call_sid=call.call_sid, epoch=0, short_id=call.short_id)
    signs = "it is 4539 1488 0343 6467"
    for end in range(1, len(signs) + 1):
        ledger.note(ref, Note("transcript-partial", "vapi", time.time(), time.monotonic(), {"role": "user", "text": signs[:end]}))
    ledger.close()
    texts = [event.detail["text"] for event in CallEvent.objects.filter(call=call, kind="transcript-partial")]
    assert len(texts) == len(signs)
    assert texts[-1] == f"it is {CARD}"
    assert max(sum(map(str.isdigit, text)) for text in texts) == 4
    assert found_in(bytes_of_the_database(), ["4539 1488", "4539 14"]) == []


@pytest.mark.parametrize("finals_first", [True, False])
@pytest.mark.parametrize(
    ("finals", "turns"),
    [
        (["My card is 4539 1488 0343 6467, thanks."], ["My card is 4539 1488", "0343 6467, thanks."]),
        (["My card is 4539 1488", "0343 6467, thanks."], ["My card is 4539 1488 0343 6467, thanks."]),
        (["My card is four five three nine", "1488", "0343 6467"], ["My card is 4539", "1488 0343", "six four six seven"]),
        (["4539 1488 0343 6467", "I am Ann."], ["four five three nine one four double eight 0343 6467. I am", "Ann."]),
    ],
)
def test_the_report_doubles_and_loses_no_line_of_a_number_told_otherwise(finals: list[str], turns: list[str], finals_first: bool) -> None:
    call, ms = a_live_call(), next(_clock)

    def tell_finals() -> None:
        for place, text in enumerate(finals):
            final(call, text, ms + 3000 * place)

    def report() -> None:
        messages = [{"role": "user", "message": text, "time": ms + 3000 * place, "duration": 900} for place, text in enumerate(turns)]
        post(call, "end-of-call-report", endedReason="hangup", artifact={"messages": messages})

    deeds: list[Callable[[], None]] = [tell_finals, report]
    for deed in deeds if finals_first else deeds[::-1]:
        deed()
    assert said(call, from_report=True, retold=False) == []
    assert len(said(call, from_report=False)) == len(finals)


def test_a_card_that_only_the_report_tells_of_is_one_line_with_a_mark() -> None:
    call, ms = a_live_call(), next(_clock)
    final(call, "Hello.", ms)
    messages = [
        {"role": "user", "message": text, "time": ms + 3000 * place}
        for place, text in enumerate(["Hello.", "My card is 4539 1488", "0343 6467"])
    ]
    post(call, "end-of-call-report", endedReason="hangup", artifact={"messages": messages})
    assert said(call) == ["Hello.", f"My card is {CARD}"]
    assert found_in(bytes_of_the_database(), ["4539 1488", "0343 6467"]) == []


@pytest.mark.parametrize("turned", [False, True])
def test_a_turn_told_again_and_longer_stands_once(turned: bool) -> None:
    call, ms = a_live_call(), next(_clock)
    told = list(enumerate(["my card is", "my card is 45", "my card is 4539 1488", "my card is 4539 1488 0343 6467", "thanks"]))
    for place, text in told[::-1] if turned else told:
        final(call, text, ms + 700 * place)
    assert said(call, retold=False) == [f"my card is {CARD}", "thanks"]
    assert found_in(bytes_of_the_database(), ["4539 1488"]) == []


def test_texts_that_only_look_like_a_card_number_are_stored_whole() -> None:
    for text in INNOCENT:
        call = a_live_call()
        final(call, text, next(_clock))
        assert said(call) == [text]


# -- whose rules -----------------------------------------------------------------------------------------------------------

TOLD = "4539 1488 0343 6467 and alex at example dot com and 415 555 0100 and CUST-123456"


@pytest.mark.parametrize(
    ("rules", "stored"),
    [
        ({}, f"{CARD} and alex at example dot com and 415 555 0100 and CUST-123456"),
        ({"redact_cards": False}, TOLD),
        ({"redact_cards": False, "redact_phones": True}, f"{PHONE} and alex at example dot com and {PHONE} and CUST-123456"),
        (
            {"redact_emails": True, "redact_phones": True, "redact_patterns": ["CUST-[0-9]+"]},
            f"{CARD} and {EMAIL} and {PHONE} and {LEFT_OUT}",
        ),
    ],
)
def test_the_rules_of_a_call_are_those_of_its_version(rules: dict[str, Any], stored: str) -> None:
    call = a_live_call(**rules)
    final(call, TOLD, next(_clock))
    assert said(call) == [stored]
    assert InboxMessage.objects.get(call=call).body["transcript"] == stored
    assert [event.detail["text"] for event in CallEvent.objects.filter(call=call, kind="transcript-final", source="vapi")] == [stored]


def test_a_call_without_a_version_has_the_usual_rules() -> None:
    call = a_live_call()
    CallSession.objects.filter(pk=call.pk).update(version=None)
    final(call, TOLD, next(_clock))
    assert said(call) == [TOLD.replace("4539 1488 0343 6467", CARD)]


def test_a_message_that_came_before_its_session_was_known_is_stored_by_the_rules_of_its_call() -> None:
    call = a_live_call(redact_emails=True)
    VapiSession.objects.filter(call=call).update(vapi_call_id=None)
    vendors = {"id": "v-late", "name": f"{call.call_sid}.0"}
    told = {"type": "transcript", "transcriptType": "final", "role": "user", "transcript": "alex@example.org", "call": vendors}
    stranger = vapi_events.read(json.dumps({"message": told}).encode())
    row = inbox.keep(stranger, session=None, at=timezone.now())
    assert row is not None
    assert row.body["transcript"] == "alex@example.org"
    VapiSession.objects.filter(call=call).update(vapi_call_id="v-late")
    assert inbox.process(pk=row.pk, at=timezone.now())
    row.refresh_from_db()
    assert row.body["transcript"] == EMAIL
    assert said(call) == [EMAIL]


def test_rules_are_read_once_and_a_pattern_nobody_may_write_leaves_nothing_out(log: list[str]) -> None:
    version = a_version(redact_patterns=["(?=a)", "b"])
    with CaptureQueriesContext(connection) as asked:
        assert discretion.rules_of(version.pk).patterns == ("b",)
        assert discretion.rules_of(version.pk) is discretion.rules_of(version.pk)
    assert len(asked) == 1
    assert sum("cannot be run" in line for line in log) == 1


def test_a_line_in_which_nothing_looks_like_a_number_costs_no_statement_more() -> None:
    """And one that could be a part of a number costs one."""

    def statements(text: str) -> list[str]:
        call = a_live_call()
        discretion.rules_of(call.version_id)
        vendors = {"id": f"v-{call.call_sid}", "name": f"{call.call_sid}.0"}
        told = {"type": "transcript", "transcriptType": "final", "role": "user", "transcript": text, "call": vendors, "timestamp": START}
        message = vapi_events.read(json.dumps({"message": told}).encode())
        with CaptureQueriesContext(connection) as asked:
            intake.take_all([message])
        return [query["sql"] for query in asked]

    usual = len(statements("I cannot log in."))
    assert len(statements("I have two questions about room 12 upstairs.")) == usual
    assert len(statements("It is 4539 1488")) == usual + 1
    version = TemplateVersion.objects.first()
    assert version is not None
    assert not any("agents_templateversion" in sql for sql in statements("I cannot log in."))


# -- keys, tools, exports, logs --------------------------------------------------------------------------------------------


def test_keys_that_were_pressed_are_in_no_row_and_no_log_line(client: Client, settings: Settings, log: list[str]) -> None:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS = doors.PUBLIC_URL, [doors.TOKEN]
    call = a_live_call(redact_cards=False)
    for path in (f"/webhook/twilio/callback/{call.epoch}", f"/webhook/twilio/resume/{call.epoch}", "/webhook/twilio/status"):
        doors.knock(client, path, doors.incoming(call.call_sid, Digits="73519", CallStatus="in-progress"))
    post(call, "dtmf", digits="73519", dtmf={"digit": "73519"}, text="Keypad entry: 73519#")
    post(call, "transcript", transcriptType="final", role="user", transcript="User's Keypad Entry: 73519", timestamp=START)
    assert said(call) == [f"User's Keypad Entry: {LEFT_OUT}"]
    assert b"73519" not in bytes_of_the_database()
    assert not any("73519" in line for line in log)


def test_a_tool_is_given_what_was_said_and_only_its_log_is_without_it() -> None:
    call = a_live_call(redact_emails=True)
    post(call, "tool-calls", toolCallList=[{"id": "t-1", "name": "4539148803436467", "parameters": {"email": "alex@example.org"}}])
    run = ToolRun.objects.get(call=call)
    assert (run.name, run.arguments) == (CARD, {"email": EMAIL})


def test_an_export_leaves_out_what_older_rows_hold() -> None:
    call = a_live_call(redact_emails=True)
    line = {"call": call, "vapi_call_id": "v", "role": "user", "at": timezone.now()}
    for place, text in enumerate(["4539 1488", "0343 6467", "alex@example.org"]):
        TranscriptLine.objects.create(**line, said=text, vendor_ms=place, text_hash=str(place))
    CallEvent.objects.create(call=call, seq=99, source="vapi", kind="x", at=timezone.now(), ms=1, detail={"text": "4539148803436467"})
    [told] = export.told(export.calls(call_sid=call.call_sid))
    assert [each["text"] for each in told["lines"] if each["role"] == "user"] == [CARD, CARD, EMAIL]
    assert told["events"][-1]["detail"] == {"text": CARD}


def test_a_note_of_a_colleague_is_a_text_like_any_other() -> None:
    callback = a_callback(a_live_call(), due_in=timedelta(hours=1))
    assert callbacks.done(pk=callback.pk, by="ann", note="paid with 4539 1488 0343 6467", at=timezone.now())
    assert CallbackRequest.objects.get().note == f"paid with {CARD}"


@pytest.mark.parametrize("form", ["4539148803436467", "4539 1488 0343 6467"])
def test_a_log_line_that_should_never_have_been_written_holds_no_card_either(form: str) -> None:
    record = logging.LogRecord("x", logging.INFO, __file__, 1, f"It is {form}", (), None)
    record.said, record.count = form, 12
    line = FieldsFormatter().format(record)
    assert form not in line
    assert line.endswith(f'It is {CARD} said="{CARD}" count=12')


def test_what_is_deleted_is_overwritten_in_the_file() -> None:
    call = a_live_call()
    final(call, "a word that nobody else says: xylophonist", next(_clock))
    assert b"xylophonist" in bytes_of_the_database()
    session_of(call).call.delete()
    assert b"xylophonist" not in bytes_of_the_database()
