"""Everybody of the house is killed in the middle of calls, and comes back: callers who are still there are talked to again, what ended
meanwhile has its end and its reason, and no agent is left at Vapi.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from bridge.sandbox import vapi as sandbox_vapi
from bridge.sandbox.dial import Human
from bridge.sandbox.faults import Faults
from bridge.sandbox.script import CUT_OFF, PLAIN, TECHFLOW
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.twilio_rest import Number
from supportvoice.demo import COLLEAGUE, LINE
from supportvoice.laboratory.ground import somebody_elses_host
from tests.journeys.conftest import lived_in
from tests.journeys.house import LONGEST_S, House
from tests.journeys.test_calls import heard

pytestmark = [pytest.mark.journey, pytest.mark.load, pytest.mark.timeout(300)]

COMES = {COLLEAGUE: Human(rings_s=0.5, talks_s=1.0)}
AWAY_S = 6.0
KNOWN_WITHIN_S = 60.0
ENDED_BY_US = "manually-canceled"  # Vapi's word for a call that was ended by its control address

Look = Callable[[str], TwilioCall]


async def killed(house: House) -> None:
    for member in house.stack.members.values():
        member.process.send_signal(signal.SIGKILL)
    for name in list(house.stack.members):
        await house.stack.kill(name)


async def settled(house: House, phones: list[TwilioCall]) -> list[TwilioCall]:
    while not all(phone.over for phone in phones):
        await asyncio.sleep(0.05)
    return phones


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[House]:
    directory: Path = tmp_path_factory.mktemp("away")
    with lived_in(House(directory, django_db_blocker)) as house:
        yield house


@pytest.fixture(scope="module")
def look(alone: House) -> Iterator[Look]:
    """The call of that name, as it was when it was over; all are looked at after the house has come back."""
    house = alone
    host = somebody_elses_host(house.wait(house.stack.manage("fallback_twiml")))
    elsewhere = house.wait(host.__aenter__())
    placed: dict[str, Future[TwilioCall]] = {}
    phones: dict[str, TwilioCall] = {}

    def place(name: str, **how: object) -> TwilioCall:
        phones[name], placed[name] = house.dial(**how, humans=COMES, fallback_url=elsewhere)  # type: ignore[arg-type]
        return phones[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox_vapi, "CONNECT_WITHIN_S", 300.0)  # a call that nobody connects to is ours to end, not the vendor's
        stays = place("stays", scenario=CUT_OFF, on_abnormal_close="stay")
        leaves = place("leaves", scenario=TECHFLOW, on_abnormal_close="stay")
        for phone in (stays, leaves):
            house.wait(phone.wait_for("caller-says", within=LONGEST_S))
        house.eventually(
            lambda: "user" in [role for role, _, _ in house.lines(stays.call_sid)]
        )  # their words are known, and not in memory alone
        being_made = place("being made", scenario=PLAIN, faults=Faults(create_delay_s=2.5))
        house.eventually(lambda: house.vapi.asked[being_made.call_sid] == 1, within=LONGEST_S)
        house.wait(killed(house))
        gone_at = time.monotonic()
        leaves.hang_up()
        place("nobody is there", scenario=PLAIN)
        house.wait(settled(house, [leaves, being_made, phones["nobody is there"]]))
        time.sleep(max(0.0, AWAY_S - (time.monotonic() - gone_at)))
        house.twilio.numbers.append(Number(LINE, voice_url=f"{house.stack.url}/webhook/twilio"))
        house.wait(house.stack.run(), within=LONGEST_S)
        yield lambda name: placed[name].result(LONGEST_S)
        house.wait(host.__aexit__(None, None, None))


def test_a_caller_who_stayed_on_the_dead_stream_talks_with_the_agent_again_who_knows_what_it_was_about(alone: House, look: Look) -> None:
    phone = look("stays")
    assert [stream.end for stream in phone.streams] == ["broken", "server-closed"]
    assert [clip for clip, _ in heard(phone)][-2:] == ["you_cannot_log_in", "goodbye"]
    alone.settle(phone.call_sid, within=KNOWN_WITHIN_S)
    row = alone.row(phone.call_sid)
    assert (row["end_reason"], row["rung"], row["epoch"]) == ("agent_ended", "R1", 1)


def test_a_caller_who_left_meanwhile_is_known_to_have_left(alone: House, look: Look) -> None:
    phone = look("leaves")
    alone.settle(phone.call_sid, within=KNOWN_WITHIN_S)
    assert alone.row(phone.call_sid)["end_reason"] == "caller_hung_up"


def test_an_agent_that_was_being_made_is_ended_and_its_call_too(alone: House, look: Look) -> None:
    phone = look("being made")
    alone.settle(phone.call_sid, within=KNOWN_WITHIN_S)
    assert "human_hello" in [clip for clip, _ in heard(phone)]  # by the number's fallback
    (orphan,) = alone.at_vapi(phone.call_sid)
    assert (orphan.ended_reason, orphan.turns) == (ENDED_BY_US, None)


def test_a_caller_who_came_while_nobody_was_there_is_kept_as_looked_after_by_the_fallback(alone: House, look: Look) -> None:
    phone = look("nobody is there")
    assert "human_hello" in [clip for clip, _ in heard(phone)]
    alone.eventually(
        lambda: alone.one("SELECT count(*) FROM calls_callsession WHERE call_sid = %s", phone.call_sid) == 1, within=KNOWN_WITHIN_S
    )
    row = alone.row(phone.call_sid)
    assert (row["status"], row["end_reason"], row["outcome"], row["rung"]) == ("finalised", "caller_hung_up", "unknown", "R5")


def test_the_server_that_came_back_says_once_that_a_number_has_nobody_to_fall_back_on(alone: House, look: Look) -> None:
    look("nobody is there")
    alone.eventually(lambda: alone.logs().count("Callers can be lost by what is set for our numbers at Twilio") == 1)
