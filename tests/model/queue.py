"""Callers who want the same few places with the AI, as a state and the steps out of it; what `tests.model.world` is for one call.

Whoever asks looks first (`admission.room`) and writes then, a place at a time: two may have looked before either writes, as on
PostgreSQL. Whether there is room, what is next and whether a place may still be had is the product's own word (`admission.Room`,
`ladder.decide`, `guards.place_unchanged`); who counts as there is told again here, and `test_queue` holds it against rows.

`off` leaves out: "place_unchanged.given"; "in turn" (who came before); "asks" and "alive" (that those who are not heard of any more
count no more); "has it already" (a turn that is asked about again).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from calls import guards, ladder
from calls.admission import WITH_AGENT, Room
from calls.models import Status
from tests.model.conditions import Condition, compiled

PEOPLE = (ladder.Target("tier2"),)
WAITING, GIVEN, ELSEWHERE, OVER = Status.WAITING.value, Status.CONNECTING.value, Status.TRANSFERRING.value, Status.ENDED.value


class Caller(NamedTuple):
    """`is_there`: on the line; `is_heard`: there was a sign of them lately, so far as the rows know."""

    status: str = ""
    joined: int = -1
    turn: int = 0
    is_there: bool = True
    is_heard: bool = True
    agents: int = 0


class Place(NamedTuple):
    given: int = 0
    caller: int = -1


class Look(NamedTuple):
    """Somebody has seen that these places are free, and takes one."""

    caller: int
    free: tuple[tuple[int, int], ...]
    before: frozenset[int]  # those who waited longer


class State(NamedTuple):
    callers: tuple[Caller, ...]
    places: tuple[Place, ...]
    looks: tuple[Look, ...] = ()
    joined: int = 0
    faults: int = 0
    broken: str = ""


Name = tuple[str | int, ...]
Step = tuple[str, Name, State]  # fair | choice | fault


class Queue:
    def __init__(self, *, callers: int, places: int, faults: int, people: bool = True, off: frozenset[str] = frozenset()) -> None:
        self.off, self.people = off, people
        self.start = State((Caller(),) * callers, (Place(),) * places, faults=faults)

    def steps(self, s: State) -> Iterator[Step]:
        for i, caller in enumerate(s.callers):
            look = next((each for each in s.looks if each.caller == i), None)
            if look is not None:  # the call's row is held meanwhile
                yield from (("fair", ("takes", i, number), self._takes(s, look, number)) for number, _ in look.free)
                continue
            yield from self._caller(s, i, caller)

    def _caller(self, s: State, i: int, caller: Caller) -> Iterator[Step]:
        if caller.status == "":
            yield "fair", ("rings", i), self._asks(s, i)
        elif caller.status == WAITING and caller.is_there:
            yield "fair", ("asks", i), self._asks(s, i)
        elif caller.status == GIVEN and caller.is_there and s.faults:  # the answer was lost, and the turn is asked about again
            yield "fault", ("asks again", i), _fault(self._asks_again(s, i))
        if caller.status in (WAITING, GIVEN, ELSEWHERE) and caller.is_there:
            yield "choice", ("ends", i), _with(s, i, status=OVER, is_there=False)
            if s.faults:
                yield "fault", ("is gone without a word", i), _fault(_with(s, i, is_there=False))
        if caller.status in (WAITING, GIVEN) and not caller.is_there and caller.is_heard:
            yield "fair", ("is not heard of", i), _with(s, i, is_heard=False)

    # -- looking

    def room(self, s: State, i: int) -> Room:
        places = {number: None if self._is_taken(s, place) else place.given for number, place in enumerate(s.places) if place.given}
        return Room(len(s.places), places, 0 if "in turn" in self.off else len(self._before(s, i)))

    def _is_taken(self, s: State, place: Place) -> bool:
        caller = s.callers[place.caller]
        return caller.status in WITH_AGENT and (caller.is_heard or "alive" in self.off)

    def _before(self, s: State, i: int) -> frozenset[int]:
        mine = s.callers[i].joined if s.callers[i].status == WAITING else s.joined
        waiting = ((j, each) for j, each in enumerate(s.callers) if each.status == WAITING and each.joined < mine)
        return frozenset(j for j, each in waiting if each.is_heard or "asks" in self.off)

    def _asks(self, s: State, i: int) -> State:
        room = self.room(s, i)
        if s.callers[i].status == "":
            step: ladder.Step = ladder.Resume() if room.has_place else ladder.Wait()
        else:
            step = self._decided(s, i, has_room=room.has_place)
        if not isinstance(step, ladder.Resume):
            return self._without(s, i, step)
        look = Look(i, tuple(sorted(room.free(room.most))), self._before(s, i))
        return s._replace(looks=tuple(sorted((*s.looks, look), key=lambda each: each.caller)))

    def _decided(self, s: State, i: int, *, has_room: bool) -> ladder.Step:
        waited_s, targets = s.callers[i].turn * ladder.TURN_S, PEOPLE if self.people else ()
        return ladder.decide(ladder.Facts(is_over=False, closed_why="", targets=targets, waiting_s=waited_s, has_room=has_room))

    def _asks_again(self, s: State, i: int) -> State:
        if "has it already" not in self.off:
            return s
        again = ladder.decide(ladder.Facts(is_over=False, closed_why="", losses=1, resumable=True))
        return _with(s, i, agents=s.callers[i].agents + isinstance(again, ladder.Resume))

    # -- writing

    def _takes(self, s: State, look: Look, number: int) -> State:
        place, seen = s.places[number], dict(look.free)[number]
        if _unchanged(seen, "place_unchanged.given" in self.off)(place, None, False):
            return self._has_it(s, look, number)
        free = tuple(each for each in look.free if each[0] != number)
        if free:
            return _instead(s, look, look._replace(free=free))
        s = _instead(s, look)
        new = s.callers[look.caller].status == ""
        step = ladder.Wait() if new else self._decided(s, look.caller, has_room=False)
        return self._without(s, look.caller, step)._replace(broken="")  # somebody had it in the moment that counts

    def _has_it(self, s: State, look: Look, number: int) -> State:
        i, places = look.caller, list(s.places)
        places[number] = Place(places[number].given + 1, i)
        s = _with(_instead(s, look), i, status=GIVEN, agents=s.callers[i].agents + 1)._replace(places=tuple(places))
        still = [j for j in look.before if s.callers[j].status == WAITING and s.callers[j].is_heard]
        free = len(s.places) - sum(each.status == GIVEN and each.is_heard for each in s.callers)
        return s if len(still) <= max(free, 0) else s._replace(broken="who came last was faster")

    def _without(self, s: State, i: int, step: ladder.Step) -> State:
        caller = s.callers[i]
        match step:
            case ladder.Wait() if caller.status == "":
                return _with(s, i, status=WAITING, joined=s.joined, turn=1)._replace(joined=s.joined + 1)
            case ladder.Wait():
                return _with(s, i, turn=caller.turn + 1)
        over = isinstance(step, ladder.HangUp)
        sent, before = "hung up on" if over else "sent to a person", self._before(s, i)
        there = [each for j, each in enumerate(s.callers) if each.is_heard and (each.status == GIVEN or j in before)]
        broken = f"a caller was {sent} beside a free place" if len(there) + len(s.looks) < len(s.places) else ""
        return _with(s, i, status=OVER if over else ELSEWHERE, is_there=not over)._replace(broken=broken)

    # -- what must hold

    def wrong(self, s: State) -> str:
        if s.broken:
            return s.broken
        if sum(each.status == GIVEN and each.is_heard for each in s.callers) > len(s.places):
            return "the AI has more callers than it carries"
        return "an agent was made for a caller who has one" if any(each.agents > 1 for each in s.callers) else ""

    def wrong_edge(self, before: State, after: State) -> str:
        went_on = any(was.status == OVER and now.status != OVER for was, now in zip(before.callers, after.callers, strict=True))
        return "what ended went on" if went_on else ""

    def unsettled(self, s: State) -> str:
        waits = any(each.is_there and each.status in ("", WAITING) for each in s.callers)
        return "a caller waits for ever" if waits or s.looks else ""


@cache
def _unchanged(seen: int, is_left_out: bool) -> Condition:
    return compiled(guards.place_unchanged(seen), without=["given"] if is_left_out else [])


def _fault(s: State) -> State:
    return s._replace(faults=s.faults - 1)


def _with(s: State, i: int, **changes: Any) -> State:
    callers = list(s.callers)
    callers[i] = callers[i]._replace(**changes)
    return s._replace(callers=tuple(callers))


def _instead(s: State, look: Look, *others: Look) -> State:
    looks = (*(each for each in s.looks if each is not look), *others)
    return s._replace(looks=tuple(sorted(looks, key=lambda each: each.caller)))
