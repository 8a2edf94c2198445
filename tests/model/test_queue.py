"""Every order in which a few callers may want fewer places with the AI, under faults: each gets one in their turn, or something else.

A line with people behind it sends a caller there after half a minute; where there is nobody, one who has waited three minutes is hung up
on, so a caller who waits there behind somebody who is not there any more is lost.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from random import Random

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from calls import handover, ladder, queueing, services
from calls.models import CallSession, EndReason, Status
from tests.builders import ACCOUNT, CALLER, LINE, a_line, call_sid
from tests.model.explore import explore
from tests.model.queue import Name, Queue, State

#: callers, places, faults, and whether there are people behind the line
BOUNDS = [(3, 1, 2, True), (3, 2, 2, True), (3, 1, 1, False), pytest.param(4, 1, 1, True, marks=pytest.mark.long)]
WALKS, CALLERS = 8, 5

#: what is left out, at how many callers and faults it is missed, and what then goes wrong where nobody is behind the line
GUARDS = {
    "place_unchanged.given": (2, 0, "the AI has more callers than it carries"),
    "in turn": (3, 0, "who came last was faster"),
    "asks": (3, 1, "a caller was hung up on beside a free place"),
    "alive": (2, 1, "a caller was hung up on beside a free place"),
    "has it already": (2, 1, "an agent was made for a caller who has one"),
}


@pytest.mark.parametrize(("callers", "places", "faults", "people"), BOUNDS)
def test_no_order_of_callers_leaves_one_waiting_beside_a_free_place(callers: int, places: int, faults: int, people: bool) -> None:
    found = explore(Queue(callers=callers, places=places, faults=faults, people=people))
    assert found.wrong == "", "\n".join([found.wrong, *found.way])
    assert found.states > 6_000, "the model has become smaller than the queue"
    print(f"{found.states} states, {found.steps} steps; at most {found.longest} steps to rest")  # noqa: T201


@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_of_the_queue_is_missed_when_it_is_left_out(guard: str) -> None:
    callers, faults, wrong = GUARDS[guard]
    assert explore(Queue(callers=callers, places=1, faults=faults, people=False, off=frozenset({guard}))).wrong == wrong


class Real:
    """The rows of the callers. Whoever looks writes at once here, so a place that is seen is had."""

    def __init__(self) -> None:
        self.sids = [call_sid() for _ in range(CALLERS)]
        self.now = timezone.now()

    def step(self, name: Name, before: State) -> None:
        self.now += timedelta(milliseconds=1)
        what, i = name[0], int(name[1])
        sid = self.sids[i]
        match what:
            case "rings":
                services.open_call(sid=sid, account_sid=ACCOUNT, from_number=CALLER, to_number=LINE, at=self.now)
            case "asks" | "asks again":
                waited_s = max(1, before.callers[i].turn) * ladder.TURN_S
                turn = -int(-waited_s // queueing.SHORTEST_TURN_S)
                handover.next_step(call_sid=sid, epoch=0, at=self.now, turn=turn)
            case "ends":
                services.end_call(call_sid=sid, at=self.now, reason=EndReason.CALLER_HUNG_UP)
            case "is not heard of":
                CallSession.objects.filter(call_sid=sid).update(last_seen_at=self.now - timedelta(days=1))

    def stands(self) -> list[tuple[str, int]]:
        calls = {call.call_sid: call for call in CallSession.objects.filter(call_sid__in=self.sids)}
        known = [calls.get(sid) for sid in self.sids]
        return [("over" if call.is_over else str(call.status), call.vapi_sessions.count()) if call else ("", 0) for call in known]


def expected(s: State) -> list[tuple[str, int]]:
    return [("over" if each.status == "ended" else each.status, each.agents) for each in s.callers]


@pytest.mark.django_db
@pytest.mark.parametrize("places", [1, 2])
def test_what_the_queue_of_the_model_does_is_what_the_services_do(settings: Settings, places: int) -> None:
    settings.MAX_CALLS = places
    a_line(targets=("tier2",))
    chance, seen = Random(places), Counter[str]()
    for _ in range(WALKS):
        over = {"status": Status.ENDED, "ended_at": timezone.now(), "end_reason": EndReason.CALLER_HUNG_UP}
        CallSession.objects.update(**over)  # those of the walk before are in nobody's way
        world, real, way = Queue(callers=CALLERS, places=places, faults=3), Real(), list[str]()
        state = world.start
        while steps := list(world.steps(state)):
            rare = min(steps, key=lambda step: (seen[str(step[1][0])], chance.random()))
            _, name, after = chance.choice([rare, *chance.choices(steps)])
            real.step(name, state)
            while after.looks:
                after = next(there for _, wrote, there in world.steps(after) if wrote[0] == "takes")
            way.append(" ".join(map(str, name)))
            seen[str(name[0])] += 1
            state = after
            assert real.stands() == expected(state), "\n".join(way)
    assert {"rings", "asks", "asks again", "ends", "is not heard of"} <= set(seen)
