"""Who wins: every race of a call is decided by a unique key or a conditional UPDATE, from real parallel threads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import product
from threading import Event
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agents import lines
from agents.models import TemplateVersion
from bridge.errors import VapiRefused, VapiUnavailable
from bridge.ports import Closing
from calls import history, inbox, lifecycle, services, sessions, tool_runs, vapi_events
from calls.history import NewEvent, NewEvents
from calls.models import (
    CallMetrics,
    CallSession,
    EndReason,
    Heard,
    InboxMessage,
    OutboxCommand,
    Report,
    Role,
    Status,
    VapiSession,
    VapiState,
)
from calls.sweep import end_silent_calls
from tests.builders import (
    ACCOUNT,
    CALLER,
    EPOCH,
    LINE,
    FakeVapi,
    QuietPublisher,
    a_body,
    a_call,
    a_line,
    at_once,
    call_sid,
    session_of,
    vapi_call,
)

threaded = pytest.mark.django_db(transaction=True)
LIVE = [status for status in Status if status not in (Status.ENDED, Status.FINALISED)]


def open_call(sid: str, number: str = LINE) -> CallSession | None:
    return services.open_call(sid=sid, account_sid=ACCOUNT, from_number=CALLER, to_number=number, at=timezone.now())


def kinds(call: CallSession) -> list[str]:
    return list(call.events.values_list("kind", flat=True))


def fresh(call: CallSession) -> CallSession:
    return CallSession.objects.get(pk=call.pk)


# -- the beginning -----------------------------------------------------------------------------------------------------


@threaded
def test_fifty_identical_webhooks_at_once_make_one_call() -> None:
    a_line()
    sid = call_sid()
    opened = at_once([partial(open_call, sid)] * 50)
    call = CallSession.objects.get()
    assert {each.pk for each in opened if each} == {call.pk}
    assert VapiSession.objects.count() == 1
    assert kinds(call) == ["call-received", "vapi-session-asked", "transcript-final"]
    assert call.lines.get().role == Role.SYSTEM


@threaded
def test_a_repeat_does_not_wait_for_one_that_does_not_come_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    a_line()
    sid, answer, stuck, is_open, given = call_sid(), lines.answer, Event(), Event(), list[bool]()

    def first_is_stuck(to_number: str, **more: Any) -> lines.Answer | None:
        if not stuck.is_set():
            stuck.set()
            given.append(is_open.wait(10.0))
        return answer(to_number, **more)

    def repeat() -> CallSession | None:
        stuck.wait(10.0)
        opened = open_call(sid)
        is_open.set()
        return opened

    monkeypatch.setattr(lines, "answer", first_is_stuck)
    both: list[Callable[[], CallSession | None]] = [partial(open_call, sid), repeat]
    opened = at_once(both)
    assert given == [True], "the repeat waited for the first one"
    assert [each.pk for each in opened if each] == [CallSession.objects.get().pk] * 2
    assert VapiSession.objects.count() == 1


@threaded
def test_a_number_nobody_answers_is_kept_as_a_refused_call() -> None:
    sid = call_sid()
    assert open_call(sid, "+15550100999") is None
    assert open_call(sid, "+15550100999") is None
    call = CallSession.objects.get()
    assert (call.status, call.end_reason, kinds(call)) == (Status.FINALISED, EndReason.REFUSED, ["call-received", "call-ended"])


@pytest.mark.django_db
def test_a_line_without_a_published_agent_opens_the_call_for_its_people() -> None:
    line = a_line(disclosure="")
    line.rollouts.all().delete()
    type(line.template).objects.update(published=None)
    call = open_call(call_sid())
    assert call is not None
    assert call.session_to_start is None
    assert kinds(call) == ["call-received"]


@pytest.mark.django_db
def test_a_call_keeps_the_version_it_was_answered_with() -> None:
    call = a_call()
    assert call.version == TemplateVersion.objects.get()
    assert open_call(call.call_sid) == call


# -- states ------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(("status", "to"), [pair for pair in product(LIVE, LIVE) if pair[0] != pair[1]])
def test_only_legal_edges_are_walked_and_illegal_ones_are_counted(status: Status, to: Status) -> None:
    call = a_call(status=status)
    moved = services.transition(call_sid=call.call_sid, to=to, epoch=0, at=timezone.now())
    assert moved is lifecycle.may(status, to)
    assert fresh(call).status == (to if moved else status)
    assert services.illegal_edges.pop((status.value, to), 0) == (0 if moved else 1)


@pytest.mark.django_db
@pytest.mark.parametrize("status", LIVE)
def test_every_live_call_can_end_and_nothing_follows_but_the_report(status: Status) -> None:
    call = a_call(status=status)
    assert services.transition(call_sid=call.call_sid, to=Status.ENDED, epoch=0, reason=EndReason.FAILED, at=timezone.now())
    for to in LIVE:
        assert not services.transition(call_sid=call.call_sid, to=to, epoch=0, at=timezone.now())
    assert fresh(call).status == Status.ENDED
    assert not sessions.finalise(call_sid=call.call_sid)  # its session may still be on the way
    assert sessions.end_session(pk=session_of(call).pk, client=FakeVapi(), at=timezone.now())
    assert not services.transition(call_sid=call.call_sid, to=Status.ENDED, epoch=0, reason=EndReason.TTL, at=timezone.now())
    assert (fresh(call).status, fresh(call).end_reason) == (Status.FINALISED, EndReason.FAILED)


@pytest.mark.django_db
def test_a_stale_epoch_writes_nothing() -> None:
    call = a_call(status=Status.STREAMING, epoch=1, stream_epoch=1)
    before = fresh(call).__dict__ | {"_state": None}
    stale: dict[str, Any] = {"call_sid": call.call_sid, "epoch": 0, "at": timezone.now()}
    assert not services.transition(to=Status.RECOVERING, **stale)
    assert not services.transition(to=Status.ENDED, reason=EndReason.FAILED, **stale)
    assert not services.stream_closed(closing=Closing("agent-ended"), **stale)
    assert not services.heartbeat(**stale)
    assert not services.admit_stream(account_sid=ACCOUNT, stream_sid="MZ1", **stale)
    noted = history.record_events(call_sid=call.call_sid, epoch=0, events=[NewEvent("clear-sent", "bridge", timezone.now())])
    assert noted == 0
    assert fresh(call).__dict__ | {"_state": None} == before


@pytest.mark.django_db
def test_the_news_of_many_calls_are_written_in_as_many_statements_as_those_of_one(django_assert_num_queries: Any) -> None:
    at = timezone.now()
    calls = [a_call(last_event_seq=7) for _ in range(5)]
    later = at + timedelta(seconds=5)
    news = [
        NewEvents(calls[0].call_sid, [NewEvent("clear-sent", "bridge", later), NewEvent("call-received", "system", at)], 0),
        NewEvents(calls[1].call_sid, [NewEvent("call-received", "system", later)], 0),
        NewEvents(calls[2].call_sid, [NewEvent("clear-sent", "bridge", later)]),
        NewEvents(calls[3].call_sid, [NewEvent("clear-sent", "bridge", later)], 4),  # stale
        NewEvents(calls[3].call_sid, [NewEvent("stream-started", "bridge", at)], 0),
        NewEvents(calls[4].call_sid, []),
    ]
    with django_assert_num_queries(3):
        written = history.record_all(news)
    sids = [call.call_sid for call in calls]
    assert written == {(sids[0], 0): 9, (sids[1], 0): 8, (sids[2], None): 8, (sids[3], 0): 8}
    assert [[(event.seq, event.kind) for event in call.events.filter(seq__gt=7).order_by("seq")] for call in calls] == [
        [(8, "clear-sent"), (9, "call-received")],
        [(8, "call-received")],
        [(8, "clear-sent")],
        [(8, "stream-started")],
        [],
    ]
    assert [fresh(call).last_seen_at == later for call in calls] == [True, False, True, False, False]


@threaded
def test_the_first_of_many_endings_wins() -> None:
    call = a_call(status=Status.STREAMING)
    reasons = [EndReason.CALLER_HUNG_UP, EndReason.AGENT_ENDED, EndReason.FAILED, EndReason.SILENCE] * 3
    won = at_once([partial(services.end_call, call_sid=call.call_sid, at=timezone.now(), reason=reason) for reason in reasons])
    assert won.count(True) == 1
    assert fresh(call).end_reason == reasons[won.index(True)]
    assert kinds(call).count("call-ended") == 1


# -- Vapi sessions -----------------------------------------------------------------------------------------------------


@threaded
def test_one_of_ten_claims_wins() -> None:
    pk = session_of(a_call()).pk
    claims = at_once([partial(sessions.claim_session, pk=pk, by="worker", at=timezone.now())] * 10)
    winner = [claim for claim in claims if claim is not None]
    assert len(winner) == 1
    assert VapiSession.objects.get(pk=pk).claim == winner[0]


@threaded
def test_ten_starts_at_once_create_one_vapi_call() -> None:
    call = a_call()
    vapi = FakeVapi()
    started = at_once([partial(sessions.start_conversation, vapi_session_pk=session_of(call).pk, by="worker", client=vapi)] * 10)
    assert started.count(True) == 1
    assert len(vapi.created) == 1
    assert vapi.created[0]["name"] == f"{call.call_sid}.0"
    assert session_of(call).state == VapiState.LIVE


@pytest.mark.django_db(transaction=True)
def test_a_session_that_becomes_live_tells_the_waiting_stream(published: QuietPublisher) -> None:
    call = a_call()
    assert sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=FakeVapi())
    assert published.hints == [(call.call_sid, "session")]
    assert kinds(call)[-1] == "vapi-session-live"
    assert call.events.last().detail["by"] == "worker"  # type: ignore[union-attr]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "problem", [VapiRefused("Vapi refused with 402.", status=402), VapiUnavailable("Vapi did not answer in time.", sent=True)]
)
def test_a_refused_session_is_a_state_and_not_an_exception(problem: VapiRefused | VapiUnavailable) -> None:
    call = a_call()
    assert not sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=FakeVapi(problem=problem))
    session = session_of(call)
    assert (session.state, session.failure) == (VapiState.FAILED, str(problem))
    assert kinds(call)[-1] == "vapi-session-failed"


@pytest.mark.django_db
def test_a_caller_who_left_during_the_create_leaves_no_vapi_call_behind() -> None:
    call = a_call()

    def hang_up() -> None:
        services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)

    vapi = FakeVapi(during=hang_up)
    assert not sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=vapi)
    assert len(vapi.created) == len(vapi.ended) == 1
    session = session_of(call)
    assert (session.state, session.socket_url, session.control_url) == (VapiState.ENDED, "", "")


@pytest.mark.django_db
def test_a_lost_claim_ends_the_vapi_call_nobody_wants() -> None:
    call = a_call()
    pk = session_of(call).pk
    vapi = FakeVapi(during=lambda: VapiSession.objects.filter(pk=pk).update(claim=None))
    assert not sessions.start_conversation(vapi_session_pk=pk, by="worker", client=vapi)
    assert len(vapi.ended) == 1


@threaded
def test_a_vapi_call_the_database_could_not_keep_is_ended_and_its_session_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    call, vapi = a_call(), FakeVapi()

    def away(**_: Any) -> bool:
        raise OperationalError("the database is away")

    monkeypatch.setattr(sessions, "session_live", away)
    with pytest.raises(OperationalError):
        sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=vapi)
    assert len(vapi.created) == len(vapi.ended) == 1
    assert session_of(call).state == VapiState.FAILED


@threaded
@pytest.mark.parametrize("problem", [OperationalError("database is locked"), InterfaceError("the cursor is closed")], ids=repr)
def test_a_vapi_call_the_database_could_not_keep_at_once_is_kept_a_moment_later(
    monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    call, vapi, keep, tries = a_call(), FakeVapi(), sessions.session_live, [1, 2]

    def busy(**words: Any) -> bool:
        if tries and tries.pop():
            raise problem
        return keep(**words)

    monkeypatch.setattr(sessions, "session_live", busy)
    assert sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=vapi)
    assert (len(vapi.created), len(vapi.ended)) == (1, 0)
    assert session_of(call).state == VapiState.LIVE


@threaded
def test_the_first_problem_is_told_when_the_database_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    call, vapi = a_call(), FakeVapi()

    def away(**words: Any) -> bool:
        raise OperationalError("while keeping" if "vapi_call" in words else "while failing")

    monkeypatch.setattr(sessions, "session_live", away)
    monkeypatch.setattr(sessions, "session_failed", away)
    with pytest.raises(OperationalError, match="while keeping"):
        sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=vapi)
    assert len(vapi.ended) == 1


USELESS = [
    {"status": Status.RECOVERING, "stream_epoch": 0, "closed_epoch": 0},
    {"status": Status.TRANSFERRING},
    {"status": Status.VOICEMAIL},
]


@pytest.mark.django_db
@pytest.mark.parametrize("state", USELESS, ids=lambda state: state["status"])
def test_a_session_whose_stream_is_over_before_it_is_live_is_ended_by_its_creator(state: dict[str, Any]) -> None:
    call = a_call()
    vapi = FakeVapi(during=lambda: CallSession.objects.filter(pk=call.pk).update(**state))
    assert not sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=vapi)
    assert len(vapi.created) == len(vapi.ended) == 1
    assert session_of(call).state == VapiState.ENDED


@pytest.mark.django_db
@pytest.mark.parametrize("state", USELESS, ids=lambda state: state["status"])
def test_a_live_session_whose_stream_is_over_is_found_by_the_sweep(state: dict[str, Any]) -> None:
    call, talking = a_call(), a_call(status=Status.STREAMING, stream_epoch=0)
    resumed = a_call(status=Status.CONNECTING, epoch=1, stream_epoch=0, closed_epoch=0)
    for each in (call, talking, resumed):
        assert sessions.start_conversation(vapi_session_pk=session_of(each).pk, by="worker", client=FakeVapi())
    CallSession.objects.filter(pk=call.pk).update(**state)
    assert sessions.left_over(now=timezone.now()) == [session_of(call).pk]


@pytest.mark.django_db
def test_a_session_without_control_address_is_ended_on_its_socket() -> None:
    call, vapi = a_call(), FakeVapi()
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=vapi)
    VapiSession.objects.update(control_url="")
    socket_url = session_of(call).socket_url
    assert sessions.end_session(pk=session_of(call).pk, client=vapi, at=timezone.now())
    assert vapi.ended == [socket_url]


@threaded
def test_sessions_are_written_before_metrics_by_everyone_who_writes_both() -> None:
    """Two orders are a deadlock where rows are locked; SQLite has one writer and would not show it."""
    for write in (_close_the_stream, _merge_the_report):
        call = a_call(status=Status.STREAMING, stream_epoch=0)
        sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=FakeVapi())
        with CaptureQueriesContext(connection) as asked:
            write(call)
        writes = [query["sql"] for query in asked if query["sql"].startswith(("UPDATE", "INSERT"))]
        places = [
            [n for n, sql in enumerate(writes) if f'"calls_{table}"' in sql.split("SET")[0]] for table in ("vapisession", "callmetrics")
        ]
        assert max(places[0]) < min(places[1])


def _close_the_stream(call: CallSession) -> None:
    closing = Closing(why="agent-ended", raw="assistant-ended-call", figures={"interruptions": 1})
    assert services.stream_closed(call_sid=call.call_sid, epoch=0, closing=closing, at=timezone.now())


def _merge_the_report(call: CallSession) -> None:
    vapi_id = session_of(call).vapi_call_id or ""
    assert sessions.report_arrived(vapi_call_id=vapi_id, raw="assistant-ended-call", cost_usd=None, at=timezone.now())


@pytest.mark.django_db
def test_nobody_claims_a_session_of_a_call_that_is_over() -> None:
    call = a_call()
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    assert call.session_to_start is None
    assert sessions.claim_session(pk=session_of(call).pk, by="worker", at=timezone.now()) is None


@threaded
def test_a_session_is_ended_once_and_its_urls_are_forgotten() -> None:
    call = a_call()
    vapi = FakeVapi()
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=vapi)
    ended = at_once([partial(sessions.end_session, pk=session_of(call).pk, client=vapi, at=timezone.now())] * 5)
    assert ended.count(True) == 1
    assert set(vapi.ended) == {f"https://vapi.test/{session_of(call).vapi_call_id}/control"}
    assert (session_of(call).socket_url, session_of(call).control_url) == ("", "")
    assert sessions.open_sessions(call_sid=call.call_sid) == []


@pytest.mark.django_db
def test_a_webhook_faster_than_the_create_finds_its_call_when_the_id_is_known() -> None:
    call = a_call()
    early = a_body(key="a" * 64, kind="status-update", body={}, vapi_call_id="v1", at=timezone.now())
    assert early is not None
    assert early.call is None
    claim = sessions.claim_session(pk=session_of(call).pk, by="worker", at=timezone.now())
    assert claim is not None
    assert sessions.session_live(pk=session_of(call).pk, claim=claim, vapi_call=vapi_call("v1"), at=timezone.now())
    early.refresh_from_db()
    assert early.call == call


@pytest.mark.django_db
def test_the_books_are_closed_when_the_report_is_there() -> None:
    call = a_call()
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=FakeVapi())
    vapi_id = session_of(call).vapi_call_id or ""
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.AGENT_ENDED)
    assert sessions.report_arrived(vapi_call_id=vapi_id, raw="assistant-ended-call", cost_usd=None, at=timezone.now())
    assert not sessions.report_arrived(vapi_call_id=vapi_id, raw="assistant-ended-call", cost_usd=None, at=timezone.now())
    assert (fresh(call).status, fresh(call).report) == (Status.FINALISED, Report.MERGED)
    assert session_of(call).ended_reason == "assistant-ended-call"


@pytest.mark.django_db
def test_a_later_report_corrects_the_cost_of_a_call_and_a_report_without_one_does_not() -> None:
    call = a_call()
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=FakeVapi())
    vapi_id = session_of(call).vapi_call_id or ""
    for cost, known in ((Decimal("0.01"), "0.01"), (None, "0.01"), (Decimal("0.07"), "0.07"), (Decimal("0.07"), "0.07")):
        sessions.report_arrived(vapi_call_id=vapi_id, raw="", cost_usd=cost, at=timezone.now())
        assert (session_of(call).cost_usd, CallMetrics.objects.get(call=call).cost_usd) == (Decimal(known), Decimal(known))


def reported_call(**fields: Any) -> CallSession:
    """A call whose report came while it still goes on."""
    call = a_call(status=Status.STREAMING, **fields)
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=FakeVapi())
    assert sessions.report_arrived(vapi_call_id=session_of(call).vapi_call_id or "", raw="", cost_usd=None, at=timezone.now())
    assert fresh(call).status == Status.STREAMING
    return call


def hang_up(call: CallSession) -> bool:
    return services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)


def close_stream(call: CallSession) -> bool:
    return services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("agent-ended"), at=timezone.now())


def sweep(call: CallSession) -> bool:
    CallSession.objects.filter(pk=call.pk).update(last_seen_at=timezone.now() - timedelta(hours=2))
    return end_silent_calls(now=timezone.now(), ttl=timedelta(hours=1), twilio=None) == [call.call_sid]


@threaded
@pytest.mark.parametrize("end", [hang_up, close_stream, sweep])
def test_a_report_that_comes_before_the_end_closes_the_books_at_the_end_whoever_ends(end: Callable[[CallSession], bool]) -> None:
    call = reported_call()
    assert end(call)
    assert (fresh(call).status, fresh(call).report) == (Status.FINALISED, Report.MERGED)
    assert sessions.give_up_reports(now=timezone.now() + timedelta(seconds=121)) == 0
    assert fresh(call).report == Report.MERGED


@threaded
def test_a_call_that_never_had_a_live_session_misses_no_report() -> None:
    call = a_call()
    vapi = FakeVapi(problem=VapiRefused("no"))
    assert not sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=vapi)
    hang_up(call)
    assert (fresh(call).status, fresh(call).report) == (Status.FINALISED, "")


@threaded
def test_a_call_that_ends_while_its_session_is_being_created_waits_for_what_becomes_of_it() -> None:
    call = a_call()
    waiting: list[str] = []

    def leave() -> None:
        hang_up(call)
        waiting.append(fresh(call).status)

    vapi = FakeVapi(problem=VapiRefused("no"), during=leave)
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=vapi)
    assert (waiting, fresh(call).status, fresh(call).report) == ([Status.ENDED], Status.FINALISED, "")


@pytest.mark.django_db
def test_books_nobody_closed_in_time_are_closed_with_what_is_there() -> None:
    merged, silent = reported_call(), a_call(status=Status.STREAMING)
    sessions.start_conversation(vapi_session_pk=session_of(silent).pk, by="worker", client=FakeVapi())
    hang_up(merged), hang_up(silent)  # nothing is committed here, so nobody looks after it
    assert fresh(merged).status == fresh(silent).status == Status.ENDED
    assert sessions.give_up_reports(now=timezone.now() + timedelta(seconds=121)) == 1
    assert (fresh(merged).report, fresh(silent).report) == (Report.MERGED, Report.MISSING)


@threaded
@pytest.mark.parametrize("late", [False, True], ids=["merged", "given up"])
def test_pages_hear_that_the_books_are_closed(published: QuietPublisher, late: bool) -> None:
    call = a_call()
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=FakeVapi())
    hang_up(call)
    published.items.clear()
    if late:
        sessions.give_up_reports(now=timezone.now() + timedelta(seconds=121))
    else:
        sessions.report_arrived(vapi_call_id=session_of(call).vapi_call_id or "", raw="", cost_usd=None, at=timezone.now())
    assert published.items == [(call.public_id, fresh(call).last_event_seq)]


# -- the stream --------------------------------------------------------------------------------------------------------


@threaded
def test_a_token_opens_one_stream() -> None:
    call = a_call()
    admit = partial(services.admit_stream, call_sid=call.call_sid, account_sid=ACCOUNT, epoch=0, at=timezone.now())
    admitted = at_once([partial(admit, stream_sid=f"MZ{n}") for n in range(8)])
    assert admitted.count(True) == 1
    assert (fresh(call).status, fresh(call).stream_sid) == (Status.STREAMING, f"MZ{admitted.index(True)}")


@pytest.mark.django_db
def test_a_stream_of_another_account_or_of_an_ended_call_stays_out() -> None:
    call = a_call()
    admit = partial(services.admit_stream, call_sid=call.call_sid, stream_sid="MZ1", epoch=0, at=timezone.now())
    assert not admit(account_sid="AC" + "9" * 32)
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    assert not admit(account_sid=ACCOUNT)


@pytest.mark.django_db
def test_a_used_token_stays_used_when_its_stream_is_lost() -> None:
    call = a_call()
    admit = partial(services.admit_stream, call_sid=call.call_sid, account_sid=ACCOUNT, epoch=0, at=timezone.now())
    assert admit(stream_sid="MZ1")
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("agent-lost"), at=timezone.now())
    assert fresh(call).status == Status.RECOVERING
    assert not admit(stream_sid="MZ2")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("closing", "status", "reason"),
    [
        (Closing("agent-ended"), Status.ENDED, EndReason.AGENT_ENDED),
        (Closing("agent-ended", raw="customer-ended-call"), Status.ENDED, EndReason.AGENT_ENDED),
        (Closing("agent-ended", raw="silence-timed-out"), Status.ENDED, EndReason.SILENCE),
        (Closing("agent-ended", raw="exceeded-max-duration"), Status.ENDED, EndReason.MAX_DURATION),
        (Closing("agent-ended", raw="call.in-progress.error-vapifault-worker-died"), Status.RECOVERING, ""),
        (Closing("caller-left"), Status.RECOVERING, ""),
        (Closing("hung-up"), Status.ENDED, EndReason.AGENT_ENDED),
        (Closing("handed-over"), Status.TRANSFERRING, ""),
        (Closing("no-agent"), Status.RECOVERING, ""),
        (Closing("agent-lost"), Status.RECOVERING, ""),
        (Closing("drained"), Status.RECOVERING, ""),
        (Closing("stream-lost"), Status.RECOVERING, ""),
    ],
)
def test_why_a_stream_closed_decides_what_becomes_of_the_call(closing: Closing, status: Status, reason: str) -> None:
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    assert services.stream_closed(call_sid=call.call_sid, epoch=0, closing=closing, at=timezone.now())
    assert (fresh(call).status, fresh(call).end_reason) == (status, reason)
    assert not services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("agent-lost"), at=timezone.now())
    assert kinds(call).count("stream-closed") == 1


@pytest.mark.django_db
def test_the_figures_of_two_streams_are_added_up() -> None:
    call = a_call(status=Status.STREAMING)
    figures = {"first_audio_ms": 700, "interruptions": 2, "time_to_silence_ms": [90], "turn_latency_ms": [800], "audio": {"clips": 160}}
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("drained", figures=figures), at=timezone.now())
    CallSession.objects.filter(pk=call.pk).update(epoch=1, status=Status.STREAMING)
    figures = figures | {"first_audio_ms": 300, "time_to_silence_ms": [40]}
    services.stream_closed(call_sid=call.call_sid, epoch=1, closing=Closing("agent-ended", figures=figures), at=timezone.now())
    metrics = fresh(call).metrics
    assert (metrics.first_audio_ms, metrics.interruptions, metrics.time_to_silence_ms) == (700, 4, [90, 40])
    assert metrics.audio == {"clips": 320}


# -- commands ----------------------------------------------------------------------------------------------------------


@threaded
def test_a_command_with_the_same_key_is_asked_once(published: QuietPublisher) -> None:
    call = a_call()
    ask = partial(services.ask, call=call, key="say:1", verb="say", detail={"text": "hello"}, at=timezone.now())
    rows = at_once([ask] * 6)
    assert len({row.pk for row in rows}) == OutboxCommand.objects.count() == 1
    assert published.hints == [(call.call_sid, "commands")]


# -- history -----------------------------------------------------------------------------------------------------------


@threaded
def test_the_numbers_of_events_have_no_gap_however_many_write() -> None:
    call = a_call()
    start = fresh(call).last_event_seq

    def write(writer: int) -> None:
        for n in range(5):
            events = [NewEvent(f"w{writer}", "bridge", timezone.now()) for _ in range(n + 1)]
            history.record_events(call_sid=call.call_sid, events=events)

    at_once([partial(write, writer) for writer in range(6)])
    numbers = list(call.events.values_list("seq", flat=True))
    assert numbers == list(range(1, start + 6 * 15 + 1))
    assert fresh(call).last_event_seq == numbers[-1]


@threaded
def test_a_line_told_by_many_is_kept_once_with_its_event() -> None:
    call = a_call()
    tell = partial(history.add_line, call=call, vapi_call_id="v1", role="user", text="I already tried that", vendor_ms=5, n=0)
    new = at_once([partial(tell, at=timezone.now())] * 8)
    assert new.count(True) == 1
    assert call.lines.filter(role="user").count() == 1
    assert call.events.filter(kind="transcript-final", detail__role="user").count() == 1


@threaded
def test_a_tool_runs_once_and_its_first_answer_stays() -> None:
    call = a_call()
    begin = partial(tool_runs.begin_tool, call=call, tool_call_id="t1", name="get_user_account", arguments={}, at=timezone.now())
    assert [mine for _, mine in at_once([begin] * 6)].count(True) == 1
    assert tool_runs.finish_tool(tool_call_id="t1", result="locked", problem="", at=timezone.now())
    assert not tool_runs.finish_tool(tool_call_id="t1", result="other", problem="", at=timezone.now())
    assert call.tool_runs.get().result == "locked"
    assert kinds(call)[-2:] == ["tool-called", "tool-answered"]


@pytest.mark.django_db
def test_the_same_body_is_stored_once() -> None:
    told = vapi_events.read(b'{"message": {"type": "hang", "call": {"id": "v1"}}}')
    store = partial(inbox.keep, told, session=None, at=timezone.now())
    assert store() is not None
    assert store() is None
    assert InboxMessage.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("line_first", [True, False])
def test_an_interrupted_line_is_heard_in_part_whichever_news_comes_first(line_first: bool) -> None:
    call = a_call(at=EPOCH)

    def at(seconds: float) -> datetime:
        return EPOCH + timedelta(seconds=seconds)

    def line() -> None:
        history.add_line(call=call, vapi_call_id="v", role="assistant", text="one two three four", vendor_ms=4000, at=at(4.1), n=0)

    def turn() -> None:
        detail = {"said_ms": 4000, "heard_ms": 2000, "interrupted": True}
        history.record_events(call_sid=call.call_sid, events=[NewEvent("agent-turn-ended", "bridge", at(4), detail)])

    history.record_events(call_sid=call.call_sid, events=[NewEvent("agent-speech-started", "bridge", at(1))])
    for news in (line, turn) if line_first else (turn, line):
        news()
    history.record_events(call_sid=call.call_sid, events=[NewEvent("agent-speech-started", "bridge", at(6))])
    history.add_line(call=call, vapi_call_id="v", role="assistant", text="the next turn", vendor_ms=6400, at=at(6.5), n=0)
    first, following = call.lines.filter(role="assistant")
    assert (first.heard, first.heard_text) == (Heard.PART, "one two")
    assert following.heard == Heard.FULL


# -- cleaning up -------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_what_a_dead_worker_left_is_found() -> None:
    call = a_call()
    vapi = FakeVapi()
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=vapi)
    claimed = session_of(a_call())
    sessions.claim_session(pk=claimed.pk, by="worker", at=timezone.now())
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    later = timezone.now() + timedelta(seconds=121)
    assert sessions.left_over(now=later) == [session_of(call).pk]
    claimed.refresh_from_db()
    assert claimed.state == VapiState.FAILED
    assert sessions.give_up_reports(now=later) == 1
    assert fresh(call).report == Report.MISSING
