"""Seven callers at once where the AI carries two: each is served, rung through or called back, in the order they came.

Two serving processes share the two places. The first caller has a long talk and the second a short one; the others wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from itertools import pairwise

import pytest
from pytest_django import DjangoDbBlocker

from bridge.sandbox.dial import Human
from bridge.sandbox.script import PLAIN, TEN_MINUTES, HangUp, Press, Scenario, Start, Step
from bridge.sandbox.twilio import TwilioCall
from supportvoice.demo import COLLEAGUE
from tests.journeys.conftest import lived_in
from tests.journeys.house import LONGEST_S, House, Leave
from tests.journeys.test_calls import nothing_to_complain_of

pytestmark = pytest.mark.journey

COMES = {COLLEAGUE: Human(rings_s=0.5, talks_s=1.0)}
PRESSES = Scenario(name="presses", caller=(Step(Start(5.0), Press("1")),), answers={})
GIVES_UP = Scenario(name="gives_up", caller=(Step(Start(6.0), HangUp()),), answers={})
SOON_GONE = Leave("stream-started", 3.0)
CALLERS: dict[str, dict[str, object]] = {
    "long": {"scenario": TEN_MINUTES, "leave": Leave("stream-started", 36.0)},
    "short": {"scenario": PLAIN, "leave": SOON_GONE},
    "third": {"scenario": PLAIN, "leave": SOON_GONE},
    "called back": {"scenario": PRESSES},
    "gives up": {"scenario": GIVES_UP},
    "fourth": {"scenario": TEN_MINUTES, "leave": Leave("stream-started", 20.0)},
    "person": {"scenario": PLAIN, "humans": COMES},
}


@pytest.fixture(scope="module")
def burst(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[tuple[House, dict[str, TwilioCall]]]:
    with lived_in(House(tmp_path_factory.mktemp("queue"), django_db_blocker, env={"MAX_CALLS": "2"})) as house:
        house.vapi.concurrency_limit = 2
        placed: dict[str, Future[TwilioCall]] = {}
        for number, (name, how) in enumerate(CALLERS.items(), start=1):
            placed[name] = house.place(**how)  # type: ignore[arg-type]
            house.eventually(lambda so_far=number: house.one("SELECT count(*) FROM calls_callsession") == so_far)  # type: ignore[misc]
        phones = {name: calling.result(LONGEST_S) for name, calling in placed.items()}
        for phone in phones.values():
            house.settle(phone.call_sid)
        yield house, phones


def test_no_caller_is_lost_and_the_vendors_find_nothing_to_complain_of(burst: tuple[House, dict[str, TwilioCall]]) -> None:
    house, phones = burst
    for phone in phones.values():
        nothing_to_complain_of(phone)
    ends = {name: house.row(phone.call_sid)["end_reason"] for name, phone in phones.items()}
    assert ends.pop("called back") == "callback_promised"
    assert ends.pop("person") == "human_ended"
    assert set(ends.values()) == {"caller_hung_up"}
    assert house.one("SELECT count(*) FROM calls_callbackrequest") == 1


def test_places_are_given_in_the_order_of_the_callers(burst: tuple[House, dict[str, TwilioCall]]) -> None:
    house, phones = burst
    names = {phone.call_sid: name for name, phone in phones.items()}
    made = [names[str(call.request["name"]).split(".")[0]] for call in house.vapi.calls.values()]
    assert made == ["long", "short", "third", "fourth"]
    events = {name: dict(house.events(phone.call_sid)) for name, phone in phones.items()}
    joined = {name: told["queue-joined"]["place"] for name, told in events.items() if "queue-joined" in told}
    assert joined == {"third": 1, "called back": 2, "gives up": 3, "fourth": 4, "person": 5}
    left = {name: events[name]["queue-left"]["why"] for name in joined}
    assert left == {
        "third": "agent",
        "called back": "callback_promised",
        "gives up": "caller_hung_up",
        "fourth": "agent",
        "person": "person",
    }


def test_who_waits_never_hears_silence_and_nobody_waits_longer_than_half_a_minute(burst: tuple[House, dict[str, TwilioCall]]) -> None:
    _, phones = burst
    for name in ("third", "called back", "gives up", "fourth", "person"):
        asked = [document.at for document in phones[name].documents if b"<Gather" in document.body]
        then = next((document.at for document in phones[name].documents if b"<Gather" not in document.body), None)
        assert then is None or then - asked[0] < 31.0
        assert all(later - before < 12.0 for before, later in pairwise(asked))


def test_nothing_is_made_at_vapi_for_one_who_waits(burst: tuple[House, dict[str, TwilioCall]]) -> None:
    house, phones = burst
    assert [len(house.at_vapi(phones[name].call_sid)) for name in ("called back", "gives up", "person")] == [0, 0, 0]
    assert not [name for name, phone in phones.items() if "vapi-session-failed" in house.kinds(phone.call_sid)]
