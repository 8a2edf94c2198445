"""Calls from dialling to clean-up through real serve, worker, Valkey and both vendors; judged from outside.

A call takes as long as it takes, so they are placed one shortly after the other and each test looks at its own.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest

from bridge.sandbox.dial import Human
from bridge.sandbox.script import (
    ANSWERS,
    CALL_ME_BACK,
    LEAVE_A_MESSAGE,
    PERSON_PLEASE,
    PLAIN,
    TECHFLOW,
    TEN_MINUTES,
    THREE_BARGE_INS,
    Heard,
    Say,
    Scenario,
    Start,
    Step,
)
from bridge.sandbox.turns import Faults
from bridge.sandbox.twilio import TwilioCall
from supportvoice.demo import COLLEAGUE
from tests.journeys.house import LONGEST_S, OF_CALL, House, Leave

pytestmark = pytest.mark.journey

RINGS_APART_S = 2.0  # the vendors' ears share one thread here and should not all listen hard at the same moment
NOBODY_COMES = {COLLEAGUE: Human(outcome="busy", rings_s=0.5)}
COMES = {COLLEAGUE: Human(rings_s=0.5, talks_s=2.0)}
LEAVES = {
    "during the disclosure": Leave("answered", 0.1),
    "as the stream opens": Leave("stream-started"),
    "before the greeting, vanishing": Leave("stream-started", 0.4, "vanish"),
    "mid-sentence, without a stop": Leave("caller-says", 0.5, "no-stop"),
    "after a barge-in": Leave("clear", 0.2),
}

BRIEF, ENDLESS = "+15550100171", "+15550100172"
LONGEST: dict[str, dict[str, Any]] = {BRIEF: {"max_duration_s": 40}, ENDLESS: {"max_duration_s": 24, "at_longest": "go-on"}}

Look = Callable[[str], TwilioCall]


THINKS_LONG = Scenario(
    name="thinks_long",
    caller=(
        Step(Heard("greeting"), Say("cannot_log_in")),
        Step(Heard("reset_steps", into_s=1.0), Say("already_tried")),
        Step(Start(80.0), Say("what_did_i_say")),
        Step(Heard("you_cannot_log_in", then_s=0.6), Say("no_thanks")),
    ),
    answers=ANSWERS,
)


def open_lines(house: House) -> None:
    """A line for each agent that has little time."""
    desk = json.loads(house.wait(house.stack.manage("agents_export")))
    (template,), (line,) = desk["templates"], desk["lines"]
    for number, words in LONGEST.items():
        slug = f"agent-{number[-3:]}"
        desk["templates"].append({**template, **words, "slug": slug, "name": slug})
        desk["lines"].append({**line, "number": number, "template": slug})
    file = house.directory / "longest.json"
    file.write_text(json.dumps(desk))
    house.wait(house.stack.manage("agents_import", str(file)))


@pytest.fixture(scope="module")
def look(house: House) -> Look:
    """The call of that name, once it is over and the house has settled."""
    open_lines(house)
    calls: dict[str, dict[str, Any]] = {
        "five changes": {"scenario": THINKS_LONG, "to_number": ENDLESS},
        "time is up": {"scenario": TEN_MINUTES, "to_number": BRIEF},
        "three barge-ins": {"scenario": THREE_BARGE_INS},
        "article": {"scenario": TECHFLOW},
        "person": {"scenario": PERSON_PLEASE, "humans": COMES},
        "nobody, call back": {"scenario": CALL_ME_BACK, "humans": NOBODY_COMES},
        "nobody, message": {"scenario": LEAVE_A_MESSAGE, "humans": NOBODY_COMES},
        "plain": {"scenario": PLAIN},
        "vapi down, nobody": {"scenario": PLAIN, "faults": Faults(create_status=500), "humans": NOBODY_COMES},
        "vapi down, person": {"scenario": PLAIN, "faults": Faults(create_status=503), "humans": COMES},
        "vapi breaks": {"scenario": PLAIN, "faults": Faults(close_after_s=2.5, close_code=1011), "humans": COMES},
        **{name: {"scenario": TECHFLOW, "leave": leave} for name, leave in LEAVES.items()},
    }
    placed = {name: house.place(**how, after_s=RINGS_APART_S * number) for number, (name, how) in enumerate(calls.items())}

    def call(name: str) -> TwilioCall:
        placed[name] = house.on_time(placed[name], again=lambda: house.place(**calls[name]))
        return placed[name].result()

    return call


def heard(phone: TwilioCall) -> list[tuple[str | None, bool]]:
    return [(final.clip_name, final.complete) for final in phone.heard]


def understood(house: House, phone: TwilioCall) -> list[str | None]:
    (session,) = house.at_vapi(phone.call_sid)
    return [final.clip_name for final in session.evidence.understood]


def nothing_to_complain_of(phone: TwilioCall) -> None:
    assert phone.violations == []
    assert phone.problems == []


def test_the_call_of_the_article(house: House, look: Look) -> None:
    phone = look("article")
    nothing_to_complain_of(phone)
    assert heard(phone) == [
        ("disclosure", True),
        ("greeting", True),
        ("reset_steps", False),
        ("ask_email", True),
        ("account_locked", True),
        ("goodbye", True),
    ]
    assert understood(house, phone) == ["cannot_log_in", "already_tried", "email_is_alex", "thanks_goodbye"]
    assert phone.first_sound_ms is not None
    assert phone.first_sound_ms <= 2000
    assert len(phone.clears) == 1
    assert max(phone.sound_after_clears_ms) <= 40
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("agent_ended", "resolved", "R0")
    lines = house.lines(phone.call_sid)
    assert ("user", "I already tried that", "full") in lines
    explained = next(final.text for final in phone.heard if final.clip_name == "reset_steps")
    marked = house.heard_of(phone.call_sid, said=explained.split()[0])
    assert abs(len(marked.split()) - len(explained.split())) <= 1
    assert explained.startswith(marked) or marked.startswith(explained)
    kinds = house.kinds(phone.call_sid)
    assert kinds.count("tool-called") == kinds.count("tool-answered") == 1
    assert kinds[0] == "call-received"
    assert "call-ended" in kinds
    assert any(detail["cancelled_ms"] > 0 for kind, detail in house.events(phone.call_sid) if kind == "tts-buffer-flushed")


def test_a_plain_call(house: House, look: Look) -> None:
    phone = look("plain")
    nothing_to_complain_of(phone)
    assert heard(phone) == [("disclosure", True), ("greeting", True), ("opening_hours", True), ("goodbye", True)]
    assert phone.clears == []
    assert house.row(phone.call_sid)["end_reason"] == "agent_ended"
    (session,) = house.at_vapi(phone.call_sid)
    assert session.ended_reason == "assistant-ended-call"


def test_three_barge_ins_in_one_call(house: House, look: Look) -> None:
    phone = look("three barge-ins")
    nothing_to_complain_of(phone)
    assert len(phone.clears) == 3
    assert max(phone.sound_after_clears_ms) <= 40
    assert house.one(f"SELECT r.interruptions FROM calls_callmetrics r {OF_CALL}", phone.call_sid) == 3
    assert [clip for clip, complete in heard(phone) if not complete] == ["reset_steps", "another_way", "reset_steps"]


def test_a_clear_follows_the_event_at_once(house: House, look: Look) -> None:
    """Both vendors live on one clock here: from Vapi's word that the caller speaks to the clear at Twilio."""
    phone = look("three barge-ins")
    (session,) = house.at_vapi(phone.call_sid)
    said = [entry.at for entry in session.evidence.entries if entry.way == "out" and entry.kind == "speech-update"]
    took_ms = [1000 * (clear.at - max(at for at in said if at <= clear.at)) for clear in phone.clears]
    print(f"clear after the event: {[round(ms, 1) for ms in took_ms]} ms")  # noqa: T201
    assert median(took_ms) <= 20  # ten other calls and their vendors are on this machine


