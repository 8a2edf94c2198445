"""What is erased is gone: from the rows, the file, its log and both vendors, and it does not come back with late news."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from agents import lines
from agents.models import AuditEntry, PhoneLine
from bridge.ports import Closing
from calls import erasure, evidence, person, reports, services, sessions, unsaid, vendor_erasures
from calls.history import NewEvent, add_line, record_events
from calls.keeping import ALL
from calls.models import (
    CallbackRequest,
    CallEvent,
    CallSession,
    EndReason,
    ErasedWhy,
    InboxMessage,
    OutboxCommand,
    Outcome,
    Recording,
    Status,
    ToolRun,
    TranscriptLine,
    VapiReport,
    VapiSession,
    VapiState,
    VendorErasure,
)
from supportvoice.logs import FieldsFormatter
from tests.builders import a_call, a_message, a_recording, at_once
from tests.calls import doors
from tests.calls.doors import ACCOUNT_SID, CALL_SID, NUMBER, PUBLIC_URL, SECRET, TOKEN, a_line, incoming, knock
from tests.calls.vendors import both
from tests.on_disk import bytes_of_the_database

pytestmark = pytest.mark.django_db(transaction=True)

CALLER = "+14155557331"
NAME = "Quimby Featherstonehaugh"
SENTENCES = (
    "my cat swallowed the blue router",
    "the invoice of Zanzibar is wrong",
    "please ring my sister Wilhelmina",
    "a late word on Xylophones",
)
VAPI_ID = "019a9b1c-7f2e-7c33-9d41-2b6f0c5e8a77"
RECORDING = "RE" + "d" * 32
DOOR = "/webhook/twilio"
SECRETS = (CALLER, CALLER[1:], *NAME.split(), *SENTENCES, "Xylophones")


@pytest.fixture(autouse=True)
def configured(settings: Settings) -> Iterator[None]:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS, settings.SECRET_KEY = PUBLIC_URL, [TOKEN], "tests"
    settings.VAPI_WEBHOOK_SECRETS, settings.VAPI_API_KEY, settings.TWILIO_ACCOUNT_SID = [SECRET], "", ""
    settings.RETENTION_DAYS = 90
    lines.forget()
    with doors.remembering():
        yield


@pytest.fixture
def written() -> Iterator[StringIO]:
    """Every line that is logged, as it is printed."""
    said = StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(FieldsFormatter())
    logging.getLogger().addHandler(handler)
    yield said
    logging.getLogger().removeHandler(handler)


class Talk:
    """A call through the real doors, with a caller who says distinctive things."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ms = 1_790_000_000_000

    def rings(self) -> CallSession:
        assert knock(self._client, DOOR, incoming(CALL_SID, From=CALLER, AccountSid=ACCOUNT_SID)).status_code == 200
        VapiSession.objects.update(state=VapiState.LIVE, vapi_call_id=VAPI_ID, live_at=timezone.now())
        return CallSession.objects.get()

    def vapi(self, kind: str, **fields: Any) -> None:
        self._ms += 5000
        about = {"id": VAPI_ID, "name": f"{CALL_SID}.0", "customer": {"number": CALLER}}
        body = json.dumps({"message": {"type": kind, "timestamp": self._ms, "call": about, **fields}})
        answer = self._client.post("/webhook/vapi", data=body, content_type="application/json", headers={"X-Vapi-Secret": SECRET})
        assert answer.status_code == 200

    def says(self, text: str, role: str = "user") -> None:
        self.vapi("transcript", role=role, transcriptType="final", transcript=text)

    def asks_tool(self, tool: str, id: str, **arguments: str) -> None:
        self.vapi("tool-calls", toolCallList=[{"id": id, "function": {"name": tool, "arguments": arguments}}])

    def reports(self) -> None:
        told = [{"role": "user", "message": text, "time": self._ms, "endTime": self._ms + 900} for text in (*SENTENCES, f"I am {NAME}")]
        analysis = {"summary": f"{NAME} called about {SENTENCES[0]}", "structuredData": {"name": NAME, "number": CALLER}}
        self.vapi("end-of-call-report", endedReason="customer-ended-call", cost=0.12, analysis=analysis, artifact={"messages": told})

    def recorded(self, status: str = "completed") -> None:
        form = {"CallSid": CALL_SID, "AccountSid": ACCOUNT_SID, "RecordingSid": RECORDING, "RecordingStatus": status}
        assert knock(self._client, f"{DOOR}/recording/call", {**form, "RecordingDuration": "30"}).status_code == 200

    def hangs_up(self) -> None:
        form = {"CallSid": CALL_SID, "AccountSid": ACCOUNT_SID, "From": CALLER, "Caller": CALLER, "To": NUMBER, "CallStatus": "completed"}
        assert knock(self._client, f"{DOOR}/status", form).status_code == 200


