"""The counters of a call's streams, added up."""

from __future__ import annotations

from bridge.figures import together


def test_streams_are_added_up_but_of_a_most_the_largest_stays() -> None:
    first = {"to_caller": 160, "from_agent_held_most": 900, "keys": 0}
    second = {"to_caller": 320, "from_agent_held_most": 400, "clips": 80}
    assert together(first, second) == {"to_caller": 480, "from_agent_held_most": 900, "clips": 80}
    assert together({}, second) == second
