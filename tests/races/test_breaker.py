"""One circuit for all processes: what one of two has learnt of an account the other goes by at once, and one of both is the probe."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from calls import circuit
from tests.races.pair import Pair

ACCOUNTS = [f"a{number}" for number in range(40)]
AT = timezone.now().replace(microsecond=0).timestamp()
LATER = AT + timedelta(seconds=circuit.PROBE_EVERY_S + 1).total_seconds()


def of_each(**more: object) -> list[dict[str, object]]:
    return [{"account": account, **more} for account in ACCOUNTS]


def opened_by_either(pair: Pair) -> None:
    """Of two accounts at a time the first process breaks one and the second the other; then each asks for what the other broke."""
    assert set(pair.at_once("may_ask", of_each(at=AT))) == {(True, True)}
    mine, others = of_each(at=AT, kind=circuit.KEY, times=1)[::2], of_each(at=AT, kind=circuit.KEY, times=1)[1::2]
    assert set(pair.at_once("fail", mine, "fail", others)) == {(1, 1)}
    assert set(pair.at_once("may_ask", of_each(at=AT)[1::2], "may_ask", of_each(at=AT)[::2])) == {(False, False)}


def probed_by_one(pair: Pair) -> None:
    probes = pair.at_once("may_ask", of_each(at=LATER))
    assert [sorted(both) for both in probes] == [[False, True]] * len(ACCOUNTS)
    assert {first for first, _ in probes} == {True, False}, "one of them always came first: there was no race"
    assert set(pair.at_once("may_ask", of_each(at=LATER + 1))) == {(False, False)}


def closed_for_both_by_a_call_that_works(pair: Pair) -> None:
    closed = pair.at_once("work", of_each(at=LATER))
    assert [sum(both) for both in closed] == [1] * len(ACCOUNTS)
    assert set(pair.at_once("may_ask", of_each(at=LATER))) == {(True, True)}


def a_failure_of_either_counts(pair: Pair) -> None:
    """Three and two at once are the five that open it, and one of them raises the alarm."""
    three, two = of_each(at=LATER, kind=circuit.TROUBLE, times=3), of_each(at=LATER, kind=circuit.TROUBLE, times=2)
    alarms = pair.at_once("fail", three, "fail", two)
    assert [sum(both) for both in alarms] == [1] * len(ACCOUNTS)
    assert set(pair.at_once("may_ask", of_each(at=LATER))) == {(False, False)}


def one_circuit(pair: Pair) -> None:
    opened_by_either(pair)
    probed_by_one(pair)
    closed_for_both_by_a_call_that_works(pair)
    a_failure_of_either_counts(pair)


def test_two_processes_have_one_circuit(pair: Pair) -> None:
    one_circuit(pair)


@pytest.mark.postgres
@pytest.mark.timeout(300)
def test_two_processes_have_one_circuit_on_postgresql(pair_on_postgresql: Pair) -> None:
    one_circuit(pair_on_postgresql)
