"""Every state a world can be in, breadth first, and whether each leads to rest by itself.

A violation comes with the shortest way there. Where nothing is violated, the fair steps are a graph without a circle, so from
every state rest is reached whatever order they come in; `longest` is the most steps that takes.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

S = TypeVar("S", bound=Hashable)


class Explorable(Protocol[S]):
    """A world: where it begins, the steps out of each state (kind, name, state after), and what must hold."""

    start: S

    def steps(self, s: S) -> Iterable[tuple[str, tuple[str | int, ...], S]]: ...

    def wrong(self, s: S) -> str:
        """What is wrong with a state, whatever comes next."""

    def wrong_edge(self, before: S, after: S) -> str:
        """What one step may never do."""

    def unsettled(self, s: S) -> str:
        """What is wrong with a state in which nothing more happens by itself."""


@dataclass
class Found:
    states: int = 0
    steps: int = 0
    longest: int = 0
    wrong: str = ""
    way: list[str] = field(default_factory=list)


def explore(world: Explorable[S], *, at_most: int = 10_000_000) -> Found:
    known: dict[S, int] = {world.start: 0}
    order, parents, names = [world.start], array("l", [-1]), [""]
    fair = [array("l")]
    found = Found()
    at = 0
    while at < len(order):
        before = order[at]
        for kind, name, after in world.steps(before):
            if after == before:
                continue
            found.steps += 1
            there = known.get(after)
            if there is None:
                there = known[after] = len(order)
                order.append(after)
                parents.append(at)
                names.append(" ".join(map(str, name)))
                fair.append(array("l"))
                problem = world.wrong(after)
                if problem:
                    return _told(found, problem, there, parents, names)
            problem = world.wrong_edge(before, after)
            if problem:
                return _told(found, problem, there, parents, names)
            if kind == "fair":
                fair[at].append(there)
        if not fair[at] and (problem := world.unsettled(before)):
            return _told(found, problem, at, parents, names)
        at += 1
        assert len(order) <= at_most, "more states than this bound allows"
    found.states = len(order)
    circle = _longest(fair, found)
    return found if circle is None else _told(found, "goes round in a circle for ever", circle, parents, names)


def _told(found: Found, problem: str, at: int, parents: array[int], names: list[str]) -> Found:
    found.wrong = problem
    while at > 0:
        found.way.insert(0, names[at])
        at = parents[at]
    return found


def _longest(fair: list[array[int]], found: Found) -> int | None:
    """Sets the longest way to rest; a state that lies on a circle, if there is one."""
    depth, open_now = array("l", [-1]) * len(fair), bytearray(len(fair))
    for root in range(len(fair)):
        stack = [(root, 0)] if depth[root] < 0 else []
        while stack:
            at, place = stack.pop()
            open_now[at] = 1
            if place < len(fair[at]):
                stack.append((at, place + 1))
                following = fair[at][place]
                if open_now[following]:
                    return following
                if depth[following] < 0:
                    stack.append((following, 0))
                continue
            depth[at] = 1 + max((depth[each] for each in fair[at]), default=-1)
            open_now[at] = 0
    found.longest = max(depth, default=0)
    return None
