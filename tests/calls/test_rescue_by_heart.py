"""Whom a process that died left in silence while nobody could read the rows: the marks of this machine say so."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings as configured
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from bridge import stream_token
from bridge.ports import Closing
from calls import by_heart, disk_marks, leases, rescue, rescue_by_heart, spoken, standing_still
from calls.ledger import DatabaseLedger
from calls.lifeguard import Lifeguard
from calls.models import CallSession, Status
from calls.rescue import ASKED_WITHIN_S, TRY_AGAIN_S
from tests.builders import ACCOUNT, FakeVapi, a_call, call_sid
from tests.calls.carriers import A, B, Redirects, carried
from tests.calls.doors import CALL_SID, PUBLIC_URL, TOKEN, incoming, knock
from tests.calls.vapi_house import until

pytestmark = pytest.mark.django_db(transaction=True)

GONE, THERE = "a place whose process is gone", "one whose process is there"


def is_gone(place: str) -> bool:
    return place == GONE


def a_stream(place: str = GONE, *, sid: str = "", epoch: int = 0) -> by_heart.Stream:
    stream = by_heart.Stream(sid or call_sid(), epoch, ACCOUNT, place, "abcd")
    by_heart.carries(stream)
    return stream


def left() -> list[tuple[str, int]]:
    return [(job.call_sid, job.epoch) for job in rescue_by_heart.left(is_gone=is_gone, now=0.0)]


def test_who_is_left_by_a_process_that_is_gone_is_given_to_the_first_who_asks() -> None:
    stream = a_stream(epoch=2)
    a_stream(THERE)
    assert left() == [(stream.call_sid, 2)]
    assert left() == []


def test_who_is_carried_by_a_process_that_stands_still_is_sent_on_at_once_and_once() -> None:
    stream = a_stream(THERE)
    standing_still.begins(THERE)
    (job,) = rescue_by_heart.left(is_gone=is_gone, now=7.0)
    assert (job.call_sid, job.due) == (stream.call_sid, 7.0)
    assert left() == []


def test_a_process_that_goes_on_is_left_alone() -> None:
    a_stream(THERE)
    standing_still.begins(THERE)
    standing_still.ends(THERE)
    assert left() == []


def test_a_process_does_not_take_itself_for_one_that_stands_still() -> None:
    a_stream(THERE)
    standing_still.begins(THERE)
    assert rescue_by_heart.left(is_gone=is_gone, now=0.0, here=THERE) == []


@pytest.mark.parametrize("off_s", [-60.0, 60.0])
def test_what_was_said_of_a_process_counts_no_longer_when_whoever_said_it_may_be_gone(off_s: float) -> None:
    a_stream(THERE)
    standing_still.begins(THERE)
    (mark,) = disk_marks.directory().glob(f"*.{standing_still.MARK}")
    os.utime(mark, (time.time() + off_s,) * 2, follow_symlinks=False)
    assert left() == []
    standing_still.begins(THERE)  # said anew
    assert len(left()) == 1


def test_a_process_whose_callers_were_sent_on_is_taken_for_dead_also_when_it_goes_on() -> None:
    stream = a_stream(THERE)
    assert not by_heart.carrier_is_gone(stream.call_sid, 0)
    standing_still.begins(THERE)
    assert by_heart.carrier_is_gone(stream.call_sid, 0)
    assert len(left()) == 1
    standing_still.ends(THERE)
    assert by_heart.carrier_is_gone(stream.call_sid, 0)
    assert not by_heart.carrier_is_gone(a_stream(THERE).call_sid, 0)


SAID: list[tuple[str, Callable[[str], object]]] = [
    ("Twilio has come by itself", lambda sid: by_heart.was_answered(sid, 1)),
    ("the caller has hung up", lambda sid: by_heart.leg_over(sid, status="completed", at=timezone.now())),
    ("the agent had said goodbye", lambda sid: by_heart.closed(sid, 1, "agent-ended")),
    ("they have another stream", lambda sid: a_stream(THERE, sid=sid, epoch=2)),
    ("the end of the stream was written down", lambda sid: by_heart.let_go(sid, 1)),
]


@pytest.mark.parametrize("say", [say for _, say in SAID], ids=[name for name, _ in SAID])
def test_nobody_else_is_disturbed(say: Callable[[str], object]) -> None:
    say(a_stream(epoch=1).call_sid)
    assert left() == []


def test_what_twilio_was_told_is_remembered_for_as_long_as_anybody_would_send_it_to_the_door() -> None:
    stream = a_stream()
    by_heart.was_answered(stream.call_sid, 0)
    assert by_heart.carried() == []
    now = timezone.now().timestamp()
    by_heart.forget_old(now=now + by_heart.EXPECTED_FOR_S - 5)
    assert by_heart.is_answered(stream.call_sid, 0)
    by_heart.forget_old(now=now + by_heart.EXPECTED_FOR_S + 5)
    assert not by_heart.is_answered(stream.call_sid, 0)


def test_whom_twilio_comes_for_in_the_meantime_is_not_sent_on() -> None:
    stream, twilio = a_stream(), Redirects()
    (job,) = rescue_by_heart.left(is_gone=is_gone, now=0.0)
    by_heart.was_answered(stream.call_sid, 0)
    assert rescue_by_heart.rescue(job, twilio=twilio) is None
    assert twilio.asked == []


def test_a_redirect_that_twilio_does_not_take_is_tried_again() -> None:
    stream, twilio = a_stream(), Redirects(away=1)
    (job,) = rescue_by_heart.left(is_gone=is_gone, now=0.0)
    again = rescue_by_heart.rescue(job, twilio=twilio, clock=lambda: 5.0)
    assert again is not None
    assert (again.tries, again.due) == (1, 5.0 + TRY_AGAIN_S[0])
    assert rescue_by_heart.rescue(again, twilio=twilio) is None
    assert twilio.asked == [(stream.call_sid, spoken.resume_url(0))] * 2


# -- who looks -----------------------------------------------------------------------------------------------------------


def turns(guard: Lifeguard, clock: list[float], seconds: float) -> None:
    for _ in range(round(seconds / 0.25)):
        guard._turn()
        clock[0] += 0.25


def a_lifeguard(clock: list[float], twilio: Redirects) -> Lifeguard:
    return Lifeguard(
        rescue.Life(), boot=B, is_well=lambda: True, twilio=lambda: twilio, place=THERE, is_gone=is_gone, clock=lambda: clock[0]
    )


def test_without_a_database_a_lifeguard_sends_them_on_once_twilio_has_had_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, twilio, clock = a_stream(), Redirects(), [100.0]
    guard = a_lifeguard(clock, twilio)

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("gone")

    with monkeypatch.context() as patch:
        for module, name in ((leases, "begin"), (leases, "renew"), (by_heart, "enter")):
            patch.setattr(module, name, away)
        turns(guard, clock, ASKED_WITHIN_S)
        assert twilio.asked == []
        turns(guard, clock, 1.0)
        until(lambda: twilio.asked)
        guard._hands.close()
    assert twilio.asked == [(stream.call_sid, spoken.resume_url(0))]


def test_a_database_that_says_nothing_keeps_nobody_from_being_sent_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the thread that asks it waits for its answer then, nor one that sends a caller on."""
    stream, twilio, is_over = a_stream(THERE), Redirects(), threading.Event()
    standing_still.begins(THERE)

    def says_nothing(*_: Any, **__: Any) -> None:
        assert is_over.wait(30)
        raise OperationalError("gone")

    for module, name in ((leases, "begin"), (leases, "renew"), (by_heart, "enter")):
        monkeypatch.setattr(module, name, says_nothing)
    guard = Lifeguard(rescue.Life(), boot=B, is_well=lambda: True, twilio=lambda: twilio, place="another one", is_gone=is_gone)
    guard.start()
    try:
        until(lambda: twilio.asked, within=standing_still.COUNTS_FOR_S)
    finally:
        is_over.set()
        guard.stop()
    assert twilio.asked == [(stream.call_sid, spoken.resume_url(0))]


