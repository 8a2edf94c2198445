"""Reports that never came are asked for, against the sandbox Vapi over HTTP: what it has is merged once, whatever else comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from celery import current_app
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings
from websockets.sync.client import connect

from agents import account
from bridge.errors import VapiRefused, VapiUnavailable
from bridge.sandbox.faults import NAMED
from calls import inbox, lost_reports, sessions, tasks
from calls.models import CallSession, EndReason, InboxMessage, Report, Status, VapiReport, VapiSession
from calls.services import end_call
from tests.builders import a_call, at_once, session_of
from tests.calls.doors import SECRET
from tests.calls.vapi_house import House, until, vapi_house

pytestmark = pytest.mark.django_db(transaction=True)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def house(settings: Settings) -> Iterator[House]:
    settings.VAPI_WEBHOOK_SECRETS = [SECRET]
    with vapi_house() as house:
        yield house


@pytest.fixture
def worker(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """Tasks run where they are enqueued."""
    monkeypatch.setattr(account, "client", lambda *_: house)
    current_app.conf.task_always_eager = True
    yield house
    current_app.conf.task_always_eager = False


def talked(house: House) -> CallSession:
    """A call that heard the agent's greeting, and is over here and there; no webhook told of it."""
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    house.faulty(call.call_sid, NAMED["lost-everything"].switches())
    assert sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=house)
    with connect(session_of(call).socket_url) as socket:
        while not is_final(socket.recv(timeout=10)):
            pass
        end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
        sessions.end_session(pk=session_of(call).pk, client=house, at=timezone.now())
    until(lambda: not house.vapi.open_calls())
    call.refresh_from_db()
    assert (call.status, spoken(call)) == (Status.ENDED, [])
    return call


def is_final(message: str | bytes) -> bool:
    told = json.loads(message) if isinstance(message, str) else {}
    return told.get("type") == "transcript" and told.get("transcriptType") == "final"


def spoken(call: CallSession) -> list[str]:
    return list(call.lines.exclude(role="system").values_list("said", flat=True))


def books(call: CallSession) -> tuple[str, str]:
    call.refresh_from_db()
    return call.status, call.report


def ended(call: CallSession) -> datetime:
    at = session_of(call).ended_at
    assert at is not None
    return at


def due(*, now: datetime) -> list[int]:
    return list(lost_reports.due(now=now))


def ago(call: CallSession, age: timedelta) -> None:
    """Let the call have ended that long ago."""
    CallSession.objects.filter(pk=call.pk).update(ended_at=timezone.now() - age)
    VapiSession.objects.filter(call=call).update(ended_at=timezone.now() - age)


def fetched(house: House, call: CallSession) -> bool:
    return lost_reports.fetch(vapi_session_pk=session_of(call).pk, client=house, at=timezone.now())


def vendors_own(house: House, call: CallSession, **changes: Any) -> int:
    """The report's webhook, after all."""
    (made,) = house.of(call.call_sid)
    message = {"type": "end-of-call-report", "endedReason": made.ended_reason, "call": {"id": made.id, "name": made.name}, **made.report}
    body = json.dumps({"message": message | changes})
    return Client().post("/webhook/vapi", data=body, content_type="application/json", headers={"X-Vapi-Secret": SECRET}).status_code


# -- the report is lost ------------------------------------------------------------------------------------------------


def test_a_lost_report_is_asked_for_and_merged_before_it_counts_as_missing(worker: House) -> None:
    call = talked(worker)
    ago(call, 3 * MINUTE)
    tasks.sweep()
    assert spoken(call) == ["Hello."]
    assert books(call) == (Status.FINALISED, Report.MERGED)
    report, session = VapiReport.objects.get(), session_of(call)
    assert (report.lines_added, report.artifacts["transcript"], bool(report.costs)) == (1, True, True)
    assert session.ended_reason == worker.of(call.call_sid)[0].ended_reason
    assert session.cost_usd is not None
    stored = json.dumps(list(InboxMessage.objects.values("body")))
    assert '"fetched": true' in stored
    for secret in ("http://", "ws://", SECRET, "X-Vapi-Secret", "You help."):
        assert secret not in stored


def test_it_is_asked_for_a_few_times_more_and_more_rarely_and_by_one_asker_each_time(house: House) -> None:
    call = talked(house)
    pk, over = session_of(call).pk, ended(call)
    a_second = timedelta(seconds=1)
    for wait in lost_reports.ASKED_AFTER:
        assert due(now=over + wait - a_second) == []
        askers = at_once([partial(due, now=over + wait + a_second)] * 3)
        assert [asked for found in askers for asked in found] == [pk]
    assert due(now=over + timedelta(hours=20)) == []