@pytest.mark.parametrize("name", LEAVES)
def test_a_caller_may_leave_at_any_moment(house: House, look: Look, name: str) -> None:
    phone = look(name)
    assert house.row(phone.call_sid)["end_reason"] == "caller_hung_up"
    assert house.kinds(phone.call_sid).count("call-ended") == 1
    assert [session.open for session in house.at_vapi(phone.call_sid)] in ([], [False])


def test_when_vapi_is_down_the_caller_hears_so_within_a_second_and_reaches_a_person(house: House, look: Look) -> None:
    phone = look("vapi down, person")
    assert phone.first_sound_ms is not None
    assert phone.first_sound_ms <= 1000
    clips = [clip for clip, _ in heard(phone)]
    assert "connecting_colleague" in clips
    assert clips[-1] == "human_hello"
    assert [dial.bridged for dial in phone.dials] == [True]
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("human_ended", "handed_over", "R3")
    assert house.at_vapi(phone.call_sid) == []


def test_when_vapi_is_down_and_nobody_comes_the_caller_leaves_a_message(house: House, look: Look) -> None:
    phone = look("vapi down, nobody")
    assert [clip for clip, _ in heard(phone) if clip][-1] == "voicemail_prompt"  # then a beep, which is no speech
    assert len(phone.recordings) == 1
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("voicemail_left", "voicemail", "R4")
    assert "voicemail-recorded" in house.kinds(phone.call_sid)