@pytest.fixture
def talk(client: Client) -> Talk:
    a_line(record_calls=True)
    return Talk(client)


def hits(*places: bytes) -> dict[str, int]:
    found = {secret: sum(place.count(secret.encode()) for place in places) for secret in SECRETS}
    return {secret: count for secret, count in found.items() if count}


def test_not_a_byte_is_left_when_somebody_is_erased_in_the_middle_of_their_call(talk: Talk, written: StringIO) -> None:
    with both() as vendors:
        call = talk.rings()
        vendors.knows_call(VAPI_ID, f"{CALL_SID}.0")
        vendors.knows_recording(CALL_SID, RECORDING)
        talk.recorded("in-progress")
        for text in SENTENCES[:2]:
            talk.says(text)
        talk.asks_tool("transfer_to_human", "tc-1", reason=f"{NAME} wants a person", summary=SENTENCES[2])
        assert set(hits(bytes_of_the_database())) >= {CALLER, NAME.split()[1], SENTENCES[0], SENTENCES[2]}

        done = person.erase(CALLER, by="ada", at=timezone.now())
        assert (done.gone.calls, done.unsettled) == (1, 1)
        assert erasure.leave_no_trace()
        assert hits(bytes_of_the_database()) == {}

        talk.says(SENTENCES[3])
        talk.asks_tool("transfer_to_human", "tc-2", reason=f"{NAME} wants a person", summary=SENTENCES[2])
        talk.hangs_up()
        talk.recorded()
        talk.reports()
        talk.says(SENTENCES[1])
        assert sessions.finalise(call_sid=CALL_SID) is False, "the report has closed the books"
        assert vendor_erasures.ask(vendors=vendors.ours, now=timezone.now()).gone == 2
        assert erasure.leave_no_trace()
        assert hits(bytes_of_the_database(), written.getvalue().encode()) == {}
        assert vendors.vapi.vapi.erased == [VAPI_ID]
        assert vendors.twilio.deleted == [RECORDING]
    call.refresh_from_db()
    assert (call.status, call.erased_why, call.from_number, call.to_number) == (Status.FINALISED, ErasedWhy.REQUEST, "", NUMBER)
    assert CallSession.objects.count() == 1, "no ghost came with the late news"
    assert call.metrics.cost_usd is not None
    assert not TranscriptLine.everything.exists()


def test_late_news_of_an_erased_call_are_kept_without_words_and_move_it_on(talk: Talk) -> None:
    call = talk.rings()
    person.erase(CALLER, by="", at=timezone.now())
    talk.says(SENTENCES[0])
    assert not CallEvent.objects.filter(call=call, kind="transcript-final", source="vapi").exists()
    assert InboxMessage.objects.get().body["transcript"] == ""
    talk.hangs_up()
    talk.reports()
    report = VapiReport.objects.get()
    assert (report.summary, report.structured) == ("", {})
    call.refresh_from_db()
    assert (call.status, call.end_reason) == (Status.FINALISED, EndReason.CALLER_HUNG_UP)


