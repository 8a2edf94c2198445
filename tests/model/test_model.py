"""Every state one call can get into, with its bridges, its agents and its caller, under faults: none of them loses the caller.

The bound is one fault, wherever it may strike, and two agents; `make model` says how many states those are. Every test run has two
agents without a fault, and the fault with one agent. Each guard that is left out is found within as many faults as it is there for.
"""

from __future__ import annotations

import os

import pytest

from tests.model.explore import explore
from tests.model.world import WRITTEN_BY_THE_PAST, World

FAULTS = int(os.environ.get("MODEL_FAULTS", "1"))

#: faults, agents, and the fewest states there can be if the model is as large as the call
BOUNDS = [(0, 2, 2_500), (1, 1, 400_000), pytest.param(FAULTS, 2, 1_000_000, marks=pytest.mark.long)]

#: what is left out of which condition or step, in how many faults it is missed, and what then goes wrong
GUARDS = {
    "token_unused.stream_epoch": (1, "a second stream was let in, or an old one"),
    "token_unused.epoch": (2, "a second stream was let in, or an old one"),
    "stream_not_closed.epoch": (1, WRITTEN_BY_THE_PAST),
    "stream_not_closed.closed_epoch": (1, "a stream ended twice"),
    "owner.epoch": (2, WRITTEN_BY_THE_PAST),
    "live.ended_at": (0, "a call ended twice"),
    "agent_wanted.ended_at": (0, "an agent was asked for that nobody waits for"),
    "agent_wanted.closed_epoch": (1, "an agent was asked for that nobody waits for"),
    "unclaimed.state": (1, "two calls at Vapi for one session"),
    "claimed_with.state": (1, "a creator left what nobody needs"),
    "of_no_use.call__ended_at": (0, "its books were never closed"),
    "of_no_use.call__status": (1, "a Vapi call nobody needs goes on"),
    "of_no_use.later": (1, "a Vapi call nobody needs goes on"),
    "check after create": (0, "a creator left what nobody needs"),
    "ask-anew": (2, "a caller was hung up on"),
    "left over": (0, "its books were never closed"),
    "orphans": (1, "a Vapi call nobody needs goes on"),
    "rescuer": (1, "a caller waits for nobody"),
    "sweep": (0, "a call never ended"),
}
#: the same, of a world whose database is busy whenever a stream comes
GUARDS_OF_A_BUSY_HOUSE = {
    "turned-away": "a caller is turned away for ever",
    "let-in": "a person was rung although the agent waits",
}
#: the same, of a world whose processes die under a call as often as they may
GUARDS_OF_A_MORTAL_HOUSE = {
    "deaths": "processes die under a call for ever",
    "died": "a person was rung although the agent is well",
}


@pytest.mark.timeout(0)
@pytest.mark.parametrize(("faults", "agents", "states"), BOUNDS)
def test_no_way_through_a_call_loses_its_caller_and_each_comes_to_rest_by_itself(faults: int, agents: int, states: int) -> None:
    found = explore(World(faults=faults, agents=agents))
    assert found.wrong == "", "\n".join([found.wrong, *found.way])
    assert found.states > states, "the model has become smaller than the call"
    assert found.longest <= 20
    print(f"{found.states} states, {found.steps} steps; at most {found.longest} steps to rest")  # noqa: T201


@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_is_missed_when_it_is_left_out(guard: str) -> None:
    faults, wrong = GUARDS[guard]
    off = {guard, "claim twice"} if guard == "unclaimed.state" else {guard}
    assert explore(World(faults=faults, off=frozenset(off))).wrong == wrong


def test_a_database_that_is_busy_for_ever_keeps_nobody_from_the_agent_too_soon_nor_from_a_person_for_ever() -> None:
    found = explore(World(faults=0, is_busy=True))
    assert found.wrong == "", "\n".join([found.wrong, *found.way])


@pytest.mark.parametrize("guard", GUARDS_OF_A_BUSY_HOUSE)
def test_each_guard_of_a_busy_house_is_missed_when_it_is_left_out(guard: str) -> None:
    assert explore(World(faults=0, is_busy=True, off=frozenset({guard}))).wrong == GUARDS_OF_A_BUSY_HOUSE[guard]


def test_processes_that_die_for_ever_lead_nobody_past_a_healthy_agent_too_soon_and_nobody_goes_on_like_that() -> None:
    found = explore(World(faults=0, is_mortal=True))
    assert found.wrong == "", "\n".join([found.wrong, *found.way])
    print(f"{found.states} states, {found.steps} steps; at most {found.longest} steps to rest")  # noqa: T201


@pytest.mark.parametrize("guard", GUARDS_OF_A_MORTAL_HOUSE)
def test_each_guard_of_a_mortal_house_is_missed_when_it_is_left_out(guard: str) -> None:
    assert explore(World(faults=0, is_mortal=True, off=frozenset({guard}))).wrong == GUARDS_OF_A_MORTAL_HOUSE[guard]
