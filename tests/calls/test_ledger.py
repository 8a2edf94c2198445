"""The bridge's Ledger on a real database: what it promises a stream that must never wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from django.db import IntegrityError, OperationalError
from django.utils import timezone

from bridge import live, stream_token
from bridge.errors import VapiUnavailable
from bridge.ports import CallRef, Closing, LedgerAway, Note
from calls import by_heart, history, publisher, services, sessions, storing, tasks
from calls import ledger as ledger_module
from calls.entries import Alive, Told
from calls.keeper import Keeper
from calls.ledger import DatabaseLedger
from calls.models import CallSession, EndReason, Heard, Role, Status, VapiState
from calls.sweep import end_silent_calls
from tests.builders import ACCOUNT, FakeVapi, QuietPublisher, a_call, a_line, call_sid, session_of

pytestmark = pytest.mark.django_db(transaction=True)
KEY = stream_token.key_from("a secret of the tests")
R = TypeVar("R")


@pytest.fixture
def vapi() -> FakeVapi:
    return FakeVapi()


@pytest.fixture
def ledger(vapi: FakeVapi) -> Iterator[DatabaseLedger]:
    made = DatabaseLedger(token_key=KEY, client=vapi, deadline_s=5.0)  # this machine may be busy; its own tests have 300 ms
    yield made
    made.close()


def run(asked: Coroutine[Any, Any, R]) -> R:
    return asyncio.run(asked)


def token(call: CallSession, *, epoch: int = 0, life_s: int = 60) -> str:
    return stream_token.issue(key=KEY, call_sid=call.call_sid, epoch=epoch, expires=int(time.time()) + life_s)


def ref_of(call: CallSession, epoch: int = 0) -> CallRef:
    return CallRef(call_sid=call.call_sid, epoch=epoch, short_id=call.short_id)


def a_note(kind: str = "clear-sent", **detail: Any) -> Note:
    return Note(kind=kind, source="bridge", at=time.time(), now=time.monotonic(), detail=detail)


def wait_for(truth: Callable[[], bool], within_s: float = 5.0) -> None:
    until = time.monotonic() + within_s
    while not truth():
        assert time.monotonic() < until
        time.sleep(0.005)


# -- admission ---------------------------------------------------------------------------------------------------------


def test_a_valid_token_is_used_up_by_one_of_many_streams(ledger: DatabaseLedger) -> None:
    call = a_call()
    proof = token(call)

    async def knock() -> list[Any]:
        doors = [ledger.admit(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid=f"MZ{n}", token=proof) for n in range(6)]
        return await asyncio.gather(*doors)

    admitted = [admission for admission in run(knock()) if admission is not None]
    assert [admission.ref for admission in admitted] == [ref_of(call)]
    assert admitted[0].barge_in == "instant"


@pytest.mark.parametrize("how", ["fails", "is late"])
def test_a_stream_that_a_busy_database_did_not_let_in_at_once_is_let_in_by_the_second_try(
    monkeypatch: pytest.MonkeyPatch, vapi: FakeVapi, how: str
) -> None:
    """The first try may come to its end after all: the stream is in then, and no other one with the same token."""
    at_once, call, tries, late = services.admit_stream, a_call(), list[str](), threading.Event()

    def busy(**stream: Any) -> bool:
        tries.append(stream["stream_sid"])
        if len(tries) == 1 and how == "fails":
            raise OperationalError("database is locked")
        let_in = at_once(**stream)
        if len(tries) == 1:
            late.wait(5.0)
        return let_in

    monkeypatch.setattr(services, "admit_stream", busy)
    monkeypatch.setattr("calls.ledger.ADMITTED_WITHIN_S", 0.5)
    ledger = DatabaseLedger(token_key=KEY, client=vapi, deadline_s=0.1)
    try:
        admission = run(ledger.admit(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid="MZ1", token=token(call)))
        assert admission is not None
        assert tries == ["MZ1", "MZ1"]
        assert run(ledger.admit(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid="MZ2", token=token(call))) is None
    finally:
        late.set()
        ledger.close()


@pytest.mark.parametrize(("away_s", "let_in"), [(0.4, True), (5.0, False)])
def test_a_stream_waits_a_moment_for_a_database_that_comes_back(
    monkeypatch: pytest.MonkeyPatch, vapi: FakeVapi, away_s: float, let_in: bool
) -> None:
    call, ledger = a_call(), DatabaseLedger(token_key=KEY, client=vapi)
    began = time.monotonic()
    monkeypatch.setattr(Keeper, "is_away", property(lambda _: time.monotonic() - began < away_s))
    monkeypatch.setattr(Keeper, "ask", lambda keeper: keeper.is_away)
    try:
        admitting = ledger.admit(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid="MZ1", token=token(call))
        if let_in:
            assert run(admitting) is not None
        else:
            with pytest.raises(LedgerAway):
                run(admitting)
        assert time.monotonic() - began < 2.0
    finally:
        ledger.close()


def test_bad_tokens_change_nothing(ledger: DatabaseLedger) -> None:
    call, other = a_call(), a_call()
    for bad in ("", "0.1.x", token(other), token(call, epoch=1), token(call, life_s=-ledger_module.SKEW_S - 2)):
        assert run(ledger.admit(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid="MZ1", token=bad)) is None
    call.refresh_from_db()
    assert (call.status, call.stream_epoch) == (Status.CONNECTING, -1)


# -- the session -------------------------------------------------------------------------------------------------------


def test_the_session_is_seen_as_it_comes_to_life_and_hidden_from_others(ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    call = a_call(status=Status.STREAMING)
    asked = run(ledger.conversation(ref_of(call)))
    assert asked is not None
    assert (asked.n, asked.state, asked.socket_url) == (0, "asked", "")
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=vapi)
    live = run(ledger.conversation(ref_of(call)))
    assert live is not None
    assert live.socket_url == session_of(call).socket_url
    assert live.socket_url not in repr(live)
    assert run(ledger.conversation(ref_of(call, epoch=1))) is None
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    assert run(ledger.conversation(ref_of(call))) is None


def test_a_claim_returns_at_once_and_creates_in_a_thread_of_its_own(ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    call = a_call(status=Status.STREAMING)
    gate = threading.Event()
    vapi.during = lambda: gate.wait(5)
    started = time.monotonic()
    run(ledger.claim(ref_of(call), 0))
    run(ledger.claim(ref_of(call), 0))
    assert time.monotonic() - started < 0.3
    gate.set()
    wait_for(lambda: session_of(call).state == VapiState.LIVE)
    assert (session_of(call).claimed_by, len(vapi.created)) == ("consumer", 1)


def test_who_is_at_it_in_this_process_is_not_taken_for_dead(ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    call = a_call(status=Status.STREAMING)
    gate = threading.Event()
    vapi.during = lambda: gate.wait(5)
    run(ledger.claim(ref_of(call), 0))
    wait_for(lambda: session_of(call).state == VapiState.CLAIMED)
    assert run(ledger.claim(ref_of(call), 0, from_another=True)) is False
    gate.set()
    wait_for(lambda: session_of(call).state == VapiState.LIVE)
    assert (len(vapi.created), vapi.ended) == (1, [])


def test_an_agent_of_this_process_that_waits_to_be_stored_is_not_made_again(
    ledger: DatabaseLedger, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, well, call = sessions.session_live, threading.Event(), a_call(status=Status.STREAMING)

    def busy(**answer: Any) -> bool:
        if not well.is_set():
            raise OperationalError("its row is locked")
        return at_once(**answer)

    monkeypatch.setattr(sessions, "session_live", busy)
    monkeypatch.setattr(sessions, "STORED_AFTER_S", ())
    run(ledger.claim(ref_of(call), 0))
    wait_for(lambda: storing.the_keeper().holds and not ledger._being_made)
    assert run(ledger.claim(ref_of(call), 0, from_another=True)) is False
    well.set()
    wait_for(lambda: session_of(call).state == VapiState.LIVE)
    assert (len(vapi.created), vapi.ended) == (1, [])


def test_who_was_at_it_elsewhere_is(ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    call = a_call(status=Status.STREAMING)
    sessions.claim_session(pk=session_of(call).pk, by="worker", at=timezone.now())
    run(ledger.claim(ref_of(call), 0))  # in vain, and that thread is at it no more
    wait_for(lambda: run(ledger.claim(ref_of(call), 0, from_another=True)))
    wait_for(lambda: session_of(call).state == VapiState.LIVE)
    assert len(vapi.created) == 1


def test_a_claim_that_finds_no_room_says_so_and_is_taken_when_asked_again(ledger: DatabaseLedger, vapi: FakeVapi) -> None:
    call = a_call(status=Status.STREAMING)
    gate = threading.Event()
    while ledger._creators.take(gate.wait, 10) is not None:
        pass
    assert run(ledger.claim(ref_of(call), 0)) is False
    assert ledger._creators.refused == 2
    gate.set()
    wait_for(lambda: run(ledger.claim(ref_of(call), 0)))
    wait_for(lambda: session_of(call).state == VapiState.LIVE)
    assert len(vapi.created) == 1


def test_what_its_own_create_may_have_left_at_vapi_is_cleared_up_by_the_task_that_does_it_for_the_worker(
    ledger: DatabaseLedger, vapi: FakeVapi, published: QuietPublisher
) -> None:
    late, lively = a_call(status=Status.STREAMING), a_call(status=Status.STREAMING)
    run(ledger.claim(ref_of(lively), 0))
    wait_for(lambda: session_of(lively).state == VapiState.LIVE)
    vapi.problem = VapiUnavailable("Vapi did not answer in time.", sent=True)
    run(ledger.claim(ref_of(late), 0))
    wait_for(lambda: published.tasks != [])
    assert published.tasks == [("calls.tasks.clear_up", (session_of(late).pk,))]
    assert session_of(late).maybe_created


def test_without_a_broker_a_create_that_fails_is_told_to_the_stream_all_the_same(
    ledger: DatabaseLedger, vapi: FakeVapi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(tasks.clear_up, "apply_async", refused)
    ours = publisher.Publisher(layer=lambda: None)
    before = publisher.install(ours)
    vapi.problem = VapiUnavailable("Vapi did not answer in time.", sent=True)
    call = a_call(status=Status.STREAMING)
    run(ledger.claim(ref_of(call), 0))
    wait_for(lambda: ours.counts.failed == 1)
    publisher.install(before)
    ours.stop()
    conversation = run(ledger.conversation(ref_of(call)))
    assert conversation is not None
    assert conversation.state == "failed"
    assert "broke" not in caplog.text


def test_what_the_database_says_of_a_row_is_not_logged_but_where_it_said_so(
    ledger: DatabaseLedger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """PostgreSQL's errors repeat the values of the row, those of the call among them."""

    def refused(**_: Any) -> None:
        raise IntegrityError("DETAIL:  Failing row contains (7, zweiundvierzig, Alex).")

    monkeypatch.setattr(sessions, "record_events", refused)
    call = a_call(status=Status.STREAMING)
    run(ledger.claim(ref_of(call), 0))
    wait_for(lambda: "broke" in caplog.text)
    (record,) = [record for record in caplog.records if "broke" in record.message]
    assert (record.levelname, record.problem, record.where.partition(":")[0]) == ("ERROR", "IntegrityError", "calls.sessions")  # type: ignore[attr-defined]
    assert record.where.partition(":")[2].isdigit()  # type: ignore[attr-defined]
    assert record.exc_info is None
    assert not any(said in caplog.text for said in ("zweiundvierzig", "Alex", call.call_sid, call.from_number))


