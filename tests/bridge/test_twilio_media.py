"""The codec of Twilio's media stream against samples of its documentation, and against whatever else may arrive."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import twilio_media
from bridge.errors import BadMessage

SAMPLES = Path(__file__).parent.parent / "wire" / "twilio" / "media_streams"
FROM_TWILIO = json.loads((SAMPLES / "from_twilio.json").read_text())
TO_TWILIO = json.loads((SAMPLES / "to_twilio.json").read_text())
START = next(message for message in FROM_TWILIO if message["event"] == "start")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("message", FROM_TWILIO, ids=lambda message: message["event"])
def test_every_message_of_twilio_is_read(message: dict[str, Any]) -> None:
    assert type(twilio_media.read(json.dumps(message))).__name__.lower() == message["event"]


def test_what_we_send_has_exactly_the_keys_twilio_allows() -> None:
    sid = TO_TWILIO[0]["streamSid"]
    audio = base64.b64decode(TO_TWILIO[0]["media"]["payload"])
    ours = [twilio_media.media(sid, audio), twilio_media.mark(sid, TO_TWILIO[1]["mark"]["name"]), twilio_media.clear(sid)]
    assert [json.loads(text) for text in ours] == TO_TWILIO


@given(st.binary(min_size=1, max_size=4000))
def test_audio_survives_the_wire_byte_for_byte(audio: bytes) -> None:
    payload = json.loads(twilio_media.media("MZ1", audio))["media"]["payload"]
    assert twilio_media.read(json.dumps({"event": "media", "media": {"payload": payload}})) == twilio_media.Media(audio)


@given(json_values)
def test_anything_that_is_not_a_message_is_one_plain_error(value: Any) -> None:
    with pytest.raises(BadMessage):
        twilio_media.read(json.dumps(value))


@given(st.sampled_from(FROM_TWILIO), st.data())
def test_a_message_with_one_value_changed_is_read_or_refused_but_never_breaks(message: dict[str, Any], data: st.DataObject) -> None:
    changed = json.loads(json.dumps(message))
    place = changed
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if isinstance(place[key], dict) and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(json_values)
        break
    with suppress(BadMessage):
        twilio_media.read(json.dumps(changed))


@pytest.mark.parametrize(
    ("field", "value"),
    [("encoding", "audio/l16"), ("sampleRate", 16000), ("sampleRate", "8000"), ("channels", 2)],
)
def test_a_stream_of_any_other_sound_is_refused(field: str, value: object) -> None:
    start = json.loads(json.dumps(START))
    start["start"]["mediaFormat"][field] = value
    with pytest.raises(BadMessage, match="8 kHz mu-law"):
        twilio_media.read(json.dumps(start))


@pytest.mark.parametrize("payload", ["", "not base64!", "AAA", "é", "A" * 30_000, 5, None])
def test_bad_audio_is_refused(payload: object) -> None:
    with pytest.raises(BadMessage):
        twilio_media.read(json.dumps({"event": "media", "media": {"payload": payload}}))


@pytest.mark.parametrize("event", ["media", "mark", "dtmf", "stop", "start"])
def test_a_message_of_another_stream_is_refused(event: str) -> None:
    message = next(message for message in FROM_TWILIO if message["event"] == event)
    assert twilio_media.read(json.dumps(message), message["streamSid"])
    with pytest.raises(BadMessage) as refused:
        twilio_media.read(json.dumps(message), "MZ" + "0" * 32)
    assert refused.value.kind == "other-stream"


def test_a_start_with_a_thousand_parameters_is_refused() -> None:
    start = json.loads(json.dumps(START))
    start["start"]["customParameters"] = {f"name{number}": "value" for number in range(1000)}
    with pytest.raises(BadMessage, match="parameters"):
        twilio_media.read(json.dumps(start))


@pytest.mark.parametrize("digit", ["", "12", "é", "E", 1, None, ["1"]])
def test_a_key_no_telephone_has_is_refused(digit: object) -> None:
    with pytest.raises(BadMessage):
        twilio_media.read(json.dumps({"event": "dtmf", "dtmf": {"digit": digit}}))


def test_which_key_was_pressed_is_never_printed() -> None:
    assert "7" not in repr(twilio_media.read('{"event":"dtmf","dtmf":{"digit":"7"}}'))


def test_the_agents_own_sound_is_not_taken_for_the_callers() -> None:
    with pytest.raises(BadMessage):
        twilio_media.read('{"event":"media","media":{"track":"outbound","payload":"AAAA"}}')


def test_a_stream_name_that_could_break_out_of_our_messages_is_refused() -> None:
    start = json.loads(json.dumps(START))
    start["start"]["streamSid"] = 'MZ","event":"clear'
    with pytest.raises(BadMessage):
        twilio_media.read(json.dumps(start))