def test_a_message_that_was_stored_and_not_yet_read_keeps_only_what_moves_the_call_on(talk: Talk) -> None:
    call = talk.rings()
    body = {"type": "transcript", "role": "user", "transcript": SENTENCES[0], "call": {"id": VAPI_ID, "name": f"{CALL_SID}.0"}}
    early = a_message(None, kind="transcript", body=body, vapi_call_id="an-id-nobody-told-us-yet")
    own = a_message(call, kind="tool-calls", body={"type": "tool-calls", "toolCallList": [{"a": NAME}]}, vapi_call_id=VAPI_ID)
    person.erase(CALLER, by="", at=timezone.now())
    for message in (early, own):
        message.refresh_from_db()
        assert NAME not in json.dumps(message.body)
        assert SENTENCES[0] not in json.dumps(message.body)
    assert early.body["call"]["name"] == f"{CALL_SID}.0"


def test_an_ending_stays_what_it_was_when_its_words_are_gone() -> None:
    call = a_call(status=Status.VOICEMAIL)
    a_recording(call)
    services.ask(call=call, key="dial:1", verb="dial", detail={"target": "tier2"}, at=timezone.now(), to="twilio")
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    erasure.wipe(pk=call.pk, parts=ALL, why=ErasedWhy.RETENTION, at=timezone.now())
    assert evidence.correct(call_sid=call.call_sid) is False
    call.refresh_from_db()
    assert call.outcome == Outcome.VOICEMAIL


def everything_said(call: CallSession) -> dict[str, Any]:
    return {
        "lines": TranscriptLine.everything.filter(call=call).count(),
        "numbers": CallSession.objects.get(pk=call.pk).from_number,
        "bodies": InboxMessage.objects.filter(call=call).count(),
        "sound": Recording.objects.filter(call=call, erased_at=None).count(),
        "tools": list(ToolRun.objects.filter(call=call).values_list("arguments", "result")),
    }


def an_old_call(days: float, **fields: Any) -> CallSession:
    """A settled call of so long ago, with something of everything."""
    at = timezone.now() - timedelta(days=days, minutes=10)
    call = a_call(at=at)
    TranscriptLine.objects.create(call=call, role="user", said=SENTENCES[0], text_hash="h", at=at)
    ToolRun.objects.create(
        call=call, tool_call_id=f"tc-{call.pk}", name="find", arguments={"name": NAME}, result=SENTENCES[1], started_at=at
    )
    a_recording(call)
    a_message(call, body={"type": "transcript", "transcript": SENTENCES[0]}, processed_at=at)
    CallbackRequest.objects.create(call=call, asked_at=at, due_at=at, note=NAME)
    ended = {"status": Status.FINALISED, "ended_at": at + timedelta(minutes=10), "end_reason": EndReason.CALLER_HUNG_UP}
    CallSession.objects.filter(pk=call.pk).update(**(ended | fields))
    call.refresh_from_db()
    return call


def test_nightly_what_was_kept_for_its_time_goes_and_what_was_not_stays() -> None:
    old, young = an_old_call(91), an_old_call(89)
    before = everything_said(young)
    gone, is_more = erasure.keep_time(now=timezone.now())
    assert (gone.calls, is_more) == (1, False)
    assert everything_said(old) == {"lines": 0, "numbers": "", "bodies": 0, "sound": 0, "tools": [({}, "")]}
    assert everything_said(young) == before
    old.refresh_from_db()
    assert old.erased_why == ErasedWhy.RETENTION
    assert old.callback.note == ""


def test_a_live_call_and_one_whose_report_is_to_come_are_never_touched(settings: Settings) -> None:
    settings.RETENTION_DAYS = 0
    live = an_old_call(400, status=Status.STREAMING, ended_at=None, end_reason="")
    waiting = an_old_call(0.001, status=Status.ENDED)
    before = everything_said(live), everything_said(waiting)
    erasure.keep_time(now=timezone.now())
    assert (everything_said(live), everything_said(waiting)) == before


