"""Consent and erasure through real processes and both vendors: who is recorded, and what is left of a caller who is erased."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace

import pytest

from bridge.sandbox.script import ANSWERS, PLAIN, CallTool, Heard, Press, Scenario, Step
from bridge.sandbox.twilio import TwilioCall
from tests.journeys.house import House

pytestmark = pytest.mark.journey

AGREES = replace(PLAIN, caller=(Step(Heard("disclosure", then_s=0.6), Press("1")), *PLAIN.caller))
AGREES_AND_REGRETS = replace(AGREES, answers={**ANSWERS, "ask_hours": ((CallTool("do_not_record", {}, {}, "opening_hours"),),)})
ROW = "SELECT disclosed_at, agreed_at, unrecorded_at, erased_at FROM calls_callsession WHERE call_sid = %s"
ANOTHER_CALLER = "+14155550177"


@pytest.fixture
def asking(house: House) -> Iterator[House]:
    """A house whose line records only callers who agree."""
    house.rows("UPDATE agents_phoneline SET record_calls = %s, all_party_consent = %s", True, True)
    yield house
    house.rows("UPDATE agents_phoneline SET record_calls = %s, all_party_consent = %s", False, False)


def stamps(house: House, phone: TwilioCall) -> tuple[bool, bool, bool, bool]:
    """Whether this call was disclosed, agreed to, refused, erased."""
    [row] = house.rows(ROW, phone.call_sid)
    disclosed, agreed, unrecorded, erased = (moment is not None for moment in row)
    return disclosed, agreed, unrecorded, erased


def test_only_who_agrees_is_recorded_and_who_regrets_it_is_recorded_no_more(asking: House) -> None:
    def carried(calling: Future[TwilioCall], scenario: Scenario) -> TwilioCall:
        return asking.on_time(calling, again=lambda: asking.place(scenario)).result()

    scenarios = (AGREES, PLAIN, AGREES_AND_REGRETS)
    placed = [asking.place(scenario, after_s=0.5 * number) for number, scenario in enumerate(scenarios)]
    yes, no, regrets = map(carried, placed, scenarios)
    for phone in (yes, no, regrets):
        assert (phone.violations, phone.problems) == ([], [])
        assert [final.clip_name for final in phone.heard if final.complete][-2:] == ["opening_hours", "goodbye"]
    assert (yes.verbs[:4], no.verbs[:3]) == (["Say", "Gather", "Start", "Connect"], ["Say", "Gather", "Connect"])
    assert [[recording.why for recording in phone.recordings] for phone in (yes, no, regrets)] == [["over"], [], ["stopped"]]
    assert [stamps(asking, phone)[1:3] for phone in (yes, no, regrets)] == [(True, False), (False, False), (True, True)]
    asking.eventually(lambda: asking.row(regrets.call_sid)["status"] == "finalised", within=20)
    assert asking.lines(regrets.call_sid) == []
    assert asking.lines(yes.call_sid) != []


def test_of_an_erased_caller_not_a_byte_is_left_in_the_database_its_log_or_the_logs(house: House) -> None:
    phone = house.call(PLAIN, from_number=ANOTHER_CALLER)
    house.eventually(lambda: house.row(phone.call_sid)["status"] == "finalised", within=20)
    assert ANOTHER_CALLER.encode() in bytes_of_the_database(house)
    house.wait(house.stack.manage("erase", ANOTHER_CALLER))
    assert stamps(house, phone)[3]
    assert house.lines(phone.call_sid) == []
    assert ANOTHER_CALLER[1:].encode() not in bytes_of_the_database(house) + house.logs().encode()
    assert [call.id for call in house.at_vapi(phone.call_sid)] == house.vapi.erased[-1:]


def bytes_of_the_database(house: House) -> bytes:
    return b"".join(path.read_bytes() for path in house.directory.glob("db.sqlite3*") if not path.name.endswith("-shm"))
