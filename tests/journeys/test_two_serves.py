"""A whole `serve` dies, parent and children, and another one lives on the same database and Valkey behind a load balancer.

Nobody tells of the death: the leases of who dies are written as if they were of another machine, whose processes this one cannot see.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence

import pytest
from pytest_django import DjangoDbBlocker

from supportvoice.laboratory.ground import children
from tests.journeys.conftest import lived_in
from tests.journeys.house import LONGEST_S, House
from tests.journeys.test_rescued import GOES_ON, STAYS, WITHIN_S, OnTheLine, placed, struck, went_on_with_the_agent

pytestmark = [pytest.mark.journey, pytest.mark.alone]

ELSEWHERE = "UPDATE calls_processlease SET place = 'another-machine pid:[1] 1 1'"


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[House]:
    with lived_in(House(tmp_path_factory.mktemp("twice"), django_db_blocker, is_doubled=True)) as house:
        yield house


def on_the_first(house: House, *modes: str) -> tuple[int, list[OnTheLine]]:
    """A call in each mode, all carried by the first `serve`, the agent in its long answer. Its process id."""
    front, stack = house.front, house.stack
    assert front is not None
    if "serve" not in stack.members:
        house.wait(stack.begin("serve"))
        house.wait(stack.until("both serve", stack.serves))
    first, second = front.servers
    house.eventually(lambda: {first, second} <= front.well)  # a machine that is busy answers late
    front.spared = {second}
    lines = [placed(house, mode) for mode in modes]
    house.eventually(lambda: all(line.ways.port and front.server_of(line.ways.port) == first for line in lines))
    front.spared = set()
    for line in lines:
        house.wait(line.phone.wait_for("caller-says", within=LONGEST_S))
    house.eventually(lambda: all(line.is_answered() for line in lines), within=LONGEST_S)
    house.change(ELSEWHERE)
    return stack.members["serve"].process.pid, lines


def killed(house: House, parent: int, lines: Sequence[OnTheLine]) -> None:
    for pid in (*children(parent), parent):
        os.kill(pid, signal.SIGKILL)
    house.wait(house.stack.kill("serve"))


def test_callers_of_a_whole_serve_that_is_killed_go_on_with_the_agent_at_another(twice: House) -> None:
    for line in struck(twice, killed, GOES_ON, STAYS, on=on_the_first):
        print(f"{line.mode}: the agent is back after {line.served_s():.2f} s")  # noqa: T201
        went_on_with_the_agent(twice, line)
        assert line.served_s() <= WITHIN_S[line.mode]
        assert line.phone.streams[0].end == "broken"
        first, second = twice.at_vapi(line.phone.call_sid)
        assert first.public["endedAt"] < second.public["endedAt"]
        rescued = [detail["how"] for kind, detail in twice.events(line.phone.call_sid) if kind == "call-rescued"]
        assert rescued == ["redirected"] if line.mode == STAYS else "redirected" not in rescued
