"""Everybody of us was away: what both vendors' lists tell afterwards. Real HTTP, the sandbox on the other side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agents import account, lines
from bridge import twilio_rest
from bridge.sandbox.script import Caller
from bridge.sandbox.twilio import TwilioCall
from bridge.twilio_rest import LISTED_AT_ONCE, TwilioRest
from calls import by_heart, returning
from calls.models import CallSession, Compared, Status, VapiSession, VapiState
from calls.spool import Spool
from calls.sweep import end_silent_calls
from tests.builders import CALLER, LINE, a_call, a_line, call_sid, session_of
from tests.calls.doors import ACCOUNT_SID, PUBLIC_URL, TOKEN
from tests.calls.vendors import ASSISTANT, TRANSPORT, Both, both

pytestmark = pytest.mark.django_db
TTL = timedelta(hours=1)
HEADERS = {"X-Vapi-Secret": "s"}


@pytest.fixture
def vendors(settings: Any) -> Iterator[Both]:
    settings.PUBLIC_URL = PUBLIC_URL
    with both() as vendors:
        yield vendors


def at_twilio(
    vendors: Both, *, minutes_ago: float, status: str = "completed", seconds: int = 0, to: str = LINE, sid: str = ""
) -> TwilioCall:
    """A call that Twilio has, and that none of us saw."""

    async def take() -> TwilioCall:
        phone = TwilioCall(webhook_url="http://127.0.0.1:9/", auth_token=TOKEN, caller=Caller(()), account_sid=ACCOUNT_SID, to_number=to)
        phone.call_sid = sid or phone.call_sid
        phone.status, phone.duration_s = status, seconds
        phone.dialled_wall = timezone.now().timestamp() - 60 * minutes_ago
        phone.ended_wall = None if status in ("ringing", "in-progress") else phone.dialled_wall + seconds
        return vendors.twilio.take(phone)

    return asyncio.run_coroutine_threadsafe(take(), vendors.loop).result(10)


def rest(vendors: Both) -> TwilioRest:
    return TwilioRest(vendors.twilio.base_url, ACCOUNT_SID, TOKEN, pause=lambda _: None)


def looked(vendors: Both) -> int:
    return returning.keep_missed_calls(twilio=rest(vendors), now=timezone.now())


def away_for(minutes: float) -> None:
    Compared.objects.update_or_create(listed="twilio", defaults={"until": timezone.now() - timedelta(minutes=minutes)})


def asked_lists(vendors: Both) -> int:
    return sum(asked.path.endswith("/Calls.json") for asked in vendors.twilio.asked)


# -- calls that came and went without us -------------------------------------------------------------------------------


def test_a_caller_whom_the_fallback_looked_after_has_a_row_with_the_last_rung(vendors: Both) -> None:
    a_line()
    away_for(120)
    phone = at_twilio(vendors, minutes_ago=30, seconds=42)
    assert looked(vendors) == 1
    call = CallSession.objects.get(call_sid=phone.call_sid)
    assert (call.is_over, call.end_reason, call.outcome, call.rung) == (True, "caller_hung_up", "unknown", "R5")
    assert (call.to_number, call.from_number, call.account_sid) == (LINE, phone.from_number, ACCOUNT_SID)
    assert abs(call.started_at.timestamp() - phone.dialled_wall) < 1
    assert looked(vendors) == 0


@pytest.mark.parametrize(("status", "seconds"), [("completed", 0), ("no-answer", 0), ("failed", 0), ("canceled", 0)])
def test_a_caller_whom_nobody_answered_is_kept_as_one_who_gave_up(vendors: Both, status: str, seconds: int) -> None:
    a_line()
    away_for(120)
    phone = at_twilio(vendors, minutes_ago=30, status=status, seconds=seconds)
    assert looked(vendors) == 1
    call = CallSession.objects.get(call_sid=phone.call_sid)
    assert (call.outcome, call.rung) == ("abandoned", "R0")


def test_calls_we_know_or_to_numbers_that_are_not_ours_stay_as_they_are(vendors: Both) -> None:
    known = a_call()
    away_for(120)
    at_twilio(vendors, minutes_ago=30, seconds=9, sid=known.call_sid)
    at_twilio(vendors, minutes_ago=30, seconds=9, to="+15550100999")
    assert looked(vendors) == 0
    known.refresh_from_db()
    assert (known.status, CallSession.objects.count()) == ("connecting", 1)


def test_a_call_that_was_answered_by_heart_is_not_missed(vendors: Both) -> None:
    a_line()
    away_for(minutes=30)
    lines.warm()
    phone = at_twilio(vendors, minutes_ago=20, seconds=40)
    assert by_heart.opened(sid=phone.call_sid, account_sid=ACCOUNT_SID, from_number=CALLER, to_number=LINE, at=timezone.now())
    assert looked(vendors) == 0
    assert CallSession.objects.get().rung == "R0"


def test_while_something_is_still_to_be_told_nothing_is_taken_for_missed(vendors: Both) -> None:
    a_line()
    away_for(minutes=30)
    at_twilio(vendors, minutes_ago=20, seconds=40)
    kept = Spool(Path(settings.SPOOL_DIR))
    kept.append([{"kind": "twilio"}])
    assert looked(vendors) == 0
    kept.was_read(kept.unread())
    assert looked(vendors) == 1


def test_a_call_that_is_still_with_the_fallback_is_left_alone_and_kept_when_it_is_over(vendors: Both) -> None:
    a_line()
    away_for(120)
    phone = at_twilio(vendors, minutes_ago=90, status="in-progress")
    assert looked(vendors) == 0
    assert {asked.method for asked in vendors.twilio.asked} == {"GET"}
    phone.status, phone.duration_s = "completed", 5400
    assert looked(vendors) == 1


def test_what_has_been_compared_is_not_listed_again_and_a_long_gap_is_read_page_by_page(vendors: Both) -> None:
    a_line()
    away_for(120)
    for _ in range(LISTED_AT_ONCE + 5):
        at_twilio(vendors, minutes_ago=60, seconds=1)
    assert looked(vendors) == LISTED_AT_ONCE + 5
    assert asked_lists(vendors) == 2
    assert Compared.objects.get().until > timezone.now() - timedelta(minutes=11)


def test_of_a_list_that_was_cut_the_rest_is_asked_for_again(vendors: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    a_line()
    away_for(120)
    for minutes in range(20, 20 + LISTED_AT_ONCE + 5):
        at_twilio(vendors, minutes_ago=minutes, seconds=1)
    with monkeypatch.context() as patch:
        patch.setattr(twilio_rest, "MOST_PAGES", 1)
        assert looked(vendors) == LISTED_AT_ONCE
    assert looked(vendors) == 5


def test_a_first_look_asks_for_nothing_that_was_before_this_installation(vendors: Both) -> None:
    a_line()
    at_twilio(vendors, minutes_ago=60, seconds=1)
    assert looked(vendors) == 0


def test_a_twilio_that_does_not_answer_is_asked_about_the_same_gap_later(vendors: Both) -> None:
    a_line()
    away_for(120)
    at_twilio(vendors, minutes_ago=60, seconds=1)
    vendors.twilio.fail_with(503)
    assert looked(vendors) == 0
    assert looked(vendors) == 1


# -- callers who stayed on a dead stream -------------------------------------------------------------------------------


def a_dead_stream(vendors: Both, *, silent_s: float) -> tuple[CallSession, TwilioCall, list[str]]:
    """A caller who is there, by Twilio's word, on a stream of which we last heard so long ago; and where Twilio is sent to."""
    seen = timezone.now() - timedelta(seconds=silent_s)
    call = a_call(status=Status.STREAMING, stream_epoch=0, last_seen_at=seen, account_sid=ACCOUNT_SID)
    phone, sent = at_twilio(vendors, minutes_ago=5, status="in-progress", sid=call.call_sid), list[str]()
    phone.turn = lambda url, **more: sent.append(url)  # type: ignore[method-assign]
    return call, phone, sent


