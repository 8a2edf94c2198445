"""Consent and erasure through real processes and both vendors: who is recorded, and what is left of a caller who is erased.

A call takes as long as it takes, so all are placed one shortly after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from bridge.sandbox.script import ANSWERS, PLAIN, CallTool, Heard, Press, Step
from bridge.sandbox.twilio import TwilioCall
from tests.journeys.house import House

pytestmark = pytest.mark.journey

AGREES = replace(PLAIN, caller=(Step(Heard("disclosure", then_s=0.6), Press("1")), *PLAIN.caller))
AGREES_AND_REGRETS = replace(AGREES, answers={**ANSWERS, "ask_hours": ((CallTool("do_not_record", {}, {}, "opening_hours"),),)})
ROW = "SELECT disclosed_at, agreed_at, unrecorded_at, erased_at FROM calls_callsession WHERE call_sid = %s"
ANOTHER_CALLER = "+14155550177"

Look = Callable[[str], TwilioCall]


@pytest.fixture(scope="module")
def look(house: House) -> Iterator[Look]:
    """The call of that name, once it is over and the house has settled. The line records only callers who agree."""
    house.rows("UPDATE agents_phoneline SET record_calls = %s, all_party_consent = %s", True, True)
    calls: dict[str, dict[str, Any]] = {
        "agrees": {"scenario": AGREES},
        "does not agree": {"scenario": PLAIN},
        "regrets": {"scenario": AGREES_AND_REGRETS},
        "is to be erased": {"scenario": PLAIN, "from_number": ANOTHER_CALLER},
    }
    placed = {name: house.place(**how, after_s=0.5 * number) for number, (name, how) in enumerate(calls.items())}
    yield lambda name: house.on_time(placed[name], again=lambda: house.place(**calls[name])).result()
    house.rows("UPDATE agents_phoneline SET record_calls = %s, all_party_consent = %s", False, False)


def stamps(house: House, phone: TwilioCall) -> tuple[bool, bool, bool, bool]:
    """Whether this call was disclosed, agreed to, refused, erased."""
    [row] = house.rows(ROW, phone.call_sid)
    disclosed, agreed, unrecorded, erased = (moment is not None for moment in row)
    return disclosed, agreed, unrecorded, erased


def test_only_who_agrees_is_recorded_and_who_regrets_it_is_recorded_no_more(house: House, look: Look) -> None:
    yes, no, regrets = map(look, ("agrees", "does not agree", "regrets"))
    for phone in (yes, no, regrets):
        assert (phone.violations, phone.problems) == ([], [])
        assert [final.clip_name for final in phone.heard if final.complete][-2:] == ["opening_hours", "goodbye"]
    assert (yes.verbs[:4], no.verbs[:3]) == (["Say", "Gather", "Start", "Connect"], ["Say", "Gather", "Connect"])
    assert [[recording.why for recording in phone.recordings] for phone in (yes, no, regrets)] == [["over"], [], ["stopped"]]
    assert [stamps(house, phone)[1:3] for phone in (yes, no, regrets)] == [(True, False), (False, False), (True, True)]
    house.eventually(lambda: house.row(regrets.call_sid)["status"] == "finalised", within=20)
    assert house.lines(regrets.call_sid) == []
    assert house.lines(yes.call_sid) != []


def test_of_an_erased_caller_not_a_byte_is_left_in_the_database_its_log_or_the_logs(house: House, look: Look) -> None:
    phone = look("is to be erased")
    house.eventually(lambda: house.row(phone.call_sid)["status"] == "finalised", within=20)
    assert ANOTHER_CALLER.encode() in bytes_of_the_database(house)
    house.wait(house.stack.manage("erase", ANOTHER_CALLER))
    assert stamps(house, phone)[3]
    assert house.lines(phone.call_sid) == []
    assert ANOTHER_CALLER[1:].encode() not in bytes_of_the_database(house) + house.logs().encode()
    (at_vapi,) = house.at_vapi(phone.call_sid)
    assert at_vapi.id in house.vapi.erased


def bytes_of_the_database(house: House) -> bytes:
    return b"".join(path.read_bytes() for path in house.directory.glob("db.sqlite3*") if not path.name.endswith("-shm"))
