"""An end-of-call report in the rows: merged once however often and when it comes, and processed again without a trace."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.forms.models import model_to_dict
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from calls import inbox, reports, services, sessions, tasks, vapi_report
from calls.models import CallEvent, CallSession, EndReason, InboxMessage, Report, Status, TranscriptLine, VapiReport, VapiSession, VapiState
from calls.vapi_events import BODY_LIMIT
from tests.builders import QuietPublisher, a_body, a_call, at_once, session_of
from tests.calls.doors import SECRET, WIRE

pytestmark = pytest.mark.django_db(transaction=True)

START = 1_795_342_801_200
VAPI_ID = "019a9b1c-7f2e-7c33-9d41-2b6f0c5e8a77"


@pytest.fixture(autouse=True)
def configured(settings: Settings) -> None:
    settings.VAPI_WEBHOOK_SECRETS = [SECRET]


@pytest.fixture
def call() -> CallSession:
    opened = a_call(status=Status.STREAMING, stream_epoch=0)
    VapiSession.objects.update(state=VapiState.LIVE, vapi_call_id=VAPI_ID, live_at=timezone.now())
    return opened


def post(message: Mapping[str, Any]) -> int:
    body = json.dumps({"message": {"call": {"id": VAPI_ID}, **message}})
    answer = Client().post("/webhook/vapi", data=body, content_type="application/json", headers={"X-Vapi-Secret": SECRET})
    return answer.status_code


def wire_report(**changes: Any) -> dict[str, Any]:
    message: dict[str, Any] = json.loads((WIRE / "vapi" / "webhooks" / "end-of-call-report.json").read_text())["message"]
    return message | changes


def final(text: str, ms: int, role: str = "user") -> dict[str, Any]:
    return {"type": "transcript", "transcriptType": "final", "role": role, "transcript": text, "timestamp": ms}


def spoken(call: CallSession) -> list[tuple[str, bool]]:
    return list(call.lines.exclude(role="system").values_list("said", "from_report"))


def everything() -> list[Any]:
    """Every row of the history, but for when a body was processed."""
    models = (CallSession, VapiSession, TranscriptLine, VapiReport, CallEvent)
    return [[model_to_dict(row) for row in model._default_manager.order_by("pk")] for model in models]


# -- the words -------------------------------------------------------------------------------------------------------------


def test_a_report_alone_tells_the_whole_conversation(call: CallSession) -> None:
    assert post(wire_report()) == 200
    assert spoken(call) == [
        ("Hi, this is the TechFlow support assistant. How can I help?", True),
        ("I cannot log in after turning on single sign on.", True),
        ("I see SSO was switched on today. Let me bring in a specialist.", True),
    ]
    assert VapiReport.objects.get().lines_added == 3
    assert call.events.get(kind="report-merged").detail == {"n": 0, "lines": 3}


def test_a_final_that_is_later_than_the_report_takes_the_place_of_what_the_report_told(call: CallSession) -> None:
    post(wire_report())
    post(final("I cannot log in", 1_795_342_807_400))
    assert [text for text, _ in spoken(call)][1:3] == ["I cannot log in", "after turning on single sign on."]
    post(final("after turning on single sign on.", 1_795_342_808_900))
    assert spoken(call)[1:3] == [("I cannot log in", False), ("after turning on single sign on.", False)]
    assert VapiReport.objects.get().lines_added == 2
    assert TranscriptLine.everything.filter(from_report=True, retold=True).count() == 2


def test_finals_in_pieces_and_a_report_in_turns_are_one_conversation(call: CallSession) -> None:
    told = [
        final("Hi, this is the TechFlow support assistant. How can I help?", 1_795_342_804_600, "assistant"),
        final("I cannot log in", 1_795_342_807_400),
        final("after turning on", 1_795_342_808_200),
        final("single sign on", 1_795_342_809_000),
    ]
    for message in told:
        post(message)
    post(wire_report())
    assert [text for text, from_report in spoken(call) if from_report] == ["I see SSO was switched on today. Let me bring in a specialist."]
    assert [text for text, _ in spoken(call)][:4] == [message["transcript"] for message in told]


# -- the figures -----------------------------------------------------------------------------------------------------------


def test_what_a_report_says_beside_its_words_is_kept_and_no_address_of_a_recording_is(call: CallSession) -> None:
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    post(wire_report())
    report = VapiReport.objects.get()
    assert report.summary == "Caller lost access after enabling SSO; escalated to technical support."
    assert report.structured["Support ticket"] == {"topic": "sso", "resolved": False}
    assert report.artifacts["recording"] is True
    assert (report.latencies["turn"], report.costs["vapi"], session_of(call).cost_usd) == (1480, 0.035, Decimal("0.0571"))
    call.refresh_from_db()
    assert (call.status, call.report, call.metrics.cost_usd) == (Status.FINALISED, Report.MERGED, Decimal("0.0571"))
    stored = json.dumps([everything(), list(InboxMessage.objects.values())], default=str)
    for canary in ("storage.example", "presigned_", "sig=abc", "You are the phone support agent", "https://"):
        assert canary not in stored


# -- again and again -------------------------------------------------------------------------------------------------------


def test_a_hundred_reports_at_once_are_one(call: CallSession) -> None:
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)

    def some() -> list[int]:
        answers = [post(wire_report()) for _ in range(20)]
        return [status if status == 200 else post(wire_report()) for status in answers]  # told to send again, Vapi does

    assert {status for each in at_once([some] * 5) for status in each} == {200}
    for pk in inbox.inbox_to_do(now=timezone.now() + inbox.PATIENCE * 2):  # a busy database may have put it off
        assert inbox.reprocess(pk=pk, at=timezone.now())
    assert (InboxMessage.objects.count(), VapiReport.objects.count(), len(spoken(call))) == (1, 1, 3)
    assert call.events.filter(kind="report-merged").count() == 1
    call.refresh_from_db()
    assert (call.status, call.report) == (Status.FINALISED, Report.MERGED)


def test_a_stored_message_processed_again_changes_nothing(call: CallSession) -> None:
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    for message in (
        final("I cannot log in", 1_795_342_807_400),
        wire_report(),
        {"type": "status-update", "status": "ended", "endedReason": "x"},
    ):
        post(message)
    before = everything()
    rows = list(InboxMessage.objects.values_list("pk", flat=True))
    assert at_once([partial(inbox.again, pk, timezone.now()) for pk in rows * 2]) == [True] * 6
    assert everything() == before
    assert not InboxMessage.objects.filter(processed_at=None).exists()


def test_a_message_that_could_not_be_processed_is_mended_by_processing_it_again(call: CallSession) -> None:
    VapiSession.objects.update(vapi_call_id=None)
    post(final("I cannot log in", 1_795_342_807_400))
    row = InboxMessage.objects.get()
    assert not inbox.again(row.pk, timezone.now())
    assert inbox.again(row.pk, timezone.now() + inbox.GIVE_UP * 2)
    row.refresh_from_db()
    assert row.problem == "It belongs to no session of ours."
    VapiSession.objects.update(vapi_call_id=VAPI_ID)
    assert inbox.again(row.pk, timezone.now())
    row.refresh_from_db()
    assert (row.problem, row.call_id, spoken(call)) == ("", call.pk, [("I cannot log in", False)])


def test_what_is_not_there_or_not_vapis_is_not_processed_again() -> None:
    row = a_body(source="twilio", key="k", kind="status", body={}, vapi_call_id="", at=timezone.now())
    assert not inbox.again(row.pk, timezone.now())
    assert not inbox.again(0, timezone.now())


def test_strangers_messages_hold_up_nobody(call: CallSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "BATCH", 3)
    for number in range(10):
        post(final("hello", START + number) | {"call": {"id": "a stranger's"}})
    VapiSession.objects.update(vapi_call_id=None)
    post(final("I cannot log in", START))
    VapiSession.objects.update(vapi_call_id=VAPI_ID)
    waiting = list(inbox.inbox_to_do(now=timezone.now() + inbox.PATIENCE * 2))
    assert len(waiting) == len(set(waiting)) == 11
    assert [inbox.reprocess(pk=pk, at=timezone.now()) for pk in waiting].count(True) == 1
    assert spoken(call) == [("I cannot log in", False)]


# -- size ------------------------------------------------------------------------------------------------------------------


def long_report(**changes: Any) -> dict[str, Any]:
    return wire_report(padding="x" * BODY_LIMIT, **changes)


def left_to_a_worker(published: QuietPublisher) -> list[int]:
    return [args[0] for name, args in published.tasks if name == "calls.tasks.process_message"]


def test_a_long_report_is_stored_and_answered_and_merged_by_a_worker(call: CallSession, published: QuietPublisher) -> None:
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    assert [post(long_report()) for _ in range(2)] == [200, 200]
    row = InboxMessage.objects.get()
    assert left_to_a_worker(published) == [row.pk]
    assert (row.processed_at, spoken(call), VapiReport.objects.count()) == (None, [], 0)
    tasks.process_message(row.pk)
    call.refresh_from_db()
    assert (len(spoken(call)), call.status, call.report) == (3, Status.FINALISED, Report.MERGED)
    before = everything()
    tasks.process_message(row.pk)
    assert everything() == before


def test_a_long_report_whose_task_the_broker_lost_is_merged_from_the_inbox(call: CallSession) -> None:
    post(long_report())
    tasks.reprocess_inbox()
    assert not VapiReport.objects.exists(), "a worker is given a moment to do it itself"
    InboxMessage.objects.update(received_at=timezone.now() - inbox.PATIENCE * 2)
    tasks.reprocess_inbox()
    assert (len(spoken(call)), VapiReport.objects.get().lines_added) == (3, 3)
    assert InboxMessage.objects.filter(processed_at=None).count() == 0


def test_a_long_report_that_the_task_and_the_schedule_merge_at_the_same_moment_is_one(call: CallSession) -> None:
    post(long_report())
    pk = InboxMessage.objects.get().pk
    jobs: list[Callable[[], object]] = [partial(tasks.process_message, pk), partial(inbox.reprocess, pk=pk, at=timezone.now())]
    at_once(jobs * 2)
    tasks.process_message(pk)  # a busy database may have put all of them off
    assert (len(spoken(call)), call.events.filter(kind="report-merged").count()) == (3, 1)


def test_a_task_that_fails_leaves_the_report_to_the_schedule(call: CallSession, monkeypatch: pytest.MonkeyPatch) -> None:
    post(long_report())
    pk = InboxMessage.objects.get().pk
    with monkeypatch.context() as broken:
        broken.setattr(vapi_report, "missing", lambda told, said: 1 / 0)
        tasks.process_message(pk)
    assert InboxMessage.objects.filter(processed_at=None, problem="").exists()
    assert inbox.reprocess(pk=pk, at=timezone.now())
    assert len(spoken(call)) == 3


def test_a_late_line_of_a_long_call_is_compared_by_a_worker(
    call: CallSession, published: QuietPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "LONG", 3)
    for text, is_left in (("I cannot log in", False), ("after turning on", True)):
        post(wire_report())  # three lines, four as soon as one of them is told in two pieces
        published.items.clear()
        assert post(final(text, 1_795_342_807_400)) == 200
        assert bool(left_to_a_worker(published)) is is_left
    assert "after turning on" not in dict(spoken(call))
    tasks.process_message(*left_to_a_worker(published))
    assert dict(spoken(call))["after turning on"] is False


@pytest.mark.long
def test_a_report_of_five_megabytes_is_stored_in_a_moment_and_merged_in_a_few(call: CallSession, published: QuietPublisher) -> None:
    """20,000 turns, which the vendor tells twice over, and the finals of all but a few."""
    turns = [
        {
            "role": ("user", "bot")[number % 2],
            "message": f"This is what was said as number {number} of it.",
            "time": START + number * 3000,
            "endTime": START + number * 3000 + 2700,
        }
        for number in range(20_000)
    ]
    lost = {5, 10_000, 19_998}
    roles = {"user": "user", "bot": "assistant"}
    TranscriptLine.objects.bulk_create(
        TranscriptLine(
            call=call,
            vapi_call_id=VAPI_ID,
            role=roles[str(turn["role"])],
            said=str(turn["message"]),
            vendor_ms=int(turn["endTime"]),
            text_hash=str(number),
            at=timezone.now(),
        )
        for number, turn in enumerate(turns)
        if number not in lost
    )
    report = wire_report(artifact={"messages": turns}, messages=turns)
    assert 4_500_000 < len(json.dumps(report)) < 8_000_000
    started = time.thread_time()  # of this thread alone: others are busy too
    assert post(report) == 200
    stored = time.thread_time()
    assert stored - started < 3  # it takes half a second
    tasks.process_message(*left_to_a_worker(published))
    assert time.thread_time() - stored < 8  # it takes three, during which nobody waits
    assert [turn for turn, from_report in spoken(call) if from_report] == [turns[number]["message"] for number in sorted(lost)]
    assert sessions.open_sessions(call_sid=call.call_sid) == []