def test_sound_and_bodies_go_earlier_where_the_line_says_so_and_the_text_stays() -> None:
    call = an_old_call(8)
    PhoneLine.objects.update(keep_sound_days=7, keep_bodies_days=1)
    erasure.keep_time(now=timezone.now())
    assert everything_said(call) | {"tools": 0} == {"lines": 2, "numbers": call.from_number, "bodies": 0, "sound": 0, "tools": 0}
    call.refresh_from_db()
    assert call.erased_at is None
    assert VendorErasure.objects.get().kind == VendorErasure.Kind.TWILIO_RECORDING


def test_two_looks_at_once_do_the_work_of_one_and_a_third_finds_nothing_to_do() -> None:
    for _ in range(3):
        an_old_call(91)
    now = timezone.now()
    at_once([lambda: erasure.keep_time(now=now)] * 2)
    assert VendorErasure.objects.count() == 3
    assert erasure.keep_time(now=now)[0] == erasure.Gone()


def test_a_long_backlog_is_worked_off_in_bounded_turns() -> None:
    for _ in range(5):
        an_old_call(91)
    assert [erasure.keep_time(now=timezone.now(), at_most=2)[0].calls for _ in range(3)] == [2, 2, 1]


def test_with_nothing_kept_a_call_is_erased_as_soon_as_its_books_are_closed_and_what_comes_later_too(
    talk: Talk, settings: Settings
) -> None:
    settings.RETENTION_DAYS = 0
    talk.rings()
    talk.says(SENTENCES[0])
    talk.hangs_up()
    assert SENTENCES[0] in bytes_of_the_database().decode(errors="ignore")
    talk.reports()
    talk.says(SENTENCES[3])
    assert erasure.leave_no_trace()
    assert hits(bytes_of_the_database()) == {}


def test_a_month_later_the_tombstone_loses_its_ids() -> None:
    call = an_old_call(91)
    erasure.keep_time(now=timezone.now())
    sid, later = call.call_sid, timezone.now() + timedelta(days=31)
    erasure.keep_time(now=timezone.now() + timedelta(days=29))
    call.refresh_from_db()
    assert call.call_sid == sid
    erasure.keep_time(now=later)
    call.refresh_from_db()
    assert call.call_sid.startswith("erased-")
    assert not Recording.objects.exclude(sid__startswith="erased-").exists()
    assert erasure.keep_time(now=later)[0] == erasure.Gone()


def test_old_messages_of_strangers_go_too() -> None:
    a_message(None, received_at=timezone.now() - timedelta(days=91))
    young = a_message(None)
    erasure.keep_time(now=timezone.now())
    assert list(InboxMessage.objects.all()) == [young]


# -- the vendors -------------------------------------------------------------------------------------------------------


def wanted(kind: VendorErasure.Kind, vendor_id: str) -> VendorErasure:
    vendor_erasures.want_gone(kind=kind, ids=[vendor_id], account_sid=ACCOUNT_SID, at=timezone.now())
    return VendorErasure.objects.get()


def test_a_vendor_that_cannot_delete_yet_is_asked_again_later_and_then_it_is_gone() -> None:
    with both() as vendors:
        vendors.knows_call(VAPI_ID, f"{CALL_SID}.0").faults.delete_refusals = 1
        row, now = wanted(VendorErasure.Kind.VAPI_CALL, VAPI_ID), timezone.now()
        assert vendor_erasures.ask(vendors=vendors.ours, now=now) == vendor_erasures.Asked(0, 1)
        row.refresh_from_db()
        assert (row.tries, row.done_at, row.problem) == (1, None, "Vapi is out of service.")
        assert not vendor_erasures.ask(vendors=vendors.ours, now=now), "not before its time"
        assert vendor_erasures.ask(vendors=vendors.ours, now=now + timedelta(minutes=2)).gone == 1
        assert vendors.vapi.vapi.erased == [VAPI_ID]


