"""Every fault in the middle of a call is really what its sentence says. In virtual time."""

from __future__ import annotations

import inspect
import itertools
import json
import random

import pytest

from bridge.sandbox import garbage, malformed, script
from bridge.sandbox.clips import CLIPS
from bridge.sandbox.conversation import Finals
from bridge.sandbox.faults import LEAVES, NAMED, TWILIO
from bridge.sandbox.script import Say, Start, Step
from bridge.sandbox.streaming import LEAVING
from bridge.sandbox.turns import Faults
from bridge.sandbox.twilio import TwilioCall
from tests.sandbox.talks import ASSISTANT, Held, hold, spoken

SHORT = ASSISTANT | {"maxDurationSeconds": 20}
GREETING, ANSWER = len(CLIPS["greeting"].ulaw), len(CLIPS["opening_hours"].ulaw)
MIDDLE = 8000  # bytes into the answer at which faults strike


def named(name: str, **more: object) -> Held:
    """The plain call with this fault."""
    return hold(script.PLAIN, assistant=SHORT | more, faults=NAMED[name].switches())


def struck_at(held: Held) -> float:
    return next(entry.at for entry in held.evidence.entries if entry.way == "fault")


# ---- the table


def test_every_fault_has_a_sentence_and_switches_of_its_own() -> None:
    for name, fault in NAMED.items():
        assert fault.says.count("\n") == 0, name
        assert fault.says.endswith("."), name
        assert fault.vapi != Faults() or fault.twilio or fault.leave, name
        assert fault.switches() is not fault.vapi
        assert fault.switches() == fault.vapi
        assert fault.scenario in script.SCENARIOS
    assert len({fault.says for fault in NAMED.values()}) == len(NAMED)


def test_what_faults_ask_of_twilio_is_something_it_can_do() -> None:
    known = inspect.signature(TwilioCall.__init__).parameters
    moments = (inspect.getdoc(inspect.getmodule(TwilioCall)) or "").partition("Moments in a timeline")[2]
    for name, fault in {**TWILIO, **LEAVES}.items():
        assert set(fault.twilio) <= set(known), name
        if fault.leave is not None:
            assert fault.leave.moment in moments.replace(",", " ").replace(".", " ").split(), name
            assert fault.leave.manner in LEAVING, name


def test_every_kind_of_nonsense_has_a_name() -> None:
    assert {fault.vapi.create_malformed for fault in NAMED.values()} == {"", *malformed.KINDS}
    assert {fault.vapi.garbage for fault in NAMED.values()} == {"", *garbage.KINDS}


# ---- the socket dies


@pytest.mark.parametrize("name", [name for name in NAMED if name.startswith("dies-") and "greeting" not in name])
def test_the_socket_dies_a_second_into_the_second_turn(name: str) -> None:
    held = named(name)
    assert held.close_code == NAMED[name].vapi.dies_with
    assert GREETING + MIDDLE <= len(held.evidence.downlink) < GREETING + MIDDLE + 2500
    assert held.reason == ("worker-shutdown" if name in ("dies-1001", "dies-1012") else "call.in-progress.error-vapifault-worker-died")
    assert [text for text in held.line.texts if text.get("endedReason")] == []  # nobody was warned


def test_the_socket_dies_in_the_greeting() -> None:
    held = named("dies-in-greeting")
    assert MIDDLE <= len(held.evidence.downlink) < GREETING
    assert held.close_code == 1011


# ---- it says nothing, or too little


def test_a_mute_vapi_sends_neither_audio_nor_messages_nor_webhooks_from_the_second_turn_on() -> None:
    held = named("mute")
    assert len(held.evidence.downlink) < GREETING + 800
    assert not [
        entry for entry in held.evidence.entries if entry.way in ("out", "hook") and entry.at > struck_at(held) and entry.kind != "close"
    ]
    assert held.reason == "exceeded-max-duration"
    from_the_start = named("mute-from-the-start")
    assert (from_the_start.line.texts, from_the_start.hooks) == ([], [])
    assert not from_the_start.evidence.downlink


