"""The model against the real services: random walks through it are walked on rows as well, and every step must lead to the same."""

from __future__ import annotations

import uuid
from collections import Counter
from random import Random
from typing import Any

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from bridge.ports import Closing
from bridge.vapi_answers import VapiCall
from calls import handover, ladder, leases, let_in, parked, resuming, services, sessions, turned_away
from calls.models import CallSession, EndReason, VapiSession
from tests.builders import FakeVapi, a_call, a_line, call_sid, vapi_call
from tests.model.product import Product
from tests.model.world import Name, State, World

pytestmark = pytest.mark.django_db

WALKS, LENGTH = 80, 30


class Real:
    """The rows of one call. A step of the model that touches them is a method of the same effect; any other touches nothing."""

    def __init__(self) -> None:
        self.sid = call_sid()
        self.claims: dict[tuple[int, str], Any] = {}
        self.boots: dict[int, uuid.UUID] = {}  # of the process that carries the stream of an epoch

    def admit(self, epoch: int, stream_sid: str = "MZ") -> None:
        boot, at = uuid.uuid4(), timezone.now()
        leases.begin(boot=boot, at=at)
        account = CallSession.objects.get(call_sid=self.sid).account_sid
        if services.admit_stream(call_sid=self.sid, account_sid=account, stream_sid=stream_sid, epoch=epoch, at=at, held_by=boot):
            self.boots[epoch] = boot

    def is_seen_dead(self, epoch: int) -> None:
        if epoch in self.boots:
            leases.died(boot=self.boots[epoch], at=timezone.now())

    def row(self, n: int) -> VapiSession:
        return VapiSession.objects.get(call__call_sid=self.sid, n=n)

    def step(self, name: Name, before: State) -> None:
        at, sid = timezone.now(), self.sid
        match name:
            case ("incoming",) | ("incoming, late",):
                a_call(sid=sid)
            case ("status",) | ("sweep",) | ("message left",):
                if before.call is None:
                    a_call(sid=sid)
                    CallSession.objects.get(call_sid=sid).vapi_sessions.all().delete()
                services.end_call(call_sid=sid, at=at, reason=EndReason.CALLER_HUNG_UP)
            case ("admit" | "admit twin", int(epoch)):
                self.admit(epoch)
                self.is_seen_dead(before.unseen)
            case ("killed" | "seen dead" | "rescued" | "rescuer is slow", int(epoch)):
                self.is_seen_dead(epoch)
            case ("turned away", int(epoch)):
                let_in.turn_away(sid, epoch, "MZ of another try")
            case ("turned away, let in too late", int(epoch)):
                let_in.turn_away(sid, epoch, "MZ that came late")
                self.admit(epoch, "MZ that came late")
            case ("door" | "door, unheard", int(epoch)):
                handover.next_step(call_sid=sid, epoch=epoch, at=at)
            case ("dial result" | "dial result, unheard", int(epoch), str(target), str(how)):
                status = "completed" if how == "talk" else "no-answer"
                handover.dial_result(call_sid=sid, epoch=epoch, target=target, status=status, at=at)
                handover.next_step(call_sid=sid, epoch=epoch, at=at)
            case ("closes" | "written" | "closes, and is written again", int(epoch), str(why)):
                services.stream_closed(call_sid=sid, epoch=epoch, closing=Closing(why), at=at)
            case ("agent lost" | "agent breaks", int(epoch)):
                resuming.here(call_sid=sid, epoch=epoch, raw="lost", at=at)
            case ("not found", int(epoch)):
                resuming.here(call_sid=sid, epoch=epoch, raw="waits elsewhere", at=at)
            case ("taken up", int(epoch)):
                assert parked.taken_up(call_sid=sid, epoch=epoch, at=at)
            case ("parked no more", int(epoch)):
                resuming.given_up(call_sid=sid, epoch=epoch, at=at)
            case ("hand over", int(epoch)):
                call = CallSession.objects.get(call_sid=sid)
                services.ask(call=call, key=services.hand_over_key(sid, epoch), verb="hand-over", detail={"target": "tier2"}, at=at)
            case ("claim", int(n), str(who)):
                self.claims[n, who] = sessions.claim_session(pk=self.row(n).pk, by=who, at=at)
            case ("live" | "live, too late", int(n), str(who)):
                made: VapiCall = vapi_call()
                sessions.session_live(pk=self.row(n).pk, claim=self.claims[n, who], vapi_call=made, at=at)
            case ("refused" | "unanswered", int(n), str(who)):
                maybe = name[0] == "unanswered"
                sessions.session_failed(pk=self.row(n).pk, claim=self.claims[n, who], why="x", at=at, maybe_created=maybe)
            case ("given up" | "given up early", int(n)):
                row = self.row(n)
                assert row.claim is not None
                sessions.session_failed(pk=row.pk, claim=row.claim, why="x", at=at, maybe_created=True)
            case ("end session", int(n)):
                assert self.row(n).pk in sessions.open_sessions(call_sid=sid)
                sessions.end_session(pk=self.row(n).pk, client=FakeVapi(), at=at)
            case ("checked", int(n)):
                if VapiSession.objects.filter(sessions.OF_NO_USE, pk=self.row(n).pk).exists():
                    sessions.end_session(pk=self.row(n).pk, client=FakeVapi(), at=at)

    def stands(self) -> tuple[Any, ...]:
        call = CallSession.objects.get(call_sid=self.sid)
        over = "over" if call.is_over else call.status  # the books are closed after commit: no commit comes in a test
        dials = [(dial.detail["target"], dial.done_at and ("no" if dial.problem else "talk")) for dial in call.commands.filter(verb="dial")]
        known = [(each.state, each.ended_at is not None) for each in call.vapi_sessions.all()]
        streams = (call.epoch, call.stream_epoch, call.closed_epoch, call.closed_why)
        deaths = -1 if call.is_over else call.events.filter(kind=resuming.LOST, detail__raw=resuming.GONE).count()
        return over, deaths, *streams, turned_away.in_a_row(call), [(target, how or "") for target, how in dials], known