def test_with_a_database_the_rows_say_it_and_the_marks_of_the_dead_are_forgotten() -> None:
    call = carried()
    a_stream(sid=call.call_sid)
    leases.died(boot=A, at=timezone.now())
    twilio, clock = Redirects(), [100.0]
    guard = a_lifeguard(clock, twilio)
    turns(guard, clock, 1.0)
    until(lambda: twilio.asked)
    guard._hands.close()
    assert twilio.asked == [(call.call_sid, spoken.resume_url(0))]
    assert by_heart.carried() == []


def test_a_call_that_was_sent_on_by_heart_is_not_sent_to_the_door_again_when_the_database_is_back() -> None:
    call, twilio = carried(), Redirects()
    sign = leases.Sign(leases.Beat(A, 7), 0.0)
    (job,) = rescue.claim(sign, by=B, at=timezone.now(), now=0.0) or []
    told = {"to_number": call.to_number, "account_sid": ACCOUNT, "at": timezone.now().timestamp() - 60, "why": "", "account": "main"}
    by_heart.send_on(call.call_sid, 1, told)
    assert rescue.rescue(job, twilio=twilio) is None
    assert twilio.asked == []
    assert CallSession.objects.get().epoch == 1


# -- who makes the marks ---------------------------------------------------------------------------------------------------


async def test_a_stream_has_a_mark_from_its_admission_until_its_end_is_written_down() -> None:
    key = stream_token.key_from(configured.SECRET_KEY)
    ledger = DatabaseLedger(token_key=key, client=FakeVapi(), deadline_s=5.0, place=THERE)
    call = await asyncio.to_thread(a_call)
    token = stream_token.issue(key=key, call_sid=call.call_sid, epoch=0, expires=int(timezone.now().timestamp()) + 60)
    admission = await ledger.admit(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid="MZ" + "a" * 32, token=token)
    assert admission is not None
    assert by_heart.carried() == [by_heart.Stream(call.call_sid, 0, ACCOUNT, THERE, call.short_id)]
    await ledger.ended(admission.ref, Closing("caller-left"))
    await asyncio.to_thread(ledger.close)
    assert by_heart.carried() == []


def test_twilio_that_was_told_what_is_next_is_remembered(client: Client, settings: Settings) -> None:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS = PUBLIC_URL, [TOKEN]
    call = a_call(sid=CALL_SID, status=Status.RECOVERING, stream_epoch=0)
    assert knock(client, "/webhook/twilio/resume/0", incoming(CallStatus="in-progress")).status_code == 200
    assert by_heart.is_answered(call.call_sid, 0)
