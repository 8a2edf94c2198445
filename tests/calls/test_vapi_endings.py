"""Vapi's last words on a call in every order, twice, late and at the same moment: nothing is lost and nothing is doubled."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.db import transaction
from django.db.models import Q
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from agents import account, lines
from bridge.ports import CallRef, Closing
from bridge.stream_token import key_from
from bridge.vapi_answers import VapiCall
from calls import services, sessions, tasks
from calls.ledger import DatabaseLedger
from calls.models import CallSession, InboxMessage, Report, Status, TranscriptLine, VapiReport, VapiSession, VapiState
from tests.builders import FakeVapi, at_once, session_of, vapi_call
from tests.calls import doors
from tests.calls.doors import ACCOUNT_SID, CALL_SID, CALLER, NUMBER, PUBLIC_URL, SECRET, TOKEN, a_line, knock
from tests.calls.vapi_house import until

VAPI_ID = "019a9b1c-7f2e-7c33-9d41-2b6f0c5e8a77"
START = 1_795_342_800_000
CLIENT = Client()
Act = Callable[[], None]
Catching = Callable[..., AbstractContextManager[list[Callable[[], Any]]]]


@pytest.fixture(autouse=True)
def configured(settings: Settings) -> Iterator[None]:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS, settings.VAPI_WEBHOOK_SECRETS = PUBLIC_URL, [TOKEN], [SECRET]
    lines.forget()
    with doors.remembering():
        yield


# -- what the vendors say ----------------------------------------------------------------------------------------------


def tell(kind: str, **told: Any) -> None:
    """One server message, told again as Vapi does while our database is too busy to keep it."""
    call = {"id": VAPI_ID, "name": f"{CALL_SID}.0"}
    body = json.dumps({"message": {"type": kind, "timestamp": START, "call": call, **told}})
    until(partial(_taken, body))


def _taken(body: str) -> bool:
    proof = {"X-Vapi-Secret": SECRET}
    status = CLIENT.post("/webhook/vapi", data=body, content_type="application/json", headers=proof).status_code
    assert status in (200, 503)
    return status == 200


def final(text: str, ms: int, role: str = "user") -> Act:
    return partial(tell, "transcript", role=role, transcriptType="final", transcript=text, timestamp=START + ms)


def over(reason: str = "customer-ended-call") -> Act:
    return partial(tell, "status-update", status="ended", endedReason=reason, timestamp=START + 9000)


def report(*turns: tuple[str, str, int, int], reason: str = "customer-ended-call") -> Act:
    spoken = [{"role": role, "message": text, "time": START + start, "endTime": START + end} for role, text, start, end in turns]
    words = {"endedReason": reason, "cost": 0.05, "analysis": {"summary": "It was about SSO."}, "artifact": {"messages": spoken}}
    return partial(tell, "end-of-call-report", timestamp=START + 12_000, **words)


def hung_up() -> None:
    fields = {"CallSid": CALL_SID, "AccountSid": ACCOUNT_SID, "From": CALLER, "To": NUMBER, "CallStatus": "completed"}
    assert knock(CLIENT, "/webhook/twilio/status", fields | {"SequenceNumber": "0", "CallDuration": "12"}).status_code == 200


def stream_over(why: str, raw: str = "") -> Act:
    def act() -> None:
        services.stream_closed(call_sid=CALL_SID, epoch=0, closing=Closing(why=why, raw=raw), at=timezone.now())

    return act


def talking() -> CallSession:
    """A call in the middle of its conversation."""
    a_line()
    call = services.open_call(sid=CALL_SID, account_sid=ACCOUNT_SID, from_number=CALLER, to_number=NUMBER, at=timezone.now())
    assert call is not None
    VapiSession.objects.update(state=VapiState.LIVE, vapi_call_id=VAPI_ID, live_at=timezone.now())
    services.admit_stream(call_sid=CALL_SID, account_sid=ACCOUNT_SID, stream_sid="MZ1", epoch=0, at=timezone.now())
    return call


# -- every order -------------------------------------------------------------------------------------------------------

GOODBYE = ("bot", "Goodbye.", 6000, 6500)
ENDINGS: dict[str, tuple[tuple[Act, ...], tuple[str, str], list[str]]] = {
    "the caller leaves": (
        (
            final("I cannot log in", 2000),
            final("Goodbye.", 6500, "assistant"),
            over(),
            report(("user", "I cannot log in.", 500, 2000), ("user", "Are you there?", 3000, 4000), GOODBYE),
            stream_over("caller-left"),
            hung_up,
        ),
        ("caller_hung_up", "customer-ended-call"),
        ["I cannot log in", "Are you there?", "Goodbye."],
    ),
    "finals in pieces, and the agent ends it": (
        (
            final("I already", 1000),
            final("tried that", 2000),
            over("assistant-ended-call"),
            report(("user", "I already tried that.", 400, 2000), GOODBYE, reason="assistant-ended-call"),
            stream_over("agent-ended", "assistant-ended-call"),
            hung_up,
        ),
        ("agent_ended", "assistant-ended-call"),
        ["I already", "tried that", "Goodbye."],
    ),
    "finals sent again from their beginning": (
        (
            final("I already", 1000),
            final("I already tried", 1600),
            final("I already tried that", 2000),
            over(),
            report(("user", "I already tried that.", 400, 2000), GOODBYE),
            hung_up,
        ),
        ("caller_hung_up", "customer-ended-call"),
        ["I already tried that", "Goodbye."],
    ),
}


def how_it_stands() -> str:
    """The rows of the call without times: none of it may depend on the order of news."""
    call, session = CallSession.objects.get(), VapiSession.objects.get()
    taken_back = Q(from_report=True, retold=True)  # what a final told after the report had to; pages are told by it
    spoken = TranscriptLine.everything.exclude(Q(role="system") | taken_back)
    kinds = ("call-ended", "transcript-final", "report-merged", "stream-closed")
    rows = {
        "call": [call.status, call.end_reason, call.outcome, call.report],
        "session": [session.state, session.ended_reason, str(session.cost_usd)],
        "shown": list(TranscriptLine.objects.exclude(role="system").values_list("said", flat=True)),
        "lines": list(spoken.values_list("role", "said", "from_report", "retold")),
        "report": list(VapiReport.objects.values_list("summary", "lines_added")),
        "events": Counter(kind for kind in call.events.values_list("kind", flat=True) if kind in kinds),
        "to do": InboxMessage.objects.filter(processed_at=None).count(),
    }
    return json.dumps(rows, default=str, sort_keys=True)


@pytest.mark.long
@pytest.mark.django_db
@pytest.mark.parametrize("name", ENDINGS)
def test_the_last_six_news_end_a_call_alike_in_all_their_720_orders(name: str, django_capture_on_commit_callbacks: Catching) -> None:
    news, (reason, raw), shown = ENDINGS[name]
    talking()
    ends = _ends(dict(enumerate(news)), {}, django_capture_on_commit_callbacks)
    assert list(ends.values()) == [720], "\n".join(ends)
    _check(json.loads(next(iter(ends))), reason, raw, shown)


def _check(stands: Mapping[str, Any], reason: str, raw: str, shown: list[str]) -> None:
    assert stands["shown"] == shown
    assert (stands["call"][:2], stands["call"][3]) == ([Status.FINALISED, reason], Report.MERGED)
    assert stands["session"] == [VapiState.ENDED, raw, "0.0500"]
    assert [summary for summary, _ in stands["report"]] == ["It was about SSO."]
    assert (stands["events"]["call-ended"], stands["events"]["report-merged"], stands["to do"]) == (1, 1, 0)


def _ends(news: Mapping[int, Act], seen: dict[str, Counter[str]], catching: Catching) -> Counter[str]:
    """How the call stands after all orders of the news, and after how many of them it does.

    Where two orders of the same news have led to the same rows, what follows is the same too and is played once.
    """
    if not news:
        return Counter([how_it_stands()])
    here = f"{sorted(news)} {how_it_stands()}"
    if here not in seen:
        seen[here] = Counter()
        for number, act in news.items():
            fork = transaction.savepoint()
            with catching(execute=True):
                act()
            seen[here].update(_ends({other: news[other] for other in news if other != number}, seen, catching))
            transaction.savepoint_rollback(fork)
    return seen[here]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ENDINGS)
def test_the_last_six_news_may_come_twice_and_all_at_the_same_moment(name: str) -> None:
    news, (reason, raw), shown = ENDINGS[name]
    talking()
    for _ in range(2):
        at_once(list(news))
    tasks.reprocess_inbox()  # a busy database puts a message off, and takes none back
    _check(json.loads(how_it_stands()), reason, raw, shown)


# -- late --------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_what_comes_after_the_clean_up_is_kept_and_makes_no_new_call() -> None:
    news, (_, raw), shown = ENDINGS["the caller leaves"]
    call = talking()
    hung_up()
    sessions.end_session(pk=session_of(call).pk, client=FakeVapi(), at=timezone.now())
    VapiSession.objects.update(report_asks=1)
    sessions.give_up_reports(now=timezone.now() + timedelta(seconds=121))
    call.refresh_from_db()
    assert (call.status, call.report) == (Status.FINALISED, Report.MISSING)
    for act in news:
        act()
    _check(json.loads(how_it_stands()), "caller_hung_up", raw, shown)
    assert CallSession.objects.count() == 1
    assert call.metrics.cost_usd == Decimal("0.05")


@pytest.mark.django_db(transaction=True)
def test_a_strangers_news_make_no_call_no_line_and_no_report() -> None:
    for act in ENDINGS["the caller leaves"][0][:4]:
        act()
    assert InboxMessage.objects.count() == 4
    assert not any(model.objects.exists() for model in (CallSession, TranscriptLine, VapiReport))


class Hasty(FakeVapi):
    """A Vapi whose webhooks are faster than its answer."""

    def __init__(self, *news: Act) -> None:
        super().__init__()
        self._news = news

    def create_call(self, request: Mapping[str, Any]) -> VapiCall:
        for act in self._news:
            act()
        return vapi_call(VAPI_ID)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("by", ["worker", "consumer"])
def test_news_that_are_faster_than_the_creates_answer_are_done_when_it_comes(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a_line()
    call = services.open_call(sid=CALL_SID, account_sid=ACCOUNT_SID, from_number=CALLER, to_number=NUMBER, at=timezone.now())
    assert call is not None
    spoken = report(("bot", "Hello.", 0, 900), reason="pipeline-no-available-llm-model")
    vapi = Hasty(final("Hello.", 900, "assistant"), over("pipeline-no-available-llm-model"), spoken)
    monkeypatch.setattr(account, "client", lambda *_: vapi)
    if by == "worker":
        tasks.start_conversation(session_of(call).pk)
    else:
        ledger = DatabaseLedger(token_key=key_from("tests"), client=vapi)
        asyncio.run(ledger.claim(CallRef(call_sid=CALL_SID, epoch=0, short_id=call.short_id), 0))
        until(lambda: not InboxMessage.objects.filter(processed_at=None).exists() and VapiReport.objects.exists())
        ledger.close()
    stands = json.loads(how_it_stands())
    assert (stands["shown"], stands["to do"]) == (["Hello."], 0)
    assert stands["session"] == [VapiState.ENDED, "pipeline-no-available-llm-model", "0.0500"]
    assert session_of(call).claimed_by == by