def test_a_voice_that_dies_stops_in_the_middle_of_a_word() -> None:
    held = named("voice-dies")
    assert GREETING + MIDDLE <= len(held.evidence.downlink) < GREETING + MIDDLE + 2500
    assert held.close_code == 1000


def test_a_frozen_vapi_does_not_read_any_more() -> None:
    held = named("frozen")
    alive = struck_at(held) - held.evidence.entries[0].at
    assert len(held.evidence.uplink) == pytest.approx(alive * 8000, abs=1600)
    assert held.lasted_s > alive + 5


def test_a_voiceless_agent_and_a_deaf_one_have_only_that_wrong() -> None:
    voiceless, deaf = named("voiceless"), named("deaf")
    assert (len(voiceless.evidence.downlink), spoken(voiceless, "assistant")) == (0, [CLIPS["greeting"].text])
    assert (len(deaf.evidence.downlink) >= GREETING, deaf.evidence.understood) == (True, [])


def test_a_stall_is_a_hole_of_five_seconds_inside_a_turn() -> None:
    held = hold(script.PLAIN, assistant=SHORT, steps=script.PLAIN.caller[:1], faults=NAMED["stall"].switches())
    gaps = [then - at for (at, _), (then, _) in itertools.pairwise(held.evidence.chunks)]
    assert [round(gap) for gap in gaps if 4.9 < gap < 5.2] == [5]
    answer = [at for at, _ in held.evidence.chunks if at > held.evidence.understood[0].at]
    assert answer[-1] - answer[0] == pytest.approx(ANSWER / 8000 + 5, abs=0.15)  # what was late is not made up for
    assert spoken(held, "assistant")[:2] == [CLIPS["greeting"].text, CLIPS["opening_hours"].text]


def test_a_slow_model_is_announced_and_answers_six_seconds_later() -> None:
    held = named("model-slow")
    asked = held.evidence.understood[0].at
    assert min(at for at, _ in held.evidence.chunks if at > asked) - asked == pytest.approx(6.4, abs=0.1)
    assert "hang" in [text["type"] for text in held.line.texts]


# ---- it says too much


def test_a_burst_is_fifty_times_faster_than_it_plays() -> None:
    held = named("burst")
    greeting = [at for at, _ in held.evidence.chunks if at < held.evidence.chunks[0][0] + 1]
    assert greeting[-1] - greeting[0] == pytest.approx(GREETING / 8000 / 50, rel=0.3)
    assert bytes(held.evidence.downlink[:GREETING]) == CLIPS["greeting"].ulaw
    long = hold(script.PLAIN, assistant=SHORT | {"maxDurationSeconds": 30}, faults=NAMED["burst-two-minutes"].switches())
    assert len(long.evidence.downlink) > 120 * 8000


def test_odd_sizes_carry_the_same_audio() -> None:
    held = named("odd-sizes")
    assert 1 in {size for _, size in held.evidence.chunks}
    assert bytes(held.evidence.downlink[:GREETING]) == CLIPS["greeting"].ulaw


def test_broken_json_is_more_than_twenty_texts_no_client_can_read() -> None:
    held = named("garbage-bad-json")
    assert len(held.line.strange) > 20
    assert spoken(held, "assistant")[:2] == [CLIPS["greeting"].text, CLIPS["opening_hours"].text]  # the call goes on


def test_other_nonsense_is_as_big_as_strange_and_as_much_as_it_says() -> None:
    huge = max(len(json.dumps(text)) for text in named("garbage-huge-text").line.texts)
    assert huge > 1 << 20
    assert {"__proto__", ""} <= {text["type"] for text in named("garbage-unknown").line.texts}
    flood = [text["type"] for text in named("garbage-flood").line.texts]
    assert flood.count("metadata") == garbage.FLOOD * garbage.FLOOD_S
    assert named("garbage-empty").line.strange.count("") == 50