# -- notes -------------------------------------------------------------------------------------------------------------


def test_notes_become_events_in_their_order_with_the_time_since_the_answer(ledger: DatabaseLedger) -> None:
    call = a_call(status=Status.STREAMING)
    kinds = [f"kind-{n}" for n in range(100)]
    for kind in kinds:
        ledger.note(ref_of(call), a_note(kind))
    ledger.close()
    events = list(call.events.filter(kind__startswith="kind-"))
    assert [event.kind for event in events] == kinds
    assert [event.ms for event in events] == sorted(event.ms for event in events)
    assert events[-1].ms < 60_000


def test_a_jump_of_the_wall_clock_does_not_turn_time_back(ledger: DatabaseLedger) -> None:
    call = a_call(status=Status.STREAMING)
    ledger.note(ref_of(call), a_note("before"))
    ledger.note(ref_of(call), replace(a_note("after"), at=time.time() - 3600))
    ledger.close()
    before, after = call.events.filter(kind__in=("before", "after"))
    assert after.at < before.at
    assert after.ms >= before.ms


def test_a_stale_epoch_notes_nothing(ledger: DatabaseLedger) -> None:
    call = a_call(status=Status.STREAMING, epoch=1)
    seen = call.last_seen_at
    ledger.note(ref_of(call, epoch=0), a_note())
    ledger.heartbeat(ref_of(call, epoch=0))
    run(ledger.ended(ref_of(call, epoch=0), Closing("agent-ended")))
    ledger.close()
    call.refresh_from_db()
    assert not call.events.filter(kind__in=("clear-sent", "stream-closed")).exists()
    assert (call.last_seen_at, call.status, call.closed_epoch) == (seen, Status.STREAMING, -1)