@pytest.mark.parametrize("kind", list(VendorErasure.Kind))
def test_what_a_vendor_does_not_know_counts_as_gone(kind: VendorErasure.Kind) -> None:
    with both() as vendors:
        wanted(kind, RECORDING)
        assert vendor_erasures.ask(vendors=vendors.ours, now=timezone.now()).gone == 1


def test_a_vendor_that_refuses_us_is_asked_once_a_day_for_as_long_as_it_takes() -> None:
    with both() as vendors:
        vendors.knows_call(VAPI_ID, f"{CALL_SID}.0")
        vendors.vapi.vapi.api_key = "another"
        row, now = wanted(VendorErasure.Kind.VAPI_CALL, VAPI_ID), timezone.now()
        for day in range(10):
            vendor_erasures.ask(vendors=vendors.ours, now=now + timedelta(days=day))
        row.refresh_from_db()
        assert (row.tries, row.problem) == (10, "Vapi refused with 401.")
        vendors.vapi.vapi.api_key = "vapi-key"
        assert vendor_erasures.ask(vendors=vendors.ours, now=now + timedelta(days=11)).gone == 1


def test_two_who_ask_at_once_share_the_work() -> None:
    with both() as vendors:
        for number in range(6):
            vendors.knows_call(f"id-{number}", f"{CALL_SID}.{number}")
        vendor_erasures.want_gone(kind=VendorErasure.Kind.VAPI_CALL, ids=[f"id-{number}" for number in range(6)], at=timezone.now())
        now = timezone.now()
        asked = at_once([lambda: vendor_erasures.ask(vendors=vendors.ours, now=now)] * 2)
        assert sum(each.gone for each in asked) == 6
        assert sorted(vendors.vapi.vapi.erased) == [f"id-{number}" for number in range(6)]


# -- by phone number ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", [CALLER, "0014155557331", "+1 (415) 555-7331", " +1.415.555.7331 "])
def test_a_number_is_found_however_it_is_typed(typed: str) -> None:
    assert person.normalised(typed) == CALLER


@pytest.mark.parametrize("stored", [CALLER, CALLER[1:], f"sip:{CALLER}@carrier.example"])
@pytest.mark.parametrize("field", ["from_number", "to_number"])
def test_calls_are_found_however_the_carrier_wrote_the_number_and_whoever_called(stored: str, field: str) -> None:
    call = a_call()
    CallSession.objects.filter(pk=call.pk).update(**{field: stored})
    a_call(from_number="+14155557332")
    assert list(person.calls_of(CALLER)) == [call]


@pytest.mark.parametrize("typed", ["", "anonymous", "+2", "+1415555733x", NUMBER])
def test_what_is_no_callers_number_is_refused_in_a_sentence_that_does_not_repeat_it(typed: str) -> None:
    a_line()
    with pytest.raises(CommandError) as refused:
        call_command("erase", typed)
    assert refused.value.returncode == 2
    assert not typed or typed not in str(refused.value)


def test_the_command_says_what_went_and_the_trail_knows_it_without_the_number() -> None:
    call = an_old_call(1, from_number=CALLER)
    said = StringIO()
    call_command("erase", CALLER, stdout=said)
    assert "Erased here: 1 call, 2 lines, 1 message, 1 recording." in said.getvalue()
    assert "Still to be deleted there: 1." in said.getvalue()
    assert "There is no account of this vendor in the settings." in said.getvalue()
    entry = AuditEntry.objects.get(action="erased")
    assert entry.detail["calls"] == 1
    assert not re.search(r"415555", json.dumps([entry.subject, entry.detail, entry.actor]))
    assert everything_said(call)["lines"] == 0


def test_a_dry_run_erases_nothing() -> None:
    call, said = an_old_call(1, from_number=CALLER), StringIO()
    before = everything_said(call)
    call_command("erase", CALLER, "--dry-run", stdout=said)
    assert "Would go: 1 call, 2 lines, 1 message, 1 recording." in said.getvalue()
    assert everything_said(call) == before