def swept(vendors: Both, *, later_s: float = 0.0) -> list[str]:
    return end_silent_calls(now=timezone.now() + timedelta(seconds=later_s), ttl=TTL, twilio=rest(vendors))


def test_a_caller_on_a_stream_that_nobody_carries_is_sent_to_the_resume_door_once(vendors: Both) -> None:
    _, _, sent = a_dead_stream(vendors, silent_s=40)
    for later_s in (0.0, 5.0, 12.0, 30.0, 60.0):
        assert swept(vendors, later_s=later_s) == []
    assert sent == [f"{PUBLIC_URL}/webhook/twilio/resume/0"]


def test_a_call_that_only_seemed_silent_while_the_database_was_away_is_not_sent_anywhere(vendors: Both) -> None:
    call, _, sent = a_dead_stream(vendors, silent_s=40)
    swept(vendors)
    CallSession.objects.filter(pk=call.pk).update(last_seen_at=timezone.now())  # its next heartbeat
    swept(vendors, later_s=12.0)
    assert sent == []


@pytest.mark.parametrize(
    "change", [{"status": "transferring"}, {"epoch": 1, "status": "connecting"}, {"closed_epoch": 0, "status": "recovering"}]
)
def test_a_caller_who_has_moved_on_meanwhile_is_left_where_they_are(vendors: Both, change: dict[str, Any]) -> None:
    call, _, sent = a_dead_stream(vendors, silent_s=40)
    swept(vendors)
    CallSession.objects.filter(pk=call.pk).update(**change)
    swept(vendors, later_s=12.0)
    assert sent == []


