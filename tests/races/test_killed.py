"""E9: whoever has stored what Vapi posted and is killed before it is history leaves it to the next life, which tells nothing twice.

What is killed is a real process, by a real signal, at any of its statements on the database: between the writing of a body and its
processing, in the middle of either, and before the answer. Vapi posts again what got no answer. A failure names its seed.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from typing import IO, Any

import pytest
from django.conf import settings as our_settings
from django.utils import timezone
from pytest_django.fixtures import Settings

from calls.models import CallSession, InboxMessage, VapiSession, VapiState
from calls.vapi_events import BODY_LIMIT
from tests.builders import a_call
from tests.races import test_races
from tests.races.begun import begun

NEVER = 0


class Lives:
    """One life after the other, each on what the ones before it left."""

    def __init__(self, to: IO[str], words: IO[str]) -> None:
        self._to, self._words = to, words

    def next(self, bodies: Sequence[str], *, dies_at: int = NEVER, before: bool = False) -> dict[str, Any]:
        self._to.write(json.dumps({"bodies": bodies, "dies_at": dies_at, "before": before}) + "\n")
        self._to.flush()
        seen: dict[str, Any] = json.loads(self._words.readline())
        assert seen["status"] in (0, -signal.SIGKILL), "it died of something else"
        return seen


@pytest.fixture
def lives(transactional_db: None) -> Iterator[Lives]:
    with begun("tests.races.mortal", database_url=f"sqlite:///{our_settings.DATABASES['default']['NAME']}") as (to, words):
        yield Lives(to, words)


def told_of() -> tuple[CallSession, list[str]]:
    """A call, and what Vapi posts of it: ten lines, the end, and a report so long that a worker processes it."""
    call = a_call()
    VapiSession.objects.filter(call=call).update(state=VapiState.LIVE, vapi_call_id=f"v-{call.call_sid}", live_at=timezone.now())
    *bodies, report = [body for body in test_races.webhooks(call, turns=10) if '"partial"' not in body]
    long = {"message": {**json.loads(report)["message"], "transcript": "so " * (BODY_LIMIT // 3)}}
    return call, [*bodies, json.dumps(long)]


def how_it_stands(call: CallSession) -> dict[str, Any]:
    """Its lines and its end, and how often each thing happened."""
    call.refresh_from_db()
    numbers = list(call.events.order_by("seq").values_list("seq", flat=True))
    assert numbers == list(range(1, call.last_event_seq + 1))
    return {
        "rows": test_races.how_it_stands(call),
        "events": Counter(call.events.values_list("kind", flat=True)),
        "bodies": Counter(InboxMessage.objects.filter(call=call, problem="").exclude(processed_at=None).values_list("kind", flat=True)),
    }


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_e9_every_stored_body_is_processed_once_however_often_its_process_is_killed(lives: Lives, settings: Settings, kills: int) -> None:
    settings.MAX_CALLS = 2 * kills
    chance = Random(kills)
    undisturbed, bodies = told_of()
    statements = lives.next(bodies)["statements"]
    expected = how_it_stands(undisturbed)
    calls, untold, killed, left = list[CallSession](), list[str](), 0, 0
    while killed < kills:
        if not untold:
            call, untold = told_of()
            calls.append(call)
            chance.shuffle(untold)
        life = lives.next(untold, dies_at=chance.randint(1, statements), before=chance.random() < 0.5)
        untold = [body for place, body in enumerate(untold) if place not in life["answered"]]
        killed += life["status"] != 0
        left += InboxMessage.objects.filter(processed_at=None).exists()
    lives.next(untold)
    print(f"{killed} kills over {len(calls)} calls of {statements} statements; {left} left a stored body to the next life")  # noqa: T201
    assert left >= kills // 8, "hardly anybody was killed between the writing and the processing"
    assert not InboxMessage.objects.filter(processed_at=None).exists()
    assert [how_it_stands(call) for call in calls] == [expected] * len(calls)
