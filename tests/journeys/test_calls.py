"""Calls from dialling to clean-up through real serve, worker, Valkey and both vendors; judged from outside."""

from __future__ import annotations

import os
import signal

import pytest

from bridge.sandbox.dial import Human
from bridge.sandbox.script import PERSON_PLEASE, PLAIN, TECHFLOW, THREE_BARGE_INS
from bridge.sandbox.twilio import TwilioCall
from supportvoice.demo import COLLEAGUE
from tests.journeys.house import OF_CALL, House

pytestmark = pytest.mark.journey


def heard(phone: TwilioCall) -> list[tuple[str | None, bool]]:
    return [(final.clip_name, final.complete) for final in phone.heard]


def understood(house: House, phone: TwilioCall) -> list[str | None]:
    (session,) = house.at_vapi(phone.call_sid)
    return [final.clip_name for final in session.evidence.understood]


def nothing_to_complain_of(phone: TwilioCall) -> None:
    assert phone.violations == []
    assert phone.problems == []


def test_the_call_of_the_article(house: House) -> None:
    phone = house.call(TECHFLOW)
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
    assert [heard for role, _, heard in lines if role == "assistant"].count("part") == 1
    kinds = house.kinds(phone.call_sid)
    assert kinds.count("tool-called") == kinds.count("tool-answered") == 1
    assert kinds[0] == "call-received"
    assert "call-ended" in kinds
    assert any(detail["cancelled_ms"] > 0 for kind, detail in house.events(phone.call_sid) if kind == "tts-buffer-flushed")


def test_a_plain_call(house: House) -> None:
    phone = house.call(PLAIN)
    nothing_to_complain_of(phone)
    assert heard(phone) == [("disclosure", True), ("greeting", True), ("opening_hours", True), ("goodbye", True)]
    assert phone.clears == []
    assert house.row(phone.call_sid)["end_reason"] == "agent_ended"
    (session,) = house.at_vapi(phone.call_sid)
    assert session.ended_reason == "assistant-ended-call"


def test_three_barge_ins_in_one_call(house: House) -> None:
    phone = house.call(THREE_BARGE_INS)
    nothing_to_complain_of(phone)
    assert len(phone.clears) == 3
    assert max(phone.sound_after_clears_ms) <= 40
    assert house.one(f"SELECT r.interruptions FROM calls_callmetrics r {OF_CALL}", phone.call_sid) == 3
    assert [clip for clip, complete in heard(phone) if not complete] == ["reset_steps", "another_way", "reset_steps"]


@pytest.mark.parametrize(
    ("moment", "then_s", "manner"),
    [
        ("answered", 0.1, "stop"),
        ("stream-started", 0.0, "stop"),
        ("stream-started", 0.4, "vanish"),
        ("caller-says", 0.5, "no-stop"),
        ("clear", 0.2, "stop"),
    ],
    ids=[
        "during the disclosure",
        "as the stream opens",
        "before the greeting, vanishing",
        "mid-sentence, without a stop",
        "after a barge-in",
    ],
)
def test_a_caller_may_leave_at_any_moment(house: House, moment: str, then_s: float, manner: str) -> None:
    phone = house.call_until(TECHFLOW, moment, then_s=then_s, manner=manner)
    row = house.row(phone.call_sid)
    assert row["end_reason"] == "caller_hung_up"
    assert house.kinds(phone.call_sid).count("call-ended") == 1
    assert [session.open for session in house.at_vapi(phone.call_sid)] in ([], [False])


def test_when_vapi_is_down_the_caller_hears_so_within_a_second_and_reaches_a_person(house: House) -> None:
    with house.vapi_fails(create_status=503):
        phone = house.call(PLAIN, humans={COLLEAGUE: Human(rings_s=0.5, talks_s=2.0)})
    assert phone.first_sound_ms is not None
    assert phone.first_sound_ms <= 1000
    clips = [clip for clip, _ in heard(phone)]
    assert "connecting_colleague" in clips
    assert clips[-1] == "human_hello"
    assert [dial.bridged for dial in phone.dials] == [True]
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("human_ended", "handed_over", "R3")
    assert house.at_vapi(phone.call_sid) == []


def test_when_vapi_is_down_and_nobody_comes_the_caller_leaves_a_message(house: House) -> None:
    with house.vapi_fails(create_status=500):
        phone = house.call(PLAIN, humans={COLLEAGUE: Human(outcome="busy", rings_s=0.5)})
    assert [clip for clip, _ in heard(phone) if clip][-1] == "voicemail_prompt"  # then a beep, which is no speech
    assert len(phone.recordings) == 1
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("voicemail_left", "voicemail", "R4")
    assert "voicemail-recorded" in house.kinds(phone.call_sid)


def test_a_caller_who_asks_for_a_person_gets_one_after_the_agents_last_word(house: House) -> None:
    phone = house.call(PERSON_PLEASE, humans={COLLEAGUE: Human(rings_s=0.5, talks_s=2.0)})
    nothing_to_complain_of(phone)
    assert heard(phone)[2] == ("transferring", True)
    assert heard(phone)[-1][0] == "human_hello"
    (dial,) = phone.dials
    assert any("asked for a person" in sentence for sentence in dial.whispered)
    assert house.row(phone.call_sid)["outcome"] == "handed_over"


def test_a_vapi_socket_that_breaks_mid_call_leads_to_a_person(house: House) -> None:
    with house.vapi_fails(close_after_s=5.0, close_code=1011):
        phone = house.call(PLAIN, humans={COLLEAGUE: Human(rings_s=0.5, talks_s=1.0)})
    assert ("connecting_colleague", True) in heard(phone)
    assert [dial.bridged for dial in phone.dials] == [True]


def test_without_a_worker_the_bridge_makes_the_session_itself_a_second_later(house: House) -> None:
    worker = house.stack.members["worker"].process
    os.killpg(worker.pid, signal.SIGSTOP)
    try:
        phone = house.call(PLAIN)
    finally:
        os.killpg(worker.pid, signal.SIGCONT)
    assert ("greeting", True) in heard(phone)
    assert house.one(f"SELECT r.claimed_by FROM calls_vapisession r {OF_CALL}", phone.call_sid) == "consumer"
    assert len(house.at_vapi(phone.call_sid)) == 1
