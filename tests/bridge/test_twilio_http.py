"""Who may knock on Twilio's doors, and the words we answer with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element, fromstring

import pytest
from django.http import QueryDict
from hypothesis import given, settings
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from bridge import twilio_http
from bridge.twilio_http import TwilioProof

WIRE = Path(__file__).parents[1] / "wire" / "twilio"
CASES: list[dict[str, Any]] = json.loads((WIRE / "signatures" / "signatures.json").read_text())["cases"]
TOKEN = "0123456789abcdef0123456789abcdef"
BASE = "https://voice.example.com"


def fields_of(case: dict[str, Any]) -> Any:
    """The fields as a Django view sees them: decoded from the body's own bytes, unless the case altered them in flight."""
    if case["kind"] == "json":
        return case["body"]
    if case["verify_params"] is not None:
        altered = QueryDict(mutable=True)
        for name, value in case["verify_params"]:
            altered.appendlist(name, value)
        return altered
    return QueryDict((case["body"] or "").encode())


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_every_recorded_signature_is_judged_as_twilio_would(case: dict[str, Any]) -> None:
    proof = TwilioProof(public_url=BASE, tokens=["a previous token", case["auth_token"]])
    headers = case["headers"]
    judged = proof.signed(case["verify_url"], fields_of(case), headers.get(twilio_http.SIGNATURE), headers.get(twilio_http.SETTINGS))
    assert judged is case["expect_valid"]


@pytest.mark.parametrize("case", [case for case in CASES if case["kind"] == "form"], ids=lambda case: case["name"])
def test_forms_are_judged_against_the_configured_address(case: dict[str, Any]) -> None:
    url = urlsplit(case["verify_url"])
    proof = TwilioProof(public_url=f"{url.scheme}://{url.netloc}/", tokens=[case["auth_token"]])
    path = url.path + (f"?{url.query}" if url.query else "")
    assert proof.form(path=path, fields=fields_of(case), headers=case["headers"]) is case["expect_valid"]


@pytest.mark.parametrize("signed_path", ["/webhook/twilio/media", "/webhook/twilio/media/"])
@pytest.mark.parametrize("asked_path", ["/webhook/twilio/media", "/webhook/twilio/media/"])
@pytest.mark.parametrize(
    ("public_url", "socket_base"), [(BASE, "wss://voice.example.com"), ("http://localhost:8000", "ws://localhost:8000")]
)
def test_a_socket_upgrade_is_signed_over_its_own_scheme_with_or_without_a_slash(
    signed_path: str, asked_path: str, public_url: str, socket_base: str
) -> None:
    signature = RequestValidator(TOKEN).compute_signature(socket_base + signed_path, {})
    proof = TwilioProof(public_url=public_url, tokens=["another", TOKEN])
    assert proof(path=asked_path, headers={b"x-twilio-signature": signature.encode()})
    assert not proof(path="/webhook/twilio/other", headers={b"x-twilio-signature": signature.encode()})
    assert not proof(path=asked_path, headers={})


def test_the_header_cannot_choose_an_algorithm_nobody_knows() -> None:
    url = f"{BASE}/webhook/twilio"
    signature = RequestValidator(TOKEN).compute_signature(url, {})
    proof = TwilioProof(public_url=BASE, tokens=[TOKEN])
    assert proof.signed(url, None, signature, None)
    for named in ("HMAC_SHA256", "HMAC_MD5", "none", "hmac_sha1"):
        assert not proof.signed(url, None, signature, f"key=webhooks_sharedkey_1,algorithm={named}")


def test_without_a_token_nobody_passes() -> None:
    url = f"{BASE}/webhook/twilio"
    assert not TwilioProof(public_url=BASE, tokens=["", ""]).signed(url, None, RequestValidator("").compute_signature(url, {}), None)


@settings(max_examples=200)
@given(signature=st.text(max_size=60), settings_header=st.text(max_size=60), path=st.text(max_size=60))
def test_whatever_a_stranger_sends_is_refused_without_an_exception(signature: str, settings_header: str, path: str) -> None:
    proof = TwilioProof(public_url=BASE, tokens=[TOKEN])
    headers = {twilio_http.SIGNATURE: signature, twilio_http.SETTINGS: settings_header}
    assert not proof.form(path="/" + path, fields=QueryDict("a=1&a=2"), headers=headers)


@settings(max_examples=60)
@given(position=st.integers(0, 27), replacement=st.characters(codec="ascii"))
def test_one_changed_character_spoils_a_signature(position: int, replacement: str) -> None:
    url = f"{BASE}/webhook/twilio"
    signature = RequestValidator(TOKEN).compute_signature(url, {"CallSid": "CA1"})
    changed = signature[:position] + replacement + signature[position + 1 :]
    proof = TwilioProof(public_url=BASE, tokens=[TOKEN])
    assert proof.signed(url, {"CallSid": "CA1"}, changed, None) is (changed == signature)


def tree(twiml: str) -> list[Any]:
    """A TwiML document as nested lists, for comparing: [tag, attributes, text, children…]."""

    def walk(node: Element) -> list[Any]:
        return [node.tag, dict(node.attrib), (node.text or "").strip(), *map(walk, node)]

    return walk(fromstring(twiml))


