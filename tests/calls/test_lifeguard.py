"""A process renews its lease while it is well, and judges others by theirs only as long as its own was renewed in time."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from calls import leases, rescue
from calls.leases import LEASE_S, RENEW_EVERY_S
from calls.lifeguard import LATE_S, Lifeguard
from calls.models import CallSession, ProcessLease
from calls.rescue import ASKED_WITHIN_S
from tests.calls.carriers import A, B, Redirects, carried


def a_lifeguard(clock: list[float], twilio: Redirects | None = None, *, well: bool = True) -> tuple[rescue.Life, Lifeguard]:
    life = rescue.Life()
    return life, Lifeguard(life, boot=B, is_well=lambda: well, twilio=lambda: twilio, clock=lambda: clock[0])


def one_whose_loop_stops(clock: list[float], well: list[bool]) -> Lifeguard:
    """It has renewed its lease, and its loop stands still from now on."""
    guard = Lifeguard(rescue.Life(), boot=B, is_well=lambda: well[0], twilio=lambda: None, clock=lambda: clock[0])
    turns(guard, clock, 0.75)
    well[0] = False
    return guard


def turns(guard: Lifeguard, clock: list[float], seconds: float) -> None:
    for _ in range(round(seconds / 0.25)):
        guard.turn()
        clock[0] += 0.25


@pytest.mark.django_db
def test_a_lifeguard_claims_a_silent_process_after_one_lease() -> None:
    carried()
    clock = [100.0]
    _, guard = a_lifeguard(clock)
    turns(guard, clock, LEASE_S)
    assert CallSession.objects.get().held_by == A
    turns(guard, clock, 0.5)
    assert CallSession.objects.get().held_by == B


@pytest.mark.django_db
def test_twilio_has_had_its_time_when_a_process_was_dead_before_the_lifeguard_began(monkeypatch: pytest.MonkeyPatch) -> None:
    carried()
    leases.died(boot=A, at=timezone.now())
    clock, left_s = [100.0], []
    _, guard = a_lifeguard(clock)
    monkeypatch.setattr(rescue, "claim", lambda sign, *, asked_within_s, **more: left_s.append(asked_within_s))
    guard.turn()
    guard.turn()
    assert left_s == [0.0, ASKED_WITHIN_S]


@pytest.mark.django_db
def test_a_process_that_could_not_renew_its_own_lease_waits_a_whole_one_before_it_claims_another() -> None:
    carried()
    clock = [100.0]
    _, guard = a_lifeguard(clock)
    turns(guard, clock, 0.5)
    clock[0] += 30.0  # the database was away, or we were stopped
    turns(guard, clock, LEASE_S)
    assert CallSession.objects.get().held_by == A


@pytest.mark.django_db
def test_a_process_whose_loop_is_stuck_renews_nothing_and_claims_nobody() -> None:
    carried()
    clock = [100.0]
    _, guard = a_lifeguard(clock, well=False)
    turns(guard, clock, 10.0)
    assert not ProcessLease.objects.filter(boot=B).exists()
    assert CallSession.objects.get().held_by == A


@pytest.mark.django_db
def test_a_process_whose_loop_was_stuck_waits_a_whole_lease_before_it_claims_another() -> None:
    carried()
    clock, well = [100.0], [True]
    guard = one_whose_loop_stops(clock, well)
    turns(guard, clock, 0.5)
    well[0] = True
    turns(guard, clock, LEASE_S)
    assert CallSession.objects.get().held_by == A
    turns(guard, clock, 0.5)
    assert CallSession.objects.get().held_by == B


@pytest.mark.django_db
def test_a_process_whose_loop_stands_still_says_so_and_takes_it_back_when_it_goes_on() -> None:
    clock, well = [100.0], [True]
    guard = one_whose_loop_stops(clock, well)
    turns(guard, clock, RENEW_EVERY_S)
    assert [beat.is_frozen for beat in leases.beats(but=A)] == [True]
    well[0] = True
    turns(guard, clock, RENEW_EVERY_S)
    assert [beat.is_frozen for beat in leases.beats(but=A)] == [False]


@pytest.mark.django_db
def test_a_process_all_of_which_stood_still_lets_its_loop_have_a_turn_before_it_says_so() -> None:
    clock, well = [100.0], [True]
    guard = one_whose_loop_stops(clock, well)
    clock[0] += LATE_S + 0.1
    turns(guard, clock, 0.25)
    assert [beat.is_frozen for beat in leases.beats(but=A)] == [False]
    turns(guard, clock, 0.25)
    assert [beat.is_frozen for beat in leases.beats(but=A)] == [True]


@pytest.mark.django_db
@pytest.mark.parametrize("slow", ["renew", "beats"])
def test_a_process_that_waited_long_for_the_database_waits_a_whole_lease_before_it_claims_another(
    monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    carried()
    clock = [100.0]
    _, guard = a_lifeguard(clock)
    turns(guard, clock, LEASE_S - 0.25)
    really = getattr(leases, slow)

    def slowly(**asked: Any) -> Any:
        clock[0] += LATE_S + 0.1
        return really(**asked)

    with monkeypatch.context() as patch:
        patch.setattr(leases, slow, slowly)
        turns(guard, clock, 0.5)
    assert CallSession.objects.get().held_by == A
    turns(guard, clock, LEASE_S + 0.5)
    assert CallSession.objects.get().held_by == B


@pytest.mark.django_db(transaction=True)
def test_a_database_that_fails_makes_a_process_time_everybody_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    carried()
    clock = [100.0]
    _, guard = a_lifeguard(clock)
    turns(guard, clock, LEASE_S - 0.25)

    def away(**asked: Any) -> None:
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(leases, "beats", away)
        guard._safely(guard.turn)
    clock[0] += 0.5
    turns(guard, clock, 0.5)
    assert CallSession.objects.get().held_by == A


@pytest.mark.django_db
def test_a_process_that_was_taken_for_dead_goes_on_under_another_name() -> None:
    clock = [100.0]
    life, guard = a_lifeguard(clock)
    turns(guard, clock, 0.25)
    ProcessLease.objects.filter(boot=B).update(claimed_by=A, claimed_at=timezone.now())
    turns(guard, clock, 1.0)
    assert life.boot not in (None, B)
    assert ProcessLease.objects.get(boot=life.boot).claimed_by is None


@pytest.mark.django_db(transaction=True)
def test_a_call_that_no_hand_is_free_for_is_sent_on_at_the_next_look() -> None:
    call, clock, twilio, gate = carried(B), [100.0], Redirects(), threading.Event()
    life, guard = a_lifeguard(clock, twilio)
    while guard._hands.take(gate.wait, 10) is not None:
        pass
    life.look_after(rescue.Rescue(call.call_sid, call.short_id, 0, 100.0, 100.0))
    guard.turn()
    assert (guard._hands.refused, [job.due for job in guard._rescues]) == (2, [100.0 + rescue.LOOK_EVERY_S])
    gate.set()
    until = time.monotonic() + 5.0
    while not twilio.asked:
        assert time.monotonic() < until
        turns(guard, clock, rescue.LOOK_EVERY_S)
        time.sleep(0.01)
    guard._hands.close()
    assert [sid for sid, _ in twilio.asked] == [call.call_sid]


@pytest.mark.django_db(transaction=True)
def test_a_running_lifeguard_sends_the_calls_of_a_dead_process_on_and_says_goodbye() -> None:
    call, sent = carried(), threading.Event()

    class Told(Redirects):
        def redirect(self, call_sid: str, url: str, account_sid: str = "") -> bool:
            sent.set()
            return super().redirect(call_sid, url, account_sid)

    leases.died(boot=A, at=timezone.now())
    twilio = Told()
    guard = Lifeguard(rescue.Life(), boot=B, is_well=lambda: True, twilio=lambda: twilio)
    guard.start()
    assert sent.wait(5.0)
    guard.stop()
    assert [sid for sid, _ in twilio.asked] == [call.call_sid]
    assert ProcessLease.objects.get(boot=B).dead_at is not None
