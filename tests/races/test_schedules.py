"""What both vendors tell last of a call, in random orders with repeats, half of it to either of two processes at once: one end.

How many schedules are played is the environment's to say (`make schedules`).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from bridge.ports import Closing
from calls import inbox, services
from calls.models import CallSession, InboxMessage, Status, VapiSession, VapiState
from tests.builders import a_call, call_sid
from tests.calls import doors
from tests.calls.doors import ACCOUNT_SID, CALL_SID
from tests.calls.test_any_order import DOOR, LAST_SIX, OVER, RE, STOPPED, about, how_it_stands
from tests.races import test_races
from tests.races.pair import Pair

SCHEDULES = int(os.environ.get("SCHEDULES", "100"))
SEED = int(os.environ.get("SEED", "1"))
BATCH = 20
MOST_TIMES = 3
OTHER_LEG = "CA" + "b" * 32

News = tuple[str, Any]  # a door of Twilio's and its fields, or "" and a body of Vapi's


@dataclass(frozen=True)
class Told:
    """A call at the beginning of its end, and its last six news."""

    call: CallSession
    news: list[News]


def a_talk_with_the_agent() -> Told:
    """The caller hangs up on the agent: two last lines, its end and its report by Vapi, and the end of stream and call by Twilio."""
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    VapiSession.objects.filter(call=call).update(state=VapiState.LIVE, vapi_call_id=f"v-{call.call_sid}", live_at=timezone.now())
    *_, line, last, over, report = [body for body in test_races.webhooks(call, turns=10) if '"partial"' not in body]
    return Told(call, [("", line), ("", last), ("", over), ("", report), *_of(call.call_sid, STOPPED, OVER)])


def with_a_person(name: str) -> Callable[[], Told]:
    def begun() -> Told:
        news, expected = LAST_SIX[name]
        sid, client = call_sid(), Client()
        doors.knock(client, DOOR, doors.incoming(sid))
        services.admit_stream(call_sid=sid, account_sid=ACCOUNT_SID, stream_sid="MZ1", epoch=0, at=timezone.now())
        services.stream_closed(call_sid=sid, epoch=0, closing=Closing(why=expected["call"][4]), at=timezone.now())
        assert doors.verbs(doors.knock(client, f"{DOOR}/resume/0", about() | {"CallSid": sid})) == ["Say", "Dial"]
        return Told(CallSession.objects.get(call_sid=sid), _of(sid, *news))

    return begun


def _of(sid: str, *news: News) -> list[News]:
    """The same of another call."""
    own = {CALL_SID: sid, OTHER_LEG: f"CA{sid[:1:-1]}", RE["RecordingSid"]: f"RE{sid[2:]}"}
    return [(f"{DOOR}{door}", {name: own.get(value, value) for name, value in fields.items()}) for door, fields in news]


STORIES: dict[str, Callable[[], Told]] = {"the agent": a_talk_with_the_agent, **{name: with_a_person(name) for name in LAST_SIX}}


def end_of(call: CallSession) -> str:
    call.refresh_from_db()
    stands = json.loads(how_it_stands(call))
    stands["told"] = sorted({tuple(each) for each in stands["told"]})
    stands["recordings"] = [recording[1:] for recording in stands["recordings"]]
    stands["lines"] = list(call.lines.order_by("vendor_ms").values_list("role", "said"))
    made = call.vapi_sessions.exclude(state=VapiState.ASKED)  # whether the AI was to have the caller back depends on when that was asked
    stands["agents"] = list(made.values_list("n", "state", "ended_reason"))
    stands["reports"] = call.events.filter(kind="report-merged").count()
    return json.dumps(stands).replace(call.call_sid, CALL_SID)


def schedule(news: list[News], rng: Random) -> tuple[list[News], list[News]]:
    """Each of the news once to three times, shuffled, and dealt to two processes."""
    told = [each for each in news for _ in range(rng.randint(1, MOST_TIMES))]
    rng.shuffle(told)
    to_first = [rng.random() < 0.5 for _ in told]
    halves = ([each for each, first in zip(told, to_first, strict=True) if first is which] for which in (True, False))
    first, second = halves
    return first, second


def caught_up() -> None:
    """What came before its time is read again, as the schedule does it."""
    for pk in inbox.inbox_to_do(now=timezone.now() + timedelta(minutes=1)):
        inbox.reprocess(pk=pk, at=timezone.now())
    assert not InboxMessage.objects.filter(processed_at=None).exists()


@pytest.mark.timeout(0 if SCHEDULES > 1000 else 120)
def test_the_last_news_of_a_call_end_it_alike_in_any_order_and_number_at_whichever_process(pair: Pair, settings: Settings) -> None:
    settings.MAX_CALLS = 10 * SCHEDULES
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS, settings.SECRET_KEY = doors.PUBLIC_URL, [doors.TOKEN], "tests"
    doors.a_line(record_calls=True)
    rng, ends = Random(SEED), {name: Counter[str]() for name in STORIES}
    with doors.remembering():
        ends_in_order = {name: in_order(pair, begun()) for name, begun in STORIES.items()}
        for begins in range(0, SCHEDULES, BATCH):
            names = [rng.choice(list(STORIES)) for _ in range(min(BATCH, SCHEDULES - begins))]
            told = [STORIES[name]() for name in names]
            dealt = [schedule(each.news, rng) for each in told]
            answers = pair.at_once("hear", [{"news": one} for one, _ in dealt], "hear", [{"news": two} for _, two in dealt])
            assert {status for both in answers for half in both for status in half} == {200}
            caught_up()
            for name, each in zip(names, told, strict=True):
                ends[name][end_of(each.call)] += 1
    print({name: ends[name].total() for name in ends}, "schedules, seed", SEED)  # noqa: T201
    assert {name: dict(found) for name, found in ends.items()} == {
        name: {ends_in_order[name]: ends[name].total()} if ends[name] else {} for name in ends
    }


def in_order(pair: Pair, told: Told) -> str:
    """The end of a call of which everything is told once, as it happened, to one process."""
    ((answers, _),) = pair.at_once("hear", [{"news": told.news}], "hear", [{"news": []}])
    assert set(answers) == {200}
    caught_up()
    return end_of(told.call)