def test_why_a_stream_is_over_is_known_by_heart_though_its_row_says_so(ledger: DatabaseLedger) -> None:
    """The row may be too busy to be read when Twilio asks, and a caller who has heard goodbye is not to hear of one moment more."""
    call = a_call(status=Status.STREAMING)
    run(ledger.ended(ref_of(call), Closing("agent-ended")))
    assert CallSession.objects.get(pk=call.pk).closed_why == "agent-ended"
    assert by_heart.why_closed(call.call_sid, 0) == "agent-ended"
    by_heart.forget_old(now=time.time() + by_heart.CLOSED_FOR_S + 5)
    assert not by_heart.why_closed(call.call_sid, 0)


def test_a_disk_that_says_nothing_keeps_no_caller_waiting_whose_stream_is_lost(
    ledger: DatabaseLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, is_back, left = a_call(status=Status.STREAMING), threading.Event(), list[str]()
    monkeypatch.setattr(by_heart, "closed", lambda *_: is_back.wait(10))
    monkeypatch.setattr(ledger, "_deadline", 0.1)
    monkeypatch.setattr(ledger, "_left", lambda call_sid, *_: left.append(call_sid))

    async def ends() -> None:
        try:
            with pytest.raises(LedgerAway):
                await asyncio.wait_for(ledger.ended(ref_of(call), Closing("stream-lost")), 5)
        finally:
            is_back.set()

    run(ends())
    assert left == [call.call_sid]


def test_an_interrupted_turn_marks_the_line_that_was_not_heard_out(ledger: DatabaseLedger) -> None:
    call = a_call(status=Status.STREAMING)
    ledger.note(ref_of(call), a_note("agent-speech-started"))
    ledger.note(ref_of(call), a_note("agent-turn-ended", said_ms=4000, heard_ms=1000, interrupted=True))
    ledger.close()
    history.add_line(call=call, vapi_call_id="v", role=Role.ASSISTANT, text="one two three four", vendor_ms=1, at=timezone.now(), n=0)
    line = call.lines.get(role=Role.ASSISTANT)
    assert (line.heard, line.heard_text) == (Heard.PART, "one")


def test_what_the_bridge_itself_played_is_in_the_transcript(ledger: DatabaseLedger) -> None:
    call = a_call(status=Status.STREAMING)
    ledger.note(ref_of(call), a_note("clip-played", clip="one_moment", text="One moment, please."))
    ledger.close()
    assert call.lines.filter(role=Role.SYSTEM, said="One moment, please.").count() == 1


def test_a_heartbeat_is_a_sign_of_life(ledger: DatabaseLedger) -> None:
    call = a_call(status=Status.STREAMING, last_seen_at=timezone.now() - timedelta(hours=2))
    ledger.heartbeat(ref_of(call))
    ledger.close()
    assert end_silent_calls(now=timezone.now(), ttl=timedelta(hours=1), twilio=None) == []


# -- the end -----------------------------------------------------------------------------------------------------------


def test_the_end_is_stored_after_everything_noted_before_it(ledger: DatabaseLedger, published: QuietPublisher) -> None:
    call = a_call(status=Status.STREAMING)
    for _ in range(300):
        ledger.note(ref_of(call), a_note("mark"))
    figures = {"first_audio_ms": 812, "audio": {"from_agent": 160}}
    run(ledger.ended(ref_of(call), Closing("agent-ended", raw="assistant-ended-call", figures=figures)))
    kinds = list(call.events.values_list("kind", flat=True))
    assert kinds[-302:] == ["mark"] * 300 + ["stream-closed", "call-ended"]
    call.refresh_from_db()
    assert (call.end_reason, call.metrics.first_audio_ms) == (EndReason.AGENT_ENDED, 812)
    assert published.tasks == [("calls.tasks.end_sessions", (call.call_sid,))]


def test_commands_are_read_in_order_and_never_by_the_next_stream(ledger: DatabaseLedger) -> None:
    call = a_call(status=Status.STREAMING)
    rows = [services.ask(call=call, key=f"say:{n}", verb="say", detail={"text": str(n)}, at=timezone.now()) for n in range(3)]
    services.ask(call=call, key="elsewhere", verb="dial", detail={}, at=timezone.now(), to="twilio")
    assert [command.id for command in run(ledger.commands(ref_of(call), after=rows[0].pk))] == [rows[1].pk, rows[2].pk]
    run(ledger.ended(ref_of(call), Closing("drained")))
    assert run(ledger.commands(ref_of(call), after=0)) == []


def test_a_command_that_was_carried_out_is_done_and_only_the_others_came_too_late(ledger: DatabaseLedger) -> None:
    call = a_call(status=Status.STREAMING)
    told, late = [services.ask(call=call, key=f"say:{n}", verb="say", detail={}, at=timezone.now()) for n in range(2)]
    ledger.done(ref_of(call, epoch=1), late.pk)  # a stream of another epoch says nothing about this one's commands
    ledger.done(ref_of(call), told.pk)
    ledger.note(ref_of(call), a_note())
    run(ledger.ended(ref_of(call), Closing("agent-lost")))
    told.refresh_from_db()
    late.refresh_from_db()
    assert (told.problem, late.problem) == ("", "the stream ended first")
    assert None not in (told.done_at, late.done_at)


# -- a caller who presses 0 --------------------------------------------------------------------------------------------


def test_a_caller_who_presses_0_is_handed_over_once_and_the_live_call_is_hinted(ledger: DatabaseLedger, published: QuietPublisher) -> None:
    a_line(targets=("tier2", "tier3"))
    call = a_call(status=Status.STREAMING)
    ledger.note(ref_of(call), a_note("keypad-pressed", count=1))
    for _ in range(3):
        ledger.person_asked(ref_of(call))
    ledger.close()
    (command,) = call.commands.all()
    assert (command.verb, command.to, command.detail["target"], command.detail["at_once"]) == ("hand-over", "live", "tier2", True)
    events = list(call.events.filter(kind__in=("keypad-pressed", "handover-requested")).values_list("kind", "detail"))
    assert events == [
        ("keypad-pressed", {"count": 1}),
        ("handover-requested", {"target": "tier2", "reason": "the caller pressed 0"}),
    ]
    assert published.hints.count((call.call_sid, live.COMMANDS)) == 1


def test_0_leads_to_voicemail_when_nobody_can_be_rung_and_nowhere_when_there_is_none(ledger: DatabaseLedger) -> None:
    a_line(voicemail=True)
    a_line(number="+15550100101", voicemail=False)
    call = a_call(status=Status.STREAMING)
    nowhere = services.open_call(
        sid=call_sid(), account_sid=ACCOUNT, from_number="+15550100199", to_number="+15550100101", at=timezone.now()
    )
    assert nowhere is not None
    ledger.person_asked(ref_of(call))
    ledger.person_asked(ref_of(nowhere))
    ledger.close()
    assert [command.detail["target"] for command in call.commands.all()] == [""]
    assert not nowhere.commands.exists()
    assert not nowhere.events.filter(kind="handover-requested").exists()


def test_0_changes_nothing_for_an_old_stream_or_one_that_is_being_handed_over(ledger: DatabaseLedger) -> None:
    a_line(targets=("tier2",))
    old, asked = a_call(status=Status.STREAMING, epoch=1), a_call(status=Status.STREAMING)
    services.ask(call=asked, key=f"hand-over:{asked.call_sid}:0", verb="hand-over", detail={"target": "tier2"}, at=timezone.now())
    for call in (old, asked):
        ledger.person_asked(ref_of(call))
    ledger.close()
    assert not old.commands.exists()
    assert asked.commands.count() == 1
    assert not asked.events.filter(kind="handover-requested").exists()


# -- a database that is away -------------------------------------------------------------------------------------------


def test_a_slow_database_is_given_300_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = DatabaseLedger(token_key=KEY, client=FakeVapi())
    call = a_call(status=Status.STREAMING)
    gate = threading.Event()
    monkeypatch.setattr(ledger_module, "_conversation", lambda ref: gate.wait(5))
    started = time.monotonic()

    async def ask() -> None:
        with pytest.raises(LedgerAway):
            await ledger.conversation(ref_of(call))
        assert 0.25 < time.monotonic() - started < 1.0
        gate.set()

    run(ask())
    ledger.close()


def test_a_broken_database_is_a_ledger_that_is_away(ledger: DatabaseLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OperationalError

    monkeypatch.setattr(services, "admit_stream", broken)
    call = a_call()
    with pytest.raises(LedgerAway):
        run(ledger.admit(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid="MZ1", token=token(call)))


def test_an_end_that_comes_while_the_database_is_away_is_stored_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = DatabaseLedger(token_key=KEY, client=FakeVapi())
    call = a_call(status=Status.STREAMING)
    away = threading.Event()
    away.set()
    really = services.stream_closed

    def sometimes(**closed: Any) -> bool:
        if away.is_set():
            raise OperationalError
        return really(**closed)

    monkeypatch.setattr(services, "stream_closed", sometimes)
    ledger.note(ref_of(call), a_note("last-note"))
    with pytest.raises(LedgerAway):
        run(ledger.ended(ref_of(call), Closing("caller-left")))
    away.clear()
    ledger.writer.put(Alive(ref_of(call), time.time()))
    wait_for(lambda: CallSession.objects.get(pk=call.pk).closed_epoch == 0)
    assert call.events.filter(kind="last-note").count() == 1
    ledger.close()


def test_a_stream_whose_end_finds_no_room_is_looked_after_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, left = threading.Event(), list[tuple[str, str, int, str]]()
    monkeypatch.setattr(storing, "record_all", lambda _: gate.wait(10) and {})
    ledger = DatabaseLedger(token_key=KEY, client=FakeVapi(), left=lambda *stream: left.append(stream))
    call = a_call(status=Status.STREAMING)
    while ledger.writer.put(Told(ref_of(call), a_note()), urgent=True):
        pass
    with pytest.raises(LedgerAway, match="no room"):
        run(ledger.ended(ref_of(call), Closing("stream-lost")))
    gate.set()
    assert left == [(call.call_sid, call.short_id, 0, "stream-lost")]
    ledger.close()


def test_a_stuck_database_never_blocks_a_note(ledger: DatabaseLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(storing, "record_all", lambda _: gate.wait(10) and {})
    ref = CallRef("CA1", 0, "call-1")
    times = []
    for _ in range(12_000):
        started = time.perf_counter()
        ledger.note(ref, a_note())
        times.append(time.perf_counter() - started)
    gate.set()
    assert sorted(times)[11_900] < 0.005
    assert 1_700 < ledger.writer.counts.dropped < 2_001
