"""Two Vapis, the main one broken in a way of its own for each call: the caller talks with the agent at the backup, and soon.

Each failure is forgotten before the next call is placed, so that every call tries the main account; the last calls see an
account that is known to be away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from bridge.sandbox.dial import Human
from bridge.sandbox.faults import CREATE, Faults
from bridge.sandbox.script import PLAIN
from bridge.sandbox.twilio import TwilioCall
from supportvoice.demo import COLLEAGUE
from tests.journeys.house import LONGEST_S, OF_CALL, House
from tests.journeys.test_calls import heard

pytestmark = [pytest.mark.journey, pytest.mark.load]

COMES = {COLLEAGUE: Human(rings_s=0.5, talks_s=1.0)}
TALKS_WITHIN_MS = 4000
ORPHANS_S = 60.0
BROKEN = ("create-401", "create-402", "create-429", "create-500", "create-slow-10", "create-malformed-html", "create-limit-ended")
NEVER_MADE = ("create-401", "create-402", "create-429", "create-500", "known", "refused-connection")
TO_THE_BACKUP = (*BROKEN, "known", "refused-connection")
Look = Callable[[str], TwilioCall]


@pytest.fixture(scope="module")
def two_vapis(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[House]:
    directory: Path = tmp_path_factory.mktemp("backup")
    house = House(directory, django_db_blocker, with_backup=True)
    house.start()
    try:
        yield house
    finally:
        house.stop()


def placed(house: House, *, main: Faults, backup: Faults | None = None) -> Future[TwilioCall]:
    """A call that has left the main account, or was never there."""
    phone, calling = house.dial(PLAIN, faults=main, backup_faults=backup, humans=COMES)
    house.eventually(lambda: "rung-changed" in house.kinds(phone.call_sid), within=LONGEST_S)
    return calling


def forget(house: House) -> None:
    house.change("DELETE FROM calls_vendorhealth")


@pytest.fixture(scope="module")
def look(two_vapis: House) -> Look:
    """The call with that fault, over and settled."""
    house, calls = two_vapis, {}
    for name in BROKEN:
        forget(house)
        calls[name] = placed(house, main=CREATE[name].switches())
    forget(house)
    calls["both"] = placed(house, main=Faults(create_status=500), backup=Faults(create_status=500))
    forget(house)
    calls["opens"] = placed(house, main=Faults(create_status=401))
    calls["known"] = placed(house, main=Faults())
    for calling in calls.values():
        calling.result(LONGEST_S)
    for phone in house.phones:
        house.settle(phone.call_sid, within=ORPHANS_S)
    house.wait(house.vapi.stop())
    forget(house)
    calls["refused-connection"] = placed(house, main=Faults())
    return lambda name: calls[name].result(LONGEST_S)


@pytest.mark.parametrize("name", TO_THE_BACKUP)
def test_whatever_is_wrong_at_the_main_account_the_caller_talks_with_the_agent_at_the_backup(
    two_vapis: House, look: Look, name: str
) -> None:
    house, phone = two_vapis, look(name)
    house.settle(phone.call_sid, within=ORPHANS_S)
    assert phone.violations == []
    clips = [clip for clip, _ in heard(phone)]
    assert clips[-1] == "goodbye"
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("agent_ended", "resolved", "R2")
    assert house.backup is not None
    (session,) = house.made_at(house.backup, phone.call_sid)
    assert session.public["endedAt"]
    assert "assistantId" not in session.request
    main = house.made_at(house.vapi, phone.call_sid)
    assert len(main) <= (0 if name in NEVER_MADE else 1)
    assert all(call.public.get("endedAt") for call in main)
    query = f"SELECT m.first_audio_ms FROM calls_callmetrics m {OF_CALL.replace('r.call_id', 'm.call_id')}"
    assert house.one(query, phone.call_sid) <= TALKS_WITHIN_MS


def test_an_account_that_is_known_to_be_away_is_not_asked(two_vapis: House, look: Look) -> None:
    phone = look("known")
    assert two_vapis.vapi.asked[phone.call_sid] == 0
    assert two_vapis.logs().count("breaker-opened: Vapi refuses our key") >= 1


def test_who_is_taken_at_neither_account_gets_a_person(two_vapis: House, look: Look) -> None:
    phone = look("both")
    assert heard(phone)[-1][0] == "human_hello"
    row = two_vapis.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("human_ended", "handed_over", "R3")
    assert two_vapis.at_vapi(phone.call_sid) == []