def test_a_house_that_was_away_for_hours_asks_once_a_look(house: House) -> None:
    call = talked(house)
    looks = [due(now=ended(call) + timedelta(hours=7)) for _ in range(5)]
    assert looks == [[session_of(call).pk]] * 4 + [[]]


def test_after_a_day_nobody_asks_and_not_for_hundreds_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    over = ended(talked(house))
    assert due(now=over + timedelta(days=2)) == []
    monkeypatch.setattr(lost_reports, "AT_ONCE", 0)
    assert due(now=over + 2 * MINUTE) == []
    monkeypatch.setattr(lost_reports, "AT_ONCE", 1)
    assert len(due(now=over + 2 * MINUTE)) == 1


def test_a_report_that_came_is_not_asked_for(house: House) -> None:
    call = talked(house)
    assert vendors_own(house, call) == 200
    assert due(now=ended(call) + 2 * MINUTE) == []
    assert not fetched(house, call)
    assert InboxMessage.objects.count() == 1


# -- and then it comes -------------------------------------------------------------------------------------------------


def test_the_vendors_own_report_is_merged_over_the_one_that_was_fetched_and_doubles_nothing(house: House) -> None:
    call = talked(house)
    assert fetched(house, call)
    assert vendors_own(house, call, analysis={"summary": "It was a greeting."}) == 200
    assert (spoken(call), VapiReport.objects.get().summary) == (["Hello."], "It was a greeting.")
    assert call.events.filter(kind="report-merged").count() == 1
    for row in InboxMessage.objects.all():
        assert inbox.again(row.pk, timezone.now())
    assert (spoken(call), VapiReport.objects.get().summary) == (["Hello."], "It was a greeting.")
    assert books(call) == (Status.FINALISED, Report.MERGED)


def test_both_at_the_same_moment_are_one_and_the_vendors_own_counts(house: House) -> None:
    call = talked(house)

    def ask() -> None:
        with suppress(OperationalError):  # a busy database: asked again another time
            fetched(house, call)

    def tell() -> None:
        until(lambda: vendors_own(house, call, analysis={"summary": "Its own."}) == 200)

    at_once([ask, tell] * 3)
    for pk in inbox.inbox_to_do(now=timezone.now() + MINUTE):  # a busy database may have put it off
        inbox.reprocess(pk=pk, at=timezone.now())
    assert (spoken(call), VapiReport.objects.get().summary) == (["Hello."], "Its own.")
    assert call.events.filter(kind="report-merged").count() == 1


def test_a_final_that_comes_after_a_fetched_report_takes_the_place_of_its_words(house: House) -> None:
    call = talked(house)
    fetched(house, call)
    (made,) = house.of(call.call_sid)
    final = {"type": "transcript", "transcriptType": "final", "role": "assistant", "transcript": "Hello.", "call": {"id": made.id}}
    body = json.dumps({"message": final | {"timestamp": made.report["messages"][-1]["endTime"]}})
    Client().post("/webhook/vapi", data=body, content_type="application/json", headers={"X-Vapi-Secret": SECRET})
    assert list(call.lines.exclude(role="system").values_list("said", "from_report")) == [("Hello.", False)]


# -- Vapi has none, or is away -----------------------------------------------------------------------------------------


def test_a_call_that_is_not_over_at_vapi_and_one_it_does_not_know_have_no_report_yet(house: House) -> None:
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=house)
    assert not fetched(house, call)
    VapiSession.objects.update(vapi_call_id="erased")
    with pytest.raises(VapiRefused):
        house.call("erased")
    assert not fetched(house, call)
    assert not InboxMessage.objects.exists()


def test_while_vapi_is_away_it_is_asked_again_and_the_call_is_given_up_meanwhile(worker: House, monkeypatch: pytest.MonkeyPatch) -> None:
    call = talked(worker)
    tries: list[str] = []

    def away(call_id: str) -> dict[str, Any]:
        tries.append(call_id)
        raise VapiUnavailable("Vapi cannot be reached.")

    with monkeypatch.context() as outage:
        outage.setattr(worker, "call", away)
        ago(call, 3 * MINUTE)
        tasks.sweep()
        assert books(call) == (Status.ENDED, ""), "it is not missing before Vapi was asked"
        tasks.sweep()
    assert books(call) == (Status.FINALISED, Report.MISSING)
    assert len(tries) == 4, "asked once, and three times more"
    ago(call, 6 * MINUTE)
    tasks.sweep()
    assert (books(call), spoken(call)) == ((Status.FINALISED, Report.MERGED), ["Hello."])
