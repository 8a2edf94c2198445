"""A process whose counter stands still, or that is known to be gone, is seen by everybody; one that is well is not."""

from __future__ import annotations

import uuid

import pytest
from django.utils import timezone

from calls import leases
from calls.leases import LEASE_S, Beat, Observer
from tests.calls.carriers import A, B


def test_a_counter_that_stands_still_for_a_lease_is_seen_and_one_that_moves_is_not() -> None:
    observer = Observer()
    seen = [observer.look([Beat(A, 5), Beat(B, tick)], tick * 0.5) for tick in range(6)]
    assert [[sign.beat.boot for sign in signs] for signs in seen] == [[], [], [], [], [A], [A]]
    assert seen[4][0].at == 0.0


def test_a_process_that_was_seen_to_die_is_claimed_without_a_wait() -> None:
    assert [sign.beat.boot for sign in Observer().look([Beat(A, 5, is_dead=True)], 3.0)] == [A]


def test_a_process_that_does_not_answer_whoever_started_it_is_claimed_without_a_wait() -> None:
    assert [sign.beat.boot for sign in Observer().look([Beat(A, 5, is_frozen=True)], 3.0)] == [A]


@pytest.mark.django_db
def test_a_process_whose_machine_says_that_it_is_gone_is_claimed_without_a_wait() -> None:
    leases.begin(boot=A, at=timezone.now(), place="here 7")
    leases.begin(boot=B, at=timezone.now(), place="here 8")
    found = leases.beats(but=uuid.uuid4(), is_gone=lambda place: place == "here 7")
    assert [sign.beat.boot for sign in Observer().look(found, 3.0)] == [A]


def test_who_forgets_times_everybody_for_a_whole_lease_again() -> None:
    observer = Observer()
    observer.look([Beat(A, 5)], 0.0)
    observer.forget()
    assert observer.look([Beat(A, 5)], LEASE_S) == []
    assert observer.look([Beat(A, 5)], 2 * LEASE_S) != []