def test_an_answered_call_hears_the_disclosure_and_its_audio_comes_to_us() -> None:
    twiml = twilio_http.connect_stream(
        disclosure="You are speaking with <an AI> & me.",
        stream_url="wss://h/webhook/twilio/media",
        stream_status_url="https://h/webhook/twilio/stream",
        token="0.1.x",
        resume_url="https://h/webhook/twilio/resume/0",
    )
    stream = {"url": "wss://h/webhook/twilio/media", "statusCallback": "https://h/webhook/twilio/stream", "statusCallbackMethod": "POST"}
    assert tree(twiml) == [
        "Response",
        {},
        "",
        ["Say", {}, "You are speaking with <an AI> & me."],
        ["Connect", {}, "", ["Stream", stream, "", ["Parameter", {"name": "token", "value": "0.1.x"}, ""]]],
        ["Redirect", {"method": "POST"}, "https://h/webhook/twilio/resume/0"],
    ]


def test_without_a_disclosure_the_agent_is_the_first_voice() -> None:
    twiml = twilio_http.connect_stream(
        disclosure="", stream_url="wss://h/m", stream_status_url="https://h/s", token="t", resume_url="https://h/r"
    )
    assert [child[0] for child in tree(twiml)[3:]] == ["Connect", "Redirect"]


def test_a_person_is_rung_with_a_whisper_and_a_way_back() -> None:
    twiml = twilio_http.dial_human(
        sentence="One moment.",
        number="+15550100111",
        whisper_url="https://h/w",
        leg_url="https://h/l",
        action_url="https://h/d",
        caller_id="+15550100100",
        ring_seconds=20,
    )
    dial = {
        "action": "https://h/d",
        "method": "POST",
        "timeout": "20",
        "answerOnBridge": "true",
        "timeLimit": "14400",
        "callerId": "+15550100100",
    }
    number = {
        "url": "https://h/w",
        "method": "POST",
        "statusCallback": "https://h/l",
        "statusCallbackMethod": "POST",
        "statusCallbackEvent": "initiated ringing answered completed",
    }
    assert tree(twiml)[3:] == [
        ["Say", {}, "One moment."],
        ["Dial", dial, "", ["Number", number, "+15550100111"]],
    ]


def test_a_call_is_recorded_from_the_end_of_the_disclosure_on() -> None:
    urls: dict[str, Any] = {"stream_url": "wss://h/m", "stream_status_url": "https://h/s", "token": "t", "resume_url": "https://h/r"}
    say, start, connect, _ = tree(twilio_http.connect_stream(disclosure="We record.", recording_url="https://h/rec", **urls))[3:]
    assert (say[2], connect[0]) == ("We record.", "Connect")
    sample = tree((WIRE / "twiml" / "03_disclosure_recording_connect.xml").read_text())[4]
    recording = {**sample[3][1], "recordingStatusCallback": "https://h/rec", "recordingStatusCallbackMethod": "POST"}
    assert start == ["Start", {}, "", ["Recording", recording, ""]]


@pytest.mark.parametrize("disclosure", ["", "  ", "\x00\x07"])
def test_nobody_is_recorded_who_was_not_told(disclosure: str) -> None:
    twiml = twilio_http.connect_stream(
        disclosure=disclosure,
        stream_url="wss://h/m",
        stream_status_url="https://h/s",
        token="t",
        resume_url="https://h/r",
        recording_url="https://h/rec",
    )
    assert [child[0] for child in tree(twiml)[3:]] == ["Connect", "Redirect"]


RECORD = {
    "action": "https://h/v",
    "method": "POST",
    "maxLength": "120",
    "playBeep": "true",
    "timeout": "5",
    "finishOnKey": "#",
    "recordingStatusCallback": "https://h/rec",
    "recordingStatusCallbackMethod": "POST",
    "recordingStatusCallbackEvent": "completed absent",
}


def test_a_voicemail_is_prompted_and_recorded_to_an_action_of_its_own() -> None:
    twiml = twilio_http.voicemail(prompt="After the tone.", action_url="https://h/v", recording_url="https://h/rec", nothing_heard="Bye.")
    assert tree(twiml)[3:] == [["Say", {}, "After the tone."], ["Record", RECORD, ""], ["Say", {}, "Bye."]]


def test_a_caller_may_press_a_key_instead_of_waiting_for_the_tone() -> None:
    twiml = twilio_http.voicemail(
        prompt="After the tone.",
        action_url="https://h/v",
        recording_url="https://h/rec",
        nothing_heard="Bye.",
        offer="Or press 1.",
        offer_url="https://h/c",
    )
    gather = {"action": "https://h/c", "method": "POST", "numDigits": "1", "timeout": "2"}
    assert tree(twiml)[3:] == [
        ["Gather", gather, "", ["Say", {}, "After the tone."], ["Say", {}, "Or press 1."]],
        ["Record", RECORD, ""],
        ["Say", {}, "Bye."],
    ]


def test_the_short_answers() -> None:
    assert tree(twilio_http.say_and_hang_up("Bye."))[3:] == [["Say", {}, "Bye."], ["Hangup", {}, ""]]
    assert tree(twilio_http.hang_up())[3:] == [["Hangup", {}, ""]]
    assert tree(twilio_http.whisper("About billing."))[3:] == [["Say", {}, "About billing."]]
    assert tree(twilio_http.nothing()) == tree((WIRE / "twiml" / "17_empty_response_for_status_callbacks.xml").read_text())


@given(st.text(max_size=400))
def test_any_text_a_model_writes_can_be_spoken(text: str) -> None:
    spoken = tree(twilio_http.whisper(text))
    assert [child[0] for child in spoken[3:]] == ["Say"]
    assert len(twilio_http.speakable(text * 20)) <= twilio_http.SPOKEN_LIMIT