def test_a_caller_who_asks_for_a_person_gets_one_after_the_agents_last_word(house: House, look: Look) -> None:
    phone = look("person")
    nothing_to_complain_of(phone)
    assert heard(phone)[2] == ("transferring", True)
    assert heard(phone)[-1][0] == "human_hello"
    (dial,) = phone.dials
    assert any("asked for a person" in sentence for sentence in dial.whispered)
    assert house.row(phone.call_sid)["outcome"] == "handed_over"


def test_a_vapi_socket_that_breaks_in_three_conversations_of_a_call_leads_to_a_person(house: House, look: Look) -> None:
    phone = look("vapi breaks")
    assert len(house.at_vapi(phone.call_sid)) == 3
    assert [told["clip"] for kind, told in house.events(phone.call_sid) if kind == "clip-played"][-1] == "connecting_colleague"
    assert [dial.bridged for dial in phone.dials] == [True]


def test_without_a_worker_the_bridge_makes_the_session_itself_a_second_later(house: House, look: Look) -> None:
    for name in ("article", "three barge-ins"):
        look(name)  # the others need the worker
    worker = house.stack.members["worker"].process
    os.killpg(worker.pid, signal.SIGSTOP)
    try:
        phone = house.place(PLAIN, leave=Leave("caller-says", 0.2)).result(LONGEST_S)
    finally:
        os.killpg(worker.pid, signal.SIGCONT)
    house.settle(phone.call_sid)
    assert ("greeting", True) in heard(phone)
    assert house.one(f"SELECT r.claimed_by FROM calls_vapisession r {OF_CALL}", phone.call_sid) == "consumer"
    assert len(house.at_vapi(phone.call_sid)) == 1


def test_when_nobody_comes_the_ai_has_the_caller_back_and_promises_a_call_back(house: House, look: Look) -> None:
    phone = look("nobody, call back")
    nothing_to_complain_of(phone)
    said = [clip for clip, _ in heard(phone) if clip]
    assert said[-4:] == ["one_moment", "nobody_free", "we_call_back", "goodbye"]
    assert "disclosure" not in said[1:]
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"], row["epoch"]) == ("callback_promised", "callback", "R3", 1)
    assert house.kinds(phone.call_sid).count("taken-back") == 1
    (due,) = house.rows(f"SELECT r.due_at FROM calls_callbackrequest r {OF_CALL}", phone.call_sid)
    assert due
    _, second = sorted(house.at_vapi(phone.call_sid), key=lambda call: str(call.request["name"]))
    assert "I want to talk to a person, please." in str(second.request["assistant"]["model"]["messages"])


def test_when_nobody_comes_the_ai_has_the_caller_back_and_takes_a_message(house: House, look: Look) -> None:
    phone = look("nobody, message")
    said = [clip for clip, _ in heard(phone) if clip]
    assert said[said.index("nobody_free") :] == ["nobody_free", "one_moment", "voicemail_prompt"]
    assert len(phone.recordings) == 1
    assert [dial.status for dial in phone.dials] == ["busy"]
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("voicemail_left", "voicemail", "R4")


def test_near_the_longest_time_the_agent_says_goodbye_and_is_heard(house: House, look: Look) -> None:
    phone = look("time is up")
    nothing_to_complain_of(phone)
    assert heard(phone)[-1] == ("time_is_up", True)
    (session,) = house.at_vapi(phone.call_sid)
    assert session.ended_reason == "assistant-ended-call-after-message-spoken"
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["rung"]) == ("max_duration", "R0")


def test_a_conversation_that_goes_on_changes_its_session_five_times_and_nobody_notices(house: House, look: Look) -> None:
    phone = look("five changes")
    nothing_to_complain_of(phone)
    assert house.kinds(phone.call_sid).count("rolled-over") >= 5
    assert "conversation-lost" not in house.kinds(phone.call_sid)
    said = [clip for clip, _ in heard(phone) if clip]
    assert [said.count(clip) for clip in ("greeting", "one_moment", "cut_off")] == [1, 0, 0]
    assert said[-2:] == ["you_cannot_log_in", "goodbye"]  # from the first session, five ago
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["rung"], row["epoch"]) == ("agent_ended", "R0", 0)
    assert not any(session.open for session in house.at_vapi(phone.call_sid))