def expected(s: State) -> tuple[Any, ...]:
    assert s.call is not None
    over = "over" if s.call.is_over else s.call.status
    known = [(each.state, each.ended_at is not None) for each in s.sessions]
    streams = (s.call.epoch, s.call.stream_epoch, s.call.closed_epoch, s.call.closed_why)
    deaths = -1 if s.call.is_over else s.call.deaths
    return over, deaths, *streams, Product().turned_away(s.call, s.sessions), list(s.call.dials), known


def test_what_the_model_says_of_a_step_is_what_the_services_do(settings: Settings) -> None:
    settings.MAX_CALLS = WALKS  # nobody waits here
    a_line(targets=("tier2",), voicemail=True)
    chance, seen = Random(11), Counter[str | int]()
    for _ in range(WALKS):
        world, real = World(faults=30, agents=ladder.RESUMES + 1), Real()
        state, way = world.start, []
        for _ in range(LENGTH):
            steps = [(name, after) for _, name, after in world.steps(state) if after != state and name != ("caller leaves",)]
            if not steps:
                break
            rare = min(steps, key=lambda step: (seen[step[0][0]], chance.random()))
            name, after = chance.choice([rare, *chance.choices(steps)])
            way.append(" ".join(map(str, name)))
            seen[name[0]] += 1
            real.step(name, state)
            state = after
            if state.call is not None:
                assert real.stands() == expected(state), "\n".join(way)
    assert {"door", "admit", "admit twin", "closes", "claim", "live", "given up", "dial result", "agent breaks", "hand over"} <= set(seen)
    assert {"killed", "killed, unseen", "seen dead", "rescued", "not found", "turned away", "turned away, let in too late"} <= set(seen)


MADE = ("claim", "created", "live", "checked")
TALKS = ("incoming", *MADE, "admit", "connects")
PARKED = ("Twilio drops", "stream is gone, and the agent parked", "closes", "door")
DEAD = ("Twilio goes on", "door")
ANOTHER = (1, 0, "talks", "1")  # agent, on another stream
WAYS = {  # the steps, and which bridge has the caller at last
    "parked and found": ((*TALKS, *2 * (*PARKED, "admit", "taken up")), (2, 0, "talks", "0")),
    "parked in vain": ((*TALKS, *PARKED, "parked no more", "admit", *MADE, "connects"), ANOTHER),
    "parked where nobody lives": ((*TALKS, *PARKED, "killed", "admit", "not found", *MADE, "connects"), ANOTHER),
    "killed, and known late": ((*TALKS, "killed, unseen", *DEAD, "seen dead", "admit", "not found", *MADE, "connects"), ANOTHER),
    "frozen": ((*TALKS, "freezes", "rescued", "door", "admit", *MADE, "connects"), ANOTHER),
    "killed three times": ((*TALKS, *2 * ("killed", *DEAD, "admit", *MADE, "connects"), "killed", *DEAD), None),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_chance_rarely_walks_is_the_same_to_both(way: str) -> None:
    a_line(targets=("tier2",), voicemail=True)
    world, real = World(faults=30, agents=ladder.RESUMES + 1), Real()
    state, (steps, at_last) = world.start, WAYS[way]
    for wanted in steps:
        name, after = next((name, after) for _, name, after in world.steps(state) if name[0] == wanted)
        real.step(name, state)
        state = after
        assert real.stands() == expected(state), name
    assert next((bridge for bridge in state.bridges if state.place == ("stream", bridge[0])), None) == at_last
