"""What the sandbox Twilio does with documents: those it cannot have, those that ring colleagues, ask for keys or take a message."""

import asyncio
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

import pytest

from bridge.sandbox.clips import CLIPS, by_text
from bridge.sandbox.dial import Human
from bridge.sandbox.script import Heard, Press, Say, Start, Step
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.web import Answer, WebFailure
from tests.sandbox.twilio_house import (
    HOUSE,
    NUMBER,
    OTHER,
    WIRE,
    House,
    place,
)

# ---- fallbacks and limits


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(500, "text/xml", b""), 11200),
        (Answer(200, "application/json", b"{}"), 12300),
        (Answer(200, "text/xml", b"<Response><Shout/></Response>"), 12200),
        (Answer(200, "text/xml", b"<Response>" + b" " * 65536 + b"</Response>"), 11750),
        (Answer(302, "", b"", "/voice"), 11215),
        (20.0, 11205),
    ],
)
def test_a_document_that_cannot_be_had_sends_the_call_to_the_fallback(answer: Answer | float, code: int) -> None:
    house = House({"/voice": answer, "/fallback": "<Hangup/>"})
    call = place(house, fallback_url=f"{HOUSE}/fallback")
    assert [problem.code for problem in call.problems] == [code]
    asked = house.params("/fallback")
    assert (asked["ErrorCode"], asked["ErrorUrl"]) == (str(code), f"{HOUSE}/voice")
    assert asked.keys() == json.loads((WIRE / "callbacks/fallback_request.json").read_text())[0]["params"].keys()
    assert (call.verbs, call.status) == (["Hangup"], "completed")


def test_a_fallback_in_the_middle_of_a_call_names_the_whole_address_that_failed() -> None:
    house = House({"/voice": "<Redirect>resume/1</Redirect>", "/resume/1": Answer(503, "text/plain", b""), "/fallback": "<Hangup/>"})
    place(house, fallback_url=f"{HOUSE}/fallback")
    asked = house.params("/fallback")
    assert (asked["ErrorCode"], asked["ErrorUrl"], asked["CallStatus"]) == ("11200", f"{HOUSE}/resume/1", "in-progress")


def test_without_a_fallback_the_caller_hears_an_apology_and_the_call_ends() -> None:
    call = place(House({"/voice": Answer(500, "text/html", b"")}))
    assert [problem.code for problem in call.problems] == [11200]
    assert (call.verbs, call.status) == ([], "completed")


def test_documents_that_go_in_a_circle_are_stopped() -> None:
    call = place(House({"/voice": "<Redirect>/voice</Redirect>"}))
    assert call.problems[-1].code == 11215