async def test_giant_audio_is_one_message_of_ten_megabytes() -> None:
    class Wire:
        sent = b""

        async def send_bytes(self, data: bytes) -> None:
            self.sent = data

        async def send_text(self, text: str) -> None:
            raise AssertionError("audio is not text")

    wire = Wire()
    await garbage.KINDS["giant-audio"](wire, random.Random(1))
    assert len(wire.sent) == 10 << 20


# ---- words


def test_finals_in_pieces_add_up_to_the_line_and_the_report_has_it_whole() -> None:
    held = named("finals-in-pieces")
    pieces = spoken(held, "user")[:3]
    assert " ".join(pieces) == CLIPS["ask_hours"].text
    assert len(pieces) == 3
    assert [each["message"] for each in held.turns.conversation.in_turns() if each["role"] == "user"] == [
        CLIPS["ask_hours"].text,
        CLIPS["no_thanks"].text,
    ]
    assert [each["message"] for each in held.turns.conversation.messages if each["role"] == "user"][:3] == pieces


def test_resent_finals_begin_again_from_the_start_of_the_turn() -> None:
    held = named("finals-resent")
    first, second, whole, *_ = spoken(held, "user")
    assert whole == CLIPS["ask_hours"].text
    assert whole.startswith(second)
    assert second.startswith(first)
    assert first != second != whole
    assert next(each["message"] for each in held.turns.conversation.messages if each["role"] == "user") == whole


def test_an_utterance_too_short_for_pieces_comes_whole() -> None:
    finals = Finals("pieces")
    assert (finals.partial("One"), finals.final("One")) == ("", "One")
    assert (finals.partial("One two"), finals.final("One two")) == ("One two", "")


def test_the_two_other_shapes_of_a_tool_call_carry_the_same_call() -> None:
    def tool_call(name: str) -> dict[str, object]:
        held = hold(script.TECHFLOW, faults=NAMED[name].switches())
        [message] = [hook for hook in held.hooks if hook["type"] == "tool-calls"]
        call: dict[str, object] = message["toolCallList"][0]
        return call

    as_text, flat = tool_call("tool-arguments-as-text"), tool_call("tool-call-flat")
    assert as_text["function"] == {"name": "get_user_account", "arguments": '{"email": "alex@example.com"}'}
    assert flat == {"id": flat["id"], "name": "get_user_account", "parameters": {"email": "alex@example.com"}}


def test_the_report_has_other_times_than_the_finals_and_whole_turns() -> None:
    steps = (Step(Start(6.0), Say("mm_hm")), Step(Start(2.0), Say("ask_hours")))
    held = hold(script.PLAIN, steps=steps, assistant=SHORT)
    turns = held.turns.conversation.in_turns()
    [user] = [each for each in turns if each["role"] == "user"]
    assert user["message"] == f"{CLIPS['mm_hm'].text} {CLIPS['ask_hours'].text}"
    assert spoken(held, "user") == [CLIPS["mm_hm"].text, CLIPS["ask_hours"].text]
    assert user["duration"] == pytest.approx(CLIPS["mm_hm"].ms + CLIPS["ask_hours"].ms, abs=800)
    assert user["endTime"] - user["time"] > user["duration"]


def test_words_cut_by_the_end_of_the_call_are_in_the_report_and_were_never_final() -> None:
    held = hold(script.PLAIN, steps=(), assistant=ASSISTANT | {"maxDurationSeconds": 10}, faults=Faults(close_after_s=2.5, close_code=1000))
    assert spoken(held, "assistant") == []
    [cut] = [each["message"] for each in held.turns.conversation.in_turns() if each["role"] == "bot"]
    assert CLIPS["greeting"].text.startswith(cut)
    assert cut != CLIPS["greeting"].text