def test_while_twilio_does_not_answer_the_caller_is_sent_on_later(vendors: Both) -> None:
    _, _, sent = a_dead_stream(vendors, silent_s=40)
    swept(vendors)
    vendors.twilio.fail_with(503, times=1)
    swept(vendors, later_s=12.0)
    assert sent == []
    swept(vendors, later_s=72.0)
    assert len(sent) == 1


# -- agents that nobody holds ------------------------------------------------------------------------------------------


def made(vendors: Both, *, name: str, url: str) -> str:
    """A call that runs at Vapi; its id."""
    assistant = {**ASSISTANT, "server": {"url": url, "timeoutSeconds": 20, "headers": HEADERS}}
    return vendors.vapi.create_call({"name": name, "transport": TRANSPORT, "assistant": assistant}).id


def running(vendors: Both) -> set[str]:
    return {call.id for call in vendors.vapi.vapi.calls.values() if call.open}


def ended_strangers(vendors: Both) -> int:
    return returning.end_strangers(client=vendors.vapi, now=timezone.now())


def test_an_agent_of_ours_that_no_row_holds_is_ended_and_nobody_elses(vendors: Both) -> None:
    ours = account.server().url
    made(vendors, name=f"{call_sid()}.0", url=ours)
    another_house = made(vendors, name=f"{call_sid()}.0", url="https://another.example/webhook/vapi")
    of_no_name = made(vendors, name="a test of somebody's", url=ours)
    assert ended_strangers(vendors) == 1
    assert running(vendors) == {another_house, of_no_name}


def test_an_agent_that_was_made_by_heart_is_left_alone_before_its_row_is_told_of_it(vendors: Both) -> None:
    sid = call_sid()
    made(vendors, name=f"{sid}.50", url=account.server().url)
    spool = Spool(Path(settings.SPOOL_DIR))
    spool.append([{"kind": "anything"}])
    assert ended_strangers(vendors) == 0
    assert len(running(vendors)) == 1
    spool.was_read(spool.unread())
    assert ended_strangers(vendors) == 1


def test_an_agent_of_a_call_that_was_answered_by_heart_is_left_alone(vendors: Both) -> None:
    a_line()
    lines.warm()
    sid = call_sid()
    assert by_heart.opened(sid=sid, account_sid=ACCOUNT_SID, from_number=CALLER, to_number=LINE, at=timezone.now()) is not None
    made(vendors, name=f"{sid}.0", url=account.server().url)
    assert ended_strangers(vendors) == 0
    assert CallSession.objects.filter(call_sid=sid).exists()


def test_an_agent_that_is_held_or_is_being_made_is_left_alone(vendors: Both) -> None:
    ours = account.server().url
    held, being_made = session_of(a_call()), session_of(a_call())
    held.vapi_call_id = made(vendors, name=f"{held.call.call_sid}.0", url=ours)
    held.state = VapiState.LIVE
    held.save()
    being_made.state = VapiState.CLAIMED
    being_made.save()
    made(vendors, name=f"{being_made.call.call_sid}.0", url=ours)
    assert ended_strangers(vendors) == 0
    assert len(running(vendors)) == 2


def test_an_agent_whose_row_is_told_its_id_in_this_moment_is_left_alone(vendors: Both) -> None:
    row = session_of(a_call())
    vapi_id = made(vendors, name=f"{row.call.call_sid}.0", url=account.server().url)
    looks = 0

    def told_between_the_looks(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal looks
        if sql.startswith("SELECT") and VapiSession._meta.db_table in sql:
            looks += 1
            if looks == 2:
                VapiSession.objects.filter(pk=row.pk).update(state=VapiState.LIVE, vapi_call_id=vapi_id)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(told_between_the_looks):
        assert ended_strangers(vendors) == 0
    assert looks == 2
    assert running(vendors) == {vapi_id}


def test_however_many_agents_run_the_rows_are_asked_as_often(vendors: Both) -> None:
    asked = []
    for count in (1, 4):
        for _ in range(count):
            made(vendors, name=f"{call_sid()}.0", url=account.server().url)
        with CaptureQueriesContext(connection) as questions:
            assert ended_strangers(vendors) == count
        asked.append(len(questions))
    assert asked[0] == asked[1] > 0


def test_an_agent_without_an_address_that_we_may_use_is_not_counted_as_ended_and_the_log_says_so(
    vendors: Both, caplog: pytest.LogCaptureFixture
) -> None:
    vapi_id = made(vendors, name=f"{call_sid()}.0", url=account.server().url)
    public = vendors.vapi.vapi.calls[vapi_id].public
    public["monitor"]["controlUrl"] = "https://elsewhere.example/control"
    public["transport"]["websocketCallUrl"] = "wss://elsewhere.example/transport"
    with caplog.at_level(logging.ERROR, logger="calls"):
        assert ended_strangers(vendors) == 0
    assert running(vendors) == {vapi_id}
    assert [record.getMessage() for record in caplog.records] == ["A Vapi call nobody holds has no address to end it at"]