class Failing(House):
    """The resume door fails so often, and is well then."""

    def __init__(self, fails: WebFailure | Answer | float, fragment: str, times: int) -> None:
        super().__init__({"/voice": f"<Redirect>/resume{fragment}</Redirect>", "/resume": "<Hangup/>", "/fallback": "<Say>Sorry</Say>"})
        self._fails, self._times = fails, times

    async def request(self, method: str, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        answer = await super().request(method, url, params, headers)
        if urlsplit(url).path != "/resume" or not self._times:
            return answer
        self._times -= 1
        if isinstance(self._fails, WebFailure):
            raise self._fails
        if isinstance(self._fails, Answer):
            return self._fails
        await asyncio.sleep(self._fails)
        return answer


NO_ANSWER, REFUSED, BAD = WebFailure(11200, "no HTTP answer"), WebFailure(11205, "cannot connect", connecting=True), Answer(502, "", b"")
EVER = "#rc=2&amp;rp=all&amp;rt=3000"


@pytest.mark.parametrize(
    ("fails", "fragment", "times", "is_had"),
    [
        *((REFUSED, "", times, had) for times, had in ((1, True), (2, False))),
        *((fails, "", 1, False) for fails in (NO_ANSWER, BAD)),
        *((fails, EVER, 2, True) for fails in (REFUSED, NO_ANSWER, BAD, 4.0)),
        *((fails, EVER, 3, False) for fails in (REFUSED, NO_ANSWER, BAD, 4.0)),
        *((BAD, f"#rc=1&amp;rp={policy}", 1, had) for policy, had in (("5xx,rt", True), ("rt", False))),
    ],
)
def test_a_request_is_tried_again_as_often_and_after_what_its_address_says(
    fails: WebFailure | Answer | float, fragment: str, times: int, is_had: bool
) -> None:
    house = Failing(fails, fragment, times)
    call = place(house, fallback_url=f"{HOUSE}/fallback")
    assert (call.verbs[-1], call.problems == []) == (("Hangup", True) if is_had else ("Say", False))
    tokens = [token for (path, _), token in zip(house.asked, house.tokens, strict=True) if path == "/resume"]
    assert len(set(tokens)) == 1


def test_a_redirect_answer_is_followed_and_signed_anew() -> None:
    house = House({"/voice": Answer(307, "", b"", "/voice/"), "/voice/": "<Hangup/>"})
    assert place(house).verbs == ["Hangup"]
    assert [path for path, _ in house.asked][:2] == ["/voice", "/voice/"]


def test_duplicates_of_the_first_webhook_must_be_answered_alike() -> None:
    house = House({"/voice": "<Pause/><Hangup/>"})
    call = place(house, duplicates=3)
    assert [path for path, _ in house.asked].count("/voice") == 3
    assert (len(call.documents), call.problems) == (3, [])


def test_a_caller_who_leaves_during_the_webhook_hears_nothing_of_its_answer() -> None:
    async def leave(call: TwilioCall) -> None:
        await call.wait_for("asks")
        call.hang_up()

    house = House({"/voice": 1.0})
    call = place(house, meanwhile=leave)
    assert (call.verbs, call.status, len(call.documents)) == ([], "completed", 1)
    assert house.params("/status")["CallDuration"] == "0"


def test_a_callback_answered_badly_is_a_problem() -> None:
    call = place(House({"/voice": "<Hangup/>", "/status": Answer(404, "text/html", b"")}))
    assert [(problem.code, urlsplit(problem.url).path) for problem in call.problems] == [(11200, "/status")]


def test_a_rejected_call_was_never_answered() -> None:
    house = House({"/voice": '<Reject reason="busy"/>'})
    call = place(house)
    assert (call.status, house.params("/status")["CallDuration"]) == ("busy", "0")
    assert "answered" not in [moment.what for moment in call.timeline]


# ---- colleagues


def dial(nouns: str, **attributes: str) -> str:
    written = " ".join(f'{name}="{value}"' for name, value in {"action": "/dialled", "timeout": "20", **attributes}.items())
    return f"<Dial {written}>{nouns}</Dial>"


EVENTS = 'statusCallback="https://voice.example.com/child" statusCallbackEvent="initiated ringing answered completed"'
RESULT = ("DialCallStatus", "DialBridged", "DialCallDuration")


def test_a_colleague_hears_the_whisper_first_and_then_the_caller() -> None:
    whisper = '<Gather action="/accept" numDigits="1"><Say>Support call. Press 1 to accept.</Say></Gather><Hangup/>'
    number = f'<Number url="/whisper" {EVENTS}>{NUMBER}</Number>'
    house = House({"/voice": dial(number, callerId="+18005550199"), "/whisper": whisper, "/accept": "", "/dialled": "<Hangup/>"})
    call = place(house, Step(Heard("human_hello"), Say("cannot_log_in")), humans={NUMBER: Human(rings_s=3, talks_s=8)})
    (attempt,) = call.dials
    assert (attempt.bridged, attempt.status, attempt.whispered) == (True, "completed", ["Support call. Press 1 to accept."])
    assert CLIPS["cannot_log_in"].ulaw in attempt.heard
    assert [heard.clip_name for heard in call.heard] == ["human_hello"]
    assert [params["CallStatus"] for path, params in house.asked if path == "/child"] == [
        "initiated",
        "ringing",
        "in-progress",
        "completed",
    ]
    assert [params["SequenceNumber"] for path, params in house.asked if path == "/child"] == ["0", "1", "2", "3"]
    assert house.params("/whisper").keys() == whisper_sample().keys() | {"Caller", "Called"}
    assert house.params("/accept")["Digits"] == "1"
    result = house.params("/dialled")
    assert (result["DialCallStatus"], result["DialBridged"], result["CallStatus"]) == ("completed", "true", "in-progress")
    assert int(result["DialCallDuration"]) >= 8


def whisper_sample() -> dict[str, str]:
    rows = json.loads((WIRE / "callbacks/transfer_answered.json").read_text())
    return next(row["params"] for row in rows if "whisper" in row["path"])


@pytest.mark.parametrize(
    ("human", "status", "lasts"),
    [
        (Human("busy", rings_s=1), "busy", 1),
        (Human("no-answer"), "no-answer", 20),
        (Human("failed", rings_s=0), "failed", 0),
        (Human(rings_s=25), "no-answer", 20),
    ],
)
def test_a_colleague_who_cannot_be_had_is_told_to_the_action(human: Human, status: str, lasts: float) -> None:
    house = House({"/voice": dial(NUMBER), "/dialled": "<Hangup/>"})
    call = place(house, anyone=human)
    result = house.params("/dialled")
    assert [result.get(name) for name in RESULT] == [status, "false", None]
    ringing, asked = (next(m.at for m in call.timeline if m.what == what) for what in ("ringing", "ended"))
    assert asked - ringing == pytest.approx(lasts, abs=0.01)


def test_a_colleague_who_does_not_accept_is_never_joined() -> None:
    house = House(
        {"/voice": dial(f'<Number url="/whisper">{NUMBER}</Number>'), "/whisper": "<Gather><Say>Press 1.</Say></Gather><Hangup/>"}
    )
    call = place(house, anyone=Human(presses=""))
    assert [house.params("/dialled")[name] for name in RESULT[:2]] == ["completed", "false"]
    assert not call.dials[0].bridged


def test_numbers_ring_together_or_in_order() -> None:
    nouns = f"<Number>{NUMBER}</Number><Number>{OTHER}</Number>"
    humans = {NUMBER: Human("busy", rings_s=1), OTHER: Human(rings_s=2, talks_s=1)}
    for sequential, expected in (("false", ["busy", "completed"]), ("true", ["busy", "completed"])):
        call = place(House({"/voice": dial(nouns, sequential=sequential), "/dialled": "<Hangup/>"}), humans=humans)
        assert [attempt.status for attempt in call.dials] == expected
    call = place(House({"/voice": dial(nouns), "/dialled": "<Hangup/>"}), humans={NUMBER: Human(rings_s=9), OTHER: Human(rings_s=2)})
    assert [attempt.status for attempt in call.dials] == ["canceled", "completed"]


def test_a_caller_who_gives_up_while_it_rings_cancels_the_other_leg() -> None:
    async def leave(call: TwilioCall) -> None:
        await call.wait_for("ringing")
        await asyncio.sleep(1)
        call.hang_up()

    house = House({"/voice": dial(f"<Number {EVENTS}>{NUMBER}</Number>")})
    call = place(house, meanwhile=leave, anyone=Human(rings_s=9))
    assert (call.dials[0].status, call.dials[0].events) == ("canceled", ["initiated", "ringing", "completed"])
    assert [path for path, _ in house.asked] == ["/voice", "/child", "/child", "/child", "/status"]


def test_a_foreign_caller_id_is_a_problem() -> None:
    call = place(House({"/voice": dial(NUMBER, callerId="+15550001111")}), anyone=Human("busy"))
    assert 13214 in [problem.code for problem in call.problems]


# ---- voicemail and keys

PROMPT = CLIPS["voicemail_prompt"]
BOX = f'<Say>{PROMPT.text}</Say><Record action="/box" maxLength="120" playBeep="true"/><Say>no message</Say>'


def test_the_caller_speaks_after_the_beep_and_hangs_up() -> None:
    house = House({"/voice": BOX, "/box": "<Hangup/>"})
    call = place(house)
    (recording,) = call.recordings
    assert CLIPS["callback_message"].ulaw in recording.ulaw
    assert recording.why == "hangup"
    told = house.params("/box")
    assert (told["CallStatus"], told["Digits"]) == ("completed", "hangup")
    assert int(told["RecordingDuration"]) == pytest.approx(CLIPS["callback_message"].ms / 1000 + 0.7, abs=1)
    assert [heard.clip_name for heard in call.heard][:1] == ["voicemail_prompt"]


def test_a_silent_caller_leaves_no_recording_to_ask_about() -> None:
    house = House({"/voice": BOX})
    call = place(house, voicemail=None)
    assert call.recordings[0].why == "silence"
    assert call.verbs == ["Say", "Record", "Say"]
    assert "/box" not in [path for path, _ in house.asked]


def test_a_key_ends_the_message_and_the_call_goes_on() -> None:
    house = House({"/voice": BOX.replace("<Record ", '<Record finishOnKey="#" '), "/box": "<Say>thanks</Say>"})
    call = place(house, Step(Heard("voicemail_prompt", then_s=1.0), Say("no_thanks")), Step(Start(2.0), Press("#")), voicemail=None)
    assert call.recordings[0].why == "key"
    assert (house.params("/box")["Digits"], call.verbs[-1]) == ("#", "Say")


def test_keys_pressed_during_a_prompt_end_it_and_go_to_the_action() -> None:
    menu = f'<Gather action="/chosen" numDigits="1" timeout="4"><Say>{PROMPT.text}</Say></Gather><Say>nothing</Say>'
    house = House({"/voice": menu, "/chosen": "<Hangup/>"})
    call = place(house, Step(Start(1.0), Press("2")))
    assert (house.params("/chosen")["Digits"], call.verbs) == ("2", ["Gather", "Hangup"])
    assert call.phone.playout.sound_ms(call.phone.origin, call.phone.origin + 60) < 1100
    silent = place(House({"/voice": menu}))
    assert silent.verbs == ["Gather", "Say"]


PRESS_1 = (
    f'<Gather action="/callback" numDigits="1" timeout="3"><Say>{PROMPT.text}</Say></Gather>'
    '<Record action="/box" finishOnKey="#"/><Say>no message</Say>'
)


def test_a_key_instead_of_a_message_goes_to_the_action_and_no_key_falls_through_to_the_tone() -> None:
    documents = {"/voice": PRESS_1, "/callback": "<Hangup/>", "/box": "<Hangup/>"}
    house = House(documents)
    pressed = place(house, Step(Start(2.0), Press("1")))
    assert (pressed.verbs, house.params("/callback")["Digits"], pressed.duration_s) == (["Gather", "Hangup"], "1", 2)
    waited = place(House(documents))
    assert waited.verbs == ["Gather", "Record"]
    asked = {moment.what: moment.at for moment in waited.timeline}
    assert asked["record"] - asked["said"] == pytest.approx(3.0 + 0.4, abs=0.01)  # patience, then the tone
    assert CLIPS["callback_message"].ulaw in waited.recordings[0].ulaw


def test_the_first_key_ends_the_prompt_and_each_has_the_whole_patience() -> None:
    menu = f'<Gather action="/chosen" numDigits="4" timeout="4"><Say>{PROMPT.text}</Say></Gather>'
    house = House({"/voice": menu, "/chosen": "<Hangup/>"})
    keys = [Step(Start(wait), Press(digit)) for wait, digit in ((1.0, "1"), (3.0, "2"), (3.0, "3"))]
    call = place(house, *keys)
    assert house.params("/chosen")["Digits"] == "123"
    assert call.phone.playout.sound_ms(call.phone.origin, call.phone.origin + 60) < 1100
    assert call.duration_s == 1 + 3 + 3 + 4


@pytest.mark.parametrize(("attributes", "digits"), [("", None), ('actionOnEmptyResult="true"', "")])
def test_the_finishing_key_alone_is_no_choice(attributes: str, digits: str | None) -> None:
    house = House({"/voice": f'<Gather action="/chosen" {attributes}><Pause length="9"/></Gather><Hangup/>', "/chosen": "<Hangup/>"})
    call = place(house, Step(Start(1.0), Press("#")))
    assert call.verbs == ["Gather", "Hangup"]
    assert next((params["Digits"] for path, params in house.asked if path == "/chosen"), None) == digits
    assert call.duration_s <= 2


def test_words_of_a_say_without_a_clip_take_the_time_they_would() -> None:
    text = "Nobody ever recorded this."
    assert by_text(text) is None
    call = place(House({"/voice": f"<Say>{text}</Say>"}))
    said = {moment.what: moment.at for moment in call.timeline}
    assert said["said"] - said["say"] == pytest.approx(len(text) * 0.06)
