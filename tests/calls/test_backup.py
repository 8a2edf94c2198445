"""The backup account: who is not taken by the main one is taken there, once, with all that was said; and then by people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import current_app
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from agents import account, lines
from agents.models import Premade, TemplateVersion
from agents.payload import RESUMED
from bridge.errors import VapiError, VapiRefused, VapiUnavailable
from bridge.ports import CallRef, Closing
from calls import (
    accounts,
    breaker,
    circuit,
    erasure,
    handover,
    ladder,
    ledger,
    memory,
    orphans,
    resuming,
    services,
    sessions,
    tasks,
    vendor_erasures,
)
from calls.creating import create
from calls.history import add_line
from calls.models import (
    CallSession,
    EndReason,
    Role,
    Rung,
    Status,
    VapiAccount,
    VapiSession,
    VapiState,
    VendorErasure,
    VendorHealth,
)
from calls.vendor_erasures import Vendors
from tests.builders import FakeVapi, a_call, a_line, session_of
from tests.calls import doors

pytestmark = pytest.mark.django_db(transaction=True)
REFUSED = VapiRefused("Vapi refused with 401.", status=401, limit="key")
TOO_LATE = VapiUnavailable("Vapi did not answer in time.", sent=True)


class Two:
    """Both accounts, in memory; tasks run where they are enqueued."""

    def __init__(self) -> None:
        self.main, self.backup = FakeVapi(), FakeVapi()

    def client(self, name: str = "main") -> FakeVapi:
        return self.backup if name == account.BACKUP else self.main

    @property
    def made(self) -> tuple[int, int]:
        return len(self.main.created), len(self.backup.created)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[Two]:
    both = Two()
    settings.VAPI_BACKUP_API_KEY = "backup-key"
    monkeypatch.setattr(account, "client", both.client)
    current_app.conf.task_always_eager = True
    yield both
    current_app.conf.task_always_eager = False


def fresh(call: CallSession) -> CallSession:
    return CallSession.objects.get(pk=call.pk)


def sessions_of(call: CallSession) -> list[tuple[int, str, str]]:
    return list(call.vapi_sessions.values_list("n", "account", "state"))


def kinds(call: CallSession) -> list[str]:
    return list(call.events.order_by("seq").values_list("kind", flat=True))


@pytest.mark.parametrize("problem", [REFUSED, TOO_LATE, VapiRefused("no sane answer", status=201)], ids=str)
def test_a_create_that_fails_is_followed_by_one_at_the_backup(two: Two, problem: VapiError) -> None:
    call, two.main.problem = a_call(), problem
    tasks.start_conversation(session_of(call).pk)
    assert sessions_of(call) == [(0, "main", VapiState.FAILED), (1, "backup", VapiState.LIVE)]
    assert (two.made, fresh(call).rung) == ((0, 1), Rung.BACKUP)
    assert call.events.get(kind="rung-changed").detail == {"from": "R0", "to": "R2", "why": str(problem)}
    tasks.start_conversation(call.vapi_sessions.get(n=0).pk)
    assert two.made == (0, 1), "nothing is created twice"


def test_the_consumers_own_start_falls_back_as_the_workers_does(two: Two) -> None:
    call, two.main.problem = a_call(status=Status.STREAMING, stream_epoch=0), REFUSED
    clients = {VapiAccount.MAIN: two.main, VapiAccount.BACKUP: two.backup}
    create(CallRef(call_sid=call.call_sid, epoch=0, short_id=call.short_id), 0, clients)
    assert sessions_of(call) == [(0, "main", VapiState.FAILED), (1, "backup", VapiState.LIVE)]
    conversation = ledger._conversation(CallRef(call_sid=call.call_sid, epoch=0, short_id=call.short_id))
    assert conversation is not None
    assert (conversation.n, conversation.state, conversation.account) == (1, "live", "backup")


def test_who_fails_at_both_gets_a_person(two: Two) -> None:
    a_line(targets=("tier2",))
    call = a_call()
    two.main.problem = two.backup.problem = TOO_LATE
    tasks.start_conversation(session_of(call).pk)
    assert sessions_of(call) == [(0, "main", VapiState.FAILED), (1, "backup", VapiState.FAILED)]
    assert not resuming.may_be_resumed(call)
    step = handover.next_step(call_sid=call.call_sid, epoch=0, at=timezone.now())
    assert isinstance(step, ladder.DialHuman)


def test_the_agent_at_the_backup_greets_who_has_heard_nobody_and_has_all_its_words_with_it(two: Two) -> None:
    call, two.main.problem = a_call(), REFUSED
    TemplateVersion.objects.update(premade=Premade.READY, vapi_assistant_id="known-at-main-only")
    lines.forget()
    tasks.start_conversation(session_of(call).pk)
    (request,) = two.backup.created
    assert "assistantId" not in request
    assert request["assistant"]["firstMessage"] == "Hello."
    assert request["name"] == f"{call.call_sid}.1"


def test_mid_call_the_second_loss_leads_to_the_backup_with_what_was_said_and_the_third_to_people(two: Two) -> None:
    call, now = a_call(status=Status.STREAMING, stream_epoch=0), timezone.now()
    tasks.start_conversation(session_of(call).pk)
    add_line(call=call, vapi_call_id="v0", role=Role.USER, text="My printer burns.", vendor_ms=1, at=now, n=0)
    for expected in ((1, "main"), (2, "backup")):
        pk = resuming.here(call_sid=call.call_sid, epoch=0, raw="socket closed with 1011", at=now)
        assert pk is not None
        tasks.start_conversation(pk)
        newest = session_of(call)
        assert (newest.n, newest.account) == expected
    assert resuming.here(call_sid=call.call_sid, epoch=0, raw="again", at=now) is None
    (request,) = two.backup.created
    assert request["assistant"]["firstMessage"] == RESUMED
    assert request["assistant"]["model"]["messages"][-1] == {"role": "user", "content": "My printer burns."}
    assert fresh(call).rung == Rung.BACKUP
    assert memory.so_far(call)


def test_a_caller_whose_way_back_fails_at_the_main_account_comes_back_by_the_backup(two: Two) -> None:
    call, now = a_call(status=Status.STREAMING, stream_epoch=0), timezone.now()
    tasks.start_conversation(session_of(call).pk)
    two.main.problem = TOO_LATE
    pk = resuming.here(call_sid=call.call_sid, epoch=0, raw="socket closed with 1011", at=now)
    assert pk is not None
    tasks.start_conversation(pk)
    assert [(n, name) for n, name, _ in sessions_of(call)] == [(0, "main"), (1, "main"), (2, "backup")]
    assert two.backup.created[0]["assistant"]["firstMessage"] == RESUMED


def test_on_a_new_stream_too_the_second_loss_leads_to_the_backup(two: Two) -> None:
    call, now = a_call(status=Status.STREAMING, stream_epoch=0), timezone.now()
    tasks.start_conversation(session_of(call).pk)
    resuming.here(call_sid=call.call_sid, epoch=0, raw="first loss", at=now)
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("stream-lost"), at=now)
    assert handover.next_step(call_sid=call.call_sid, epoch=0, at=now) == ladder.Resume(backup=True)
    assert (session_of(call).account, fresh(call).epoch) == ("backup", 1)


def test_while_the_main_account_takes_none_calls_go_to_the_backup_at_once_but_for_one_in_five_seconds(two: Two) -> None:
    now = timezone.now()
    breaker.failed("main", circuit.KEY, at=now)
    call = a_call(at=now)
    assert sessions_of(call) == [(0, "backup", VapiState.ASKED)]
    assert (call.rung, kinds(call)[-1]) == (Rung.BACKUP, "rung-changed")
    assert [session_of(a_call(at=now + timedelta(seconds=6))).account for _ in range(3)] == ["main", "backup", "backup"]
    breaker.worked("main", at=now)
    assert session_of(a_call(at=now)).account == "main"


def test_without_a_backup_those_callers_get_a_person_at_once_and_no_agent_is_asked_for(client: Client, settings: Any) -> None:
    settings.VAPI_BACKUP_API_KEY, settings.PUBLIC_URL = "", doors.PUBLIC_URL
    settings.TWILIO_AUTH_TOKENS, settings.TWILIO_ACCOUNT_SID = [doors.TOKEN], doors.ACCOUNT_SID
    doors.a_line()
    breaker.failed("main", circuit.CREDIT, at=timezone.now())
    told = doors.incoming()
    document = doors.tree(doors.knock(client, "/webhook/twilio", told))
    assert "Dial" in str(document)
    assert "Stream" not in str(document)
    call = CallSession.objects.get()
    assert (call.rung, call.status, call.vapi_sessions.count()) == (Rung.HUMAN, Status.TRANSFERRING, 0)
    assert doors.tree(doors.knock(client, "/webhook/twilio", told)) == document


def test_where_nobody_else_could_take_the_call_an_account_that_takes_none_is_tried(settings: Any) -> None:
    settings.VAPI_BACKUP_API_KEY = ""
    a_line(voicemail=False)
    breaker.failed("main", circuit.CREDIT, at=timezone.now())
    assert session_of(a_call()).account == "main"


def test_what_was_made_at_an_account_is_ended_reported_and_erased_there(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    call, two.main.problem = a_call(), REFUSED
    tasks.start_conversation(session_of(call).pk)
    services.end_call(call_sid=call.call_sid, at=timezone.now(), reason=EndReason.CALLER_HUNG_UP)
    tasks.end_sessions(call.call_sid)
    assert (len(two.main.ended), len(two.backup.ended)) == (0, 1)
    asked: list[str] = []
    gone: list[str] = []

    def found(call_id: str) -> dict[str, Any]:
        asked.append(call_id)
        return {"id": call_id, "status": "queued"}

    def deleted(call_id: str) -> bool:
        gone.append(call_id)
        return True

    monkeypatch.setattr(two.backup, "call", found)
    monkeypatch.setattr(two.backup, "delete_call", deleted, raising=False)
    tasks.fetch_report(session_of(call).pk)
    vapi_id = session_of(call).vapi_call_id
    assert asked == [vapi_id]
    erasure._forget_at_vapi(fresh(call), timezone.now(), "")
    vendor_erasures.ask(vendors=Vendors(vapi=None, twilio=None), now=timezone.now())
    assert VendorErasure.objects.get().problem == vendor_erasures.NO_ACCOUNT
    VendorErasure.objects.update(next_at=timezone.now())
    vendor_erasures.ask(vendors=Vendors(vapi=two.main, twilio=None, backup=two.backup), now=timezone.now())  # type: ignore[arg-type]
    assert gone == [vapi_id]


def test_orphans_are_looked_for_at_the_account_that_was_asked(two: Two) -> None:
    call = a_call()
    call.vapi_sessions.update(account="backup", state=VapiState.FAILED, maybe_created=True, claimed_at=timezone.now())
    orphans.end_orphans(client=two.main, now=timezone.now())
    assert two.main.looks == 0
    tasks.end_orphans()
    assert (two.main.looks, two.backup.looks) == (0, 1)


def test_a_call_that_vapi_took_and_ended_for_a_limit_leads_to_the_backup(two: Two) -> None:
    call, now = a_call(status=Status.STREAMING, stream_epoch=0), timezone.now()
    tasks.start_conversation(session_of(call).pk)
    vapi_id = session_of(call).vapi_call_id or ""
    assert sessions.session_ended(vapi_call_id=vapi_id, at=now, raw="call.start.error-subscription-concurrency-limit-reached")
    assert breaker.is_open("main", at=now)
    assert not sessions.session_ended(vapi_call_id=vapi_id, at=now, raw="call.start.error-subscription-concurrency-limit-reached")
    pk = resuming.here(call_sid=call.call_sid, epoch=0, raw="ended first", at=now)
    assert pk is not None
    tasks.start_conversation(pk)
    assert two.backup.created[0]["assistant"]["firstMessage"] == "Hello.", "nobody was on the line before"


def test_what_vapi_refuses_of_one_agent_closes_the_account_to_nobody(two: Two) -> None:
    two.main.problem = VapiRefused("Vapi refused with 400.", status=400)
    for _ in range(6):
        tasks.start_conversation(session_of(a_call()).pk)
    assert (two.made, VendorHealth.objects.count()) == ((0, 6), 0)


@pytest.mark.parametrize("left", ["hung up", "person", "stream over"])
def test_for_who_does_not_wait_any_more_the_backup_is_not_asked(two: Two, left: str) -> None:
    call, now = a_call(status=Status.STREAMING, stream_epoch=0), timezone.now()

    def leave() -> None:
        match left:
            case "hung up":
                services.end_call(call_sid=call.call_sid, at=now, reason=EndReason.CALLER_HUNG_UP)
            case "person":
                services.ask(call=call, key=services.hand_over_key(call.call_sid, 0), verb="hand-over", detail={}, at=now)
            case "stream over":
                services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("no-agent"), at=now)

    two.main.problem, two.main.during = TOO_LATE, leave
    tasks.start_conversation(session_of(call).pk)
    assert (two.made, call.vapi_sessions.count()) == ((0, 0), 1)


def test_an_account_that_refused_a_call_is_asked_for_it_again_a_minute_later(two: Two) -> None:
    call, now = a_call(), timezone.now()
    VapiSession.objects.update(state=VapiState.FAILED, ended_at=now)
    assert accounts.left(call, at=now + timedelta(seconds=59)) == accounts.Left(main=False, backup=True)
    assert accounts.left(call, at=now + timedelta(seconds=61)) == accounts.Left(main=True, backup=True)


@given(losses=st.integers(1, 6), main=st.booleans(), backup=st.booleans())
def test_the_next_agent_is_made_at_an_account_that_is_to_be_had_and_r1_comes_before_r2(losses: int, main: bool, backup: bool) -> None:
    step = ladder.next_agent(losses=losses, main=main, backup=backup)
    if step is None:
        assert losses > 2 or not (main or backup)
    else:
        assert backup if step.backup else main
        assert step.backup == (backup and (losses == 2 or not main))
