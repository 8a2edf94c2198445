"""Named faults of both vendors against the real house: every caller gets an answer, every call its end, every line stands once.

`make load` takes a handful, `make faults` all of them, `make faults FAULTS=dies-1011,burst` these. There is no
backup account: an agent that is lost comes back with what was said, and the third loss within a minute leads to a person.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bridge.sandbox.dial import Human
from bridge.sandbox.faults import NAMED, Fault
from bridge.sandbox.script import LEAVE_A_MESSAGE, SCENARIOS, Heard, Press, Scenario, Step
from bridge.sandbox.twilio import TwilioCall
from supportvoice.demo import COLLEAGUE
from tests.journeys.house import OF_CALL, House, Leave
from tests.journeys.test_calls import heard, nothing_to_complain_of

pytestmark = [pytest.mark.journey, pytest.mark.load]

RINGS_APART_S = 1.5
HANDFUL = (
    "webhooks-twice",
    "webhooks-reordered",
    "finals-in-pieces",
    "finals-resent",
    "callbacks-backwards",
    "create-401",
    "create-malformed-html",
    "dies-1011",
    "dies-once",
    "dies-twice",
    "garbage-bad-json",
    "half-open",
    "leaves-during-voicemail",
    "stall",
)
WANTED = os.environ.get("FAULTS", "")
CHOSEN = tuple(NAMED) if WANTED == "all" else tuple(WANTED.split(",")) if WANTED else HANDFUL
GREETED_AGAIN = {"dies-in-greeting"}
RESUMED = {"dies-once", "dies-twice", "half-open"}
HARMLESS = {  # nobody on the line may notice them
    *(name for name in NAMED if name.startswith(("webhooks-", "finals-", "callbacks-", "report-", "lines-", "tool-", "twilio-", "odd-"))),
    *("create-429-once", "create-503-once", "webhook-before-create", "burst", "garbage-unknown"),
    *("lost-end-of-call-report", "lost-status-update", "lost-transcript", "lost-speech-update", "lost-user-interrupted"),
} - {"webhooks-late"}
PERSON_COMES = (
    {
        *(name for name in NAMED if name.startswith("create-") and name not in HARMLESS),
        *(name for name in NAMED if name.startswith(("socket-", "dies-"))),
        "garbage-bad-json",
    }
    - {"dies-1000"}
    - RESUMED
    - GREETED_AGAIN
)
UNMADE = {name for name in PERSON_COMES if name.startswith("create-")}
OTHERS_TALK_S = 45.0
CALLER_LEFT = {name for name in NAMED if name.startswith("leaves-")}
EXPECTED = HARMLESS | PERSON_COMES | CALLER_LEFT | RESUMED | GREETED_AGAIN
COMES = Human(rings_s=0.5, talks_s=1.0)
NOBODY = Human(outcome="no-answer", rings_s=0.5)
PRESS_ONE: Scenario = replace(LEAVE_A_MESSAGE, caller=(*LEAVE_A_MESSAGE.caller, Step(Heard("voicemail_prompt", then_s=0.3), Press("1"))))

Look = Callable[[str], TwilioCall]


@pytest.fixture(scope="module")
def look(house: House) -> Look:
    """The call with that fault, once it is over and the house has settled."""
    calls = {name: _how(NAMED[name]) for name in CHOSEN} | {"callback": {"scenario": PRESS_ONE, "humans": {COLLEAGUE: NOBODY}}}
    calls = dict(sorted(calls.items(), key=lambda call: call[0] in UNMADE))  # last: an account that refuses calls is left alone
    waits = {name: RINGS_APART_S * number + (OTHERS_TALK_S if name in UNMADE else 0.0) for number, name in enumerate(calls)}
    placed = {name: house.place(**how, after_s=waits[name]) for name, how in calls.items()}

    def call(name: str) -> TwilioCall:
        placed[name] = house.on_time(placed[name], again=lambda: house.place(**calls[name]))
        return placed[name].result()

    return call


def _how(fault: Fault) -> dict[str, Any]:
    leave = Leave(fault.leave.moment, fault.leave.then_s, fault.leave.manner) if fault.leave else None
    people = {COLLEAGUE: NOBODY if "anyone" in fault.twilio else COMES}
    return {"scenario": SCENARIOS[fault.scenario], "faults": fault.switches(), "leave": leave, "humans": people, **fault.twilio}


@pytest.mark.parametrize("name", [name for name in CHOSEN if name in HARMLESS])
def test_a_fault_nobody_on_the_line_may_notice(house: House, look: Look, name: str) -> None:
    phone = look(name)
    nothing_to_complain_of(phone)
    assert [clip for clip, _ in heard(phone)] == ["disclosure", "greeting", "reset_steps", "ask_email", "account_locked", "goodbye"]
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("agent_ended", "resolved", "R0")
    house.eventually(lambda: _said(house, phone).count("i already tried that") == 1)  # it may come with the report only
    assert house.one(f"SELECT count(*) FROM calls_toolrun r {OF_CALL}", phone.call_sid) == 1
    assert len(house.at_vapi(phone.call_sid)) == 1


def _said(house: House, phone: TwilioCall) -> str:
    return " ".join(said for role, said, _ in house.lines(phone.call_sid) if role == "user").lower()


@pytest.mark.parametrize("name", [name for name in CHOSEN if name in PERSON_COMES])
def test_a_fault_that_costs_the_agent_leads_to_a_person(house: House, look: Look, name: str) -> None:
    phone = look(name)
    assert heard(phone)[-1][0] == "human_hello"
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("human_ended", "handed_over", "R3")


@pytest.mark.parametrize("name", [name for name in CHOSEN if name in RESUMED])
def test_a_fault_after_which_the_agent_goes_on_with_what_was_said(house: House, look: Look, name: str) -> None:
    phone = look(name)
    assert phone.violations == []
    clips = [clip for clip, _ in heard(phone)]
    assert clips.count("disclosure") == clips.count("greeting") == 1
    assert "you_cannot_log_in" in clips  # it answers a question about what was said before
    assert clips[-1] == "goodbye"
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("agent_ended", "resolved", "R1")
    assert (row["epoch"] > 0) == (name == "half-open")  # on another stream, or on the same one
    assert len(house.at_vapi(phone.call_sid)) == 1 + house.kinds(phone.call_sid).count("conversation-lost")


@pytest.mark.parametrize("name", [name for name in CHOSEN if name in GREETED_AGAIN])
def test_an_agent_lost_while_it_greets_is_followed_by_one_that_helps(house: House, look: Look, name: str) -> None:
    phone = look(name)
    assert phone.violations == []
    assert [clip for clip, _ in heard(phone)][-2:] == ["account_locked", "goodbye"]
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("agent_ended", "resolved", "R1")
    assert len(house.at_vapi(phone.call_sid)) == 2


@pytest.mark.parametrize("name", [name for name in CHOSEN if name in CALLER_LEFT])
def test_a_caller_may_leave_at_each_point(house: House, look: Look, name: str) -> None:
    phone = look(name)
    row = house.row(phone.call_sid)
    assert row["end_reason"] in ("caller_hung_up", "voicemail_left", "human_ended")
    assert house.kinds(phone.call_sid).count("call-ended") == 1


@pytest.mark.parametrize("name", [name for name in CHOSEN if name not in EXPECTED])
def test_whatever_goes_wrong_a_call_comes_to_an_end_that_is_told(house: House, look: Look, name: str) -> None:
    phone = look(name)
    assert house.row(phone.call_sid)["end_reason"]
    assert house.kinds(phone.call_sid).count("call-ended") == 1


def test_who_rather_waits_for_a_call_presses_one_and_is_promised_it(house: House, look: Look) -> None:
    phone = look("callback")
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("callback_promised", "callback", "R4")
    assert house.one(f"SELECT count(*) FROM calls_callbackrequest r {OF_CALL}", phone.call_sid) == 1
    assert "callback-promised" in house.kinds(phone.call_sid)
    assert phone.recordings == []