def test_a_copy_holds_everything_and_nothing_of_others() -> None:
    call = an_old_call(1, from_number=CALLER)
    an_old_call(1, from_number="+14155557332")
    said = StringIO()
    call_command("export_person", CALLER, stdout=said)
    [told] = map(json.loads, said.getvalue().splitlines())
    assert (told["call_sid"], told["from"]) == (call.call_sid, CALLER)
    assert [each["sid"] for each in told["recordings"]] == [call.recordings.get().sid]
    assert told["tools"][0]["result"] == SENTENCES[1]
    assert told["callback"]["note"] == NAME
    assert told["messages"][0]["body"]["transcript"] == SENTENCES[0]


def test_an_erasure_that_meets_a_writer_of_the_same_call_leaves_none_of_its_words() -> None:
    """Whoever is first, the other one comes after it: nobody's words slip in between."""
    from_then_on = [an_old_call(0, from_number=CALLER, status=Status.STREAMING, ended_at=None, end_reason="") for _ in range(4)]

    def write(call: CallSession) -> None:
        for number in range(8):
            said = {"role": "user", "text": f"{SENTENCES[0]} {number}"}
            record_events(call_sid=call.call_sid, events=[NewEvent("transcript-partial", "vapi", timezone.now(), said)])

    def erase() -> None:
        person.erase(CALLER, by="", at=timezone.now())

    jobs: list[Callable[[], None]] = [*(partial(write, call) for call in from_then_on), erase]
    at_once(jobs)
    assert CallEvent.objects.filter(kind="transcript-partial").count() == 32
    assert not CallEvent.objects.filter(detail__text__startswith=SENTENCES[0]).exists()


def test_words_of_ours_and_figures_stay_in_an_event_and_nothing_else() -> None:
    told = {
        "name": "find",
        "ms": 12,
        "result": NAME,
        "sent": {"to": "crm"},
        "figures": {"audio": {"clips": 3}},
        "reason": NAME,
        "x": [NAME],
    }
    assert unsaid.without_words(told) == {"name": "find", "ms": 12, "figures": {"audio": {"clips": 3}}}
    assert unsaid.without_words({"reason": "caller_hung_up", "raw": "completed"}) == {"reason": "caller_hung_up", "raw": "completed"}


def test_a_stream_that_closes_after_the_erasure_keeps_its_figures() -> None:
    call = a_call(from_number=CALLER, status=Status.STREAMING, stream_epoch=0)
    person.erase(CALLER, by="", at=timezone.now())
    closing = Closing("caller-left", figures={"interruptions": 2, "time_to_silence_ms": [120]})
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=closing, at=timezone.now())
    call.refresh_from_db()
    assert (call.metrics.interruptions, call.metrics.time_to_silence_ms) == (2, [120])
    assert not OutboxCommand.objects.filter(call=call, done_at=None).exclude(verb="stop-recording").exists()


def test_words_that_were_read_before_the_erasure_and_are_written_after_it_are_not_kept() -> None:
    call = a_call(from_number=CALLER, status=Status.STREAMING)
    VapiSession.objects.filter(call=call).update(vapi_call_id=VAPI_ID)
    session = VapiSession.objects.select_related("call").get(call=call)
    report = {"analysis": {"summary": SENTENCES[2]}, "artifact": {"messages": [{"role": "user", "message": SENTENCES[1], "time": 1}]}}
    person.erase(CALLER, by="", at=timezone.now())
    add_line(call=call, vapi_call_id=VAPI_ID, role="user", text=SENTENCES[0], vendor_ms=1, at=timezone.now(), n=0)
    reports.merge(session=session, report=report, at=timezone.now())
    assert not TranscriptLine.everything.exists()
    assert VapiReport.objects.get().summary == ""


def test_sqlite_is_told_to_overwrite_what_is_deleted() -> None:
    if connection.vendor == "sqlite":
        assert "secure_delete=ON" in connection.settings_dict["OPTIONS"]["init_command"]
