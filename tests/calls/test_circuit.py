"""When an account at Vapi is left alone and when it is tried again: five failures, or one that says why, and one probe in five seconds."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls import circuit
from calls.circuit import AT_ONCE, CLOSED, FAILURES, KINDS, PROBE_EVERY_S, WITHIN_S, Circuit

SLOW_KINDS = tuple(kind for kind in KINDS if kind not in AT_ONCE)
moments = st.floats(0, 100, allow_nan=False)


def failing(times: list[float], kind: str = circuit.TROUBLE) -> Circuit:
    state = CLOSED
    for at in times:
        state = circuit.after_failure(state, kind, at=at)
    return state


@pytest.mark.parametrize("kind", sorted(AT_ONCE))
def test_a_failure_that_says_that_all_will_fail_opens_it_at_once(kind: str) -> None:
    state = failing([7.0], kind)
    assert (state.is_open, state.opened_at, state.why) == (True, 7.0, kind)


@pytest.mark.parametrize("kind", SLOW_KINDS)
def test_any_other_opens_it_the_fifth_time_in_ten_seconds(kind: str) -> None:
    assert [failing([1.0] * count, kind).is_open for count in (4, 5)] == [False, True]
    assert not failing([0.0, 1.0, 2.0, 3.0, 10.0], kind).is_open
    assert failing([0.1, 1.0, 2.0, 3.0, 10.0], kind).is_open


@given(st.lists(moments, max_size=12).map(sorted))
def test_it_is_open_exactly_when_five_of_the_failures_lay_within_ten_seconds(times: list[float]) -> None:
    fives = zip(times, times[FAILURES - 1 :], strict=False)
    assert failing(times).is_open == any(last - first < WITHIN_S for first, last in fives)


@given(st.lists(st.tuples(moments, st.sampled_from(KINDS)), max_size=30))
def test_whatever_comes_in_whatever_order_little_is_remembered_and_a_probe_is_never_far(news: list[tuple[float, str]]) -> None:
    state = CLOSED
    for at, kind in news:
        state = circuit.after_failure(state, kind, at=at)
        assert len(state.failures) < FAILURES
        if state.is_open:
            assert state.why == kind
            assert not circuit.may_probe(state, at=at)
            assert circuit.may_probe(state, at=at + PROBE_EVERY_S)


@given(moments, st.lists(moments, min_size=1, max_size=40).map(sorted))
def test_of_all_calls_one_in_five_seconds_tries_an_open_one(opened: float, calls: list[float]) -> None:
    state, tried = failing([opened], circuit.KEY), []
    for at in (opened + call for call in calls):
        if circuit.may_probe(state, at=at):
            state = circuit.probed(state, at=at)
            tried.append(at)
    assert all(later - sooner >= PROBE_EVERY_S - 1e-6 for sooner, later in zip([opened, *tried], tried, strict=False))
    last = tried[-1] if tried else opened
    assert opened + calls[-1] < last + PROBE_EVERY_S + 1e-6


def test_a_clock_that_jumped_back_keeps_nobody_from_trying() -> None:
    state = failing([10_000.0], circuit.CREDIT)
    assert circuit.may_probe(state, at=6_400.0)
    assert not failing([10_000.0] * 4 + [6_400.0]).is_open


def test_a_probe_that_fails_begins_the_wait_again_and_keeps_when_it_opened() -> None:
    state = circuit.after_failure(failing([0.0], circuit.KEY), circuit.TROUBLE, at=6.0)
    assert (state.opened_at, state.why, state.probe_at) == (0.0, circuit.TROUBLE, 6.0 + PROBE_EVERY_S)


@pytest.mark.parametrize("kinds", list(product(KINDS, repeat=3)), ids="-".join)
def test_of_any_three_failures_it_is_open_from_the_first_one_that_opens(kinds: tuple[str, ...]) -> None:
    state = CLOSED
    for at, kind in enumerate(kinds):
        state = circuit.after_failure(state, kind, at=float(at))
    first = next((float(at) for at, kind in enumerate(kinds) if kind in AT_ONCE), None)
    assert state.opened_at == first
