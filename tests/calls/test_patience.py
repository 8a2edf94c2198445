"""Who answers a caller waits for the database no longer than the caller's patience, however many questions that takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from calls import patience


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    ours = Clock()
    monkeypatch.setattr(patience, "clock", ours)
    return ours


@pytest.fixture(autouse=True)
def _a_thread_that_answers_calls() -> Iterator[None]:
    with patience.of(patience.ELSEWHERE_S):
        yield


def wait(clock: Clock, seconds: float) -> None:
    with patience.waiting():
        clock.now += seconds


def test_all_waits_for_one_document_share_one_patience(clock: Clock) -> None:
    with patience.of_all(0.4):
        wait(clock, 0.1)
        clock.now += 5.0  # thinking is not waiting
        assert (patience.seconds(), patience.lock_seconds()) == pytest.approx((0.3, 0.3))
        wait(clock, 0.25)
        assert patience.seconds() == pytest.approx(0.05)
        wait(clock, 1.0)
        assert (patience.seconds(), patience.lock_seconds(), patience.left()) == (0.0, 0.0, 0.0)
    assert (patience.seconds(), patience.lock_seconds()) == (patience.ELSEWHERE_S, float("inf"))


def test_a_wait_within_a_wait_is_taken_once_and_sees_what_the_longer_one_left_it(clock: Clock) -> None:
    with patience.of_all(0.4):
        with patience.waiting():  # for a connection
            clock.now += 0.1
            with patience.waiting():  # which is looked at first
                assert patience.seconds() == pytest.approx(0.3)
                clock.now += 0.1
            assert patience.seconds() == pytest.approx(0.2)
        assert patience.left() == pytest.approx(0.2)


def test_a_wait_that_fails_is_taken_too(clock: Clock) -> None:
    with patience.of_all(0.4):
        with suppress(RuntimeError), patience.waiting():
            clock.now += 0.3
            raise RuntimeError
        assert patience.left() == pytest.approx(0.1)


def test_one_question_may_have_less_than_all_of_them(clock: Clock) -> None:
    with patience.of_all(0.4), patience.of(0.3), patience.of_a_lock(0.2):
        assert (patience.seconds(), patience.lock_seconds()) == (0.3, 0.2)
        wait(clock, 0.3)
        assert (patience.seconds(), patience.lock_seconds()) == pytest.approx((0.1, 0.1))


def test_nobody_waits_of_another_threads_patience() -> None:
    seen: list[float] = []
    with patience.of_all(0.0):
        other = threading.Thread(target=lambda: seen.append(patience.left()))
        other.start()
        other.join(5)
    assert seen == [float("inf")]


def test_commands_and_workers_wait_as_long_as_it_takes() -> None:
    with patience.of(None):
        assert patience.seconds() is None
