"""The playout model: when a caller hears what, which marks come back, and what a clear throws away."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sandbox import media
from bridge.sandbox.playout import Playout

WIRE = Path(__file__).parents[1] / "wire"
SPEECH = b"\x10"  # any loud code
SILENT = b"\xff"


def ms(length: int, code: bytes = SPEECH) -> bytes:
    return code * (8 * length)


def test_audio_of_any_size_is_played_at_8000_bytes_a_second() -> None:
    playout = Playout(10.0)
    assert playout.play(ms(1000), 10.0) == pytest.approx(11.0)
    assert playout.play(ms(500), 10.2) == pytest.approx(11.5)
    assert playout.heard(10.0, 10.7) == ms(700)


def test_a_gap_between_two_pieces_is_heard_as_silence() -> None:
    playout = Playout(0.0)
    playout.play(ms(100), 0.0)
    playout.play(ms(100), 0.3)
    assert playout.heard(0.0, 0.5) == ms(100) + ms(200, SILENT) + ms(100) + ms(100, SILENT)
    assert playout.heard(0.05, 0.35) == ms(50) + ms(200, SILENT) + ms(50)


def test_a_mark_comes_back_when_the_audio_before_it_was_played() -> None:
    playout = Playout(0.0)
    playout.play(ms(200), 0.0)
    playout.mark("a", 0.01)
    playout.play(ms(200), 0.05)
    playout.mark("b", 0.06)
    assert playout.due(0.199) == []
    assert playout.due(0.2) == ["a"]
    assert playout.due(0.41) == ["b"]
    assert playout.due(9.0) == []


def test_a_mark_on_an_empty_buffer_comes_back_at_once() -> None:
    playout = Playout(0.0)
    playout.play(ms(100), 0.0)
    playout.mark("late", 5.0)
    assert playout.due(5.0) == ["late"]


def test_a_clear_drops_the_unplayed_and_returns_every_mark_in_order() -> None:
    playout = Playout(0.0)
    playout.play(ms(300), 0.0)
    playout.mark("a", 0.0)
    playout.play(ms(300), 0.0)
    playout.mark("b", 0.0)
    cleared = playout.clear(0.25)
    assert (cleared.dropped_ms, cleared.marks) == (350, ("a", "b"))
    assert playout.due(1.0) == []
    assert playout.heard(0.0, 1.0) == ms(250) + ms(750, SILENT)


def test_what_arrives_after_a_clear_is_heard_and_counted_against_the_bridge() -> None:
    playout = Playout(0.0)
    playout.play(ms(300), 0.0)
    playout.clear(0.1)
    playout.play(ms(60), 0.12)
    assert playout.sound_ms(0.1, 0.5) == 60
    assert playout.played_ms(0.1, 0.5) == 60


def test_silence_that_is_played_is_no_sound() -> None:
    playout = Playout(0.0)
    playout.play(ms(500, SILENT), 0.0)
    playout.play(ms(20), 0.5)
    assert playout.sound_ms(0.0, 1.0) == 20
    assert playout.first_sound(0.0) == pytest.approx(0.5)
    assert playout.first_sound(0.6) is None


def test_a_stream_that_ends_takes_its_unplayed_audio_and_marks_along() -> None:
    playout = Playout(0.0)
    playout.play(ms(300), 0.0)
    playout.mark("never", 0.0)
    playout.stop(0.1)
    assert playout.heard(0.0, 0.3) == ms(100) + ms(200, SILENT)
    assert playout.due(1.0) == []


pieces = st.lists(
    st.tuples(st.sampled_from(["play", "mark", "clear"]), st.integers(1, 900), st.floats(0, 0.3)),
    max_size=40,
)


@given(pieces)
def test_nothing_is_heard_twice_and_every_mark_comes_back_exactly_once_in_order(steps: list[tuple[str, int, float]]) -> None:
    """Slow but obvious: the same buffer played byte by byte."""
    playout, now = Playout(0.0), 0.0
    slow: list[Any] = []
    heard, marks, sample = bytearray(), [], 0
    expected: list[str] = []
    for number, (what, size, wait) in enumerate(steps):
        now += wait
        while sample < round(now * 8000):
            while slow and isinstance(slow[0], str):
                expected.append(slow.pop(0))
            heard.append(slow.pop(0) if slow else 0xFF)
            sample += 1
        while slow and isinstance(slow[0], str):
            expected.append(slow.pop(0))
        marks += playout.due(now)
        if what == "play":
            slow += [number % 255] * size
            playout.play(bytes([number % 255]) * size, now)
        elif what == "mark":
            slow.append(str(number))
            playout.mark(str(number), now)
        else:
            expected += [each for each in slow if isinstance(each, str)]
            slow.clear()
            marks += playout.clear(now).marks
    assert marks + playout.due(1e6) == expected + [each for each in slow if isinstance(each, str)]
    assert playout.heard(0.0, now) == bytes(heard)


# ---- the wire rules of the stream


SID = "MZ" + "c" * 32


def test_the_three_messages_twilio_knows_are_read() -> None:
    payload = base64.b64encode(b"\x10" * 160).decode()
    assert media.read(json.dumps({"event": "media", "streamSid": SID, "media": {"payload": payload}}), SID) == ("media", payload)
    assert media.audio(payload) == b"\x10" * 160
    assert media.read(json.dumps({"event": "mark", "streamSid": SID, "mark": {"name": "1:200"}}), SID) == ("mark", "1:200")
    assert media.read(json.dumps({"event": "clear", "streamSid": SID}), SID) == ("clear", "")


def test_every_published_invalid_message_is_refused_with_its_code() -> None:
    cases = json.loads((WIRE / "twilio/media_streams/invalid_to_twilio.json").read_text())
    assert len(cases) == 9
    for case in cases:
        message = bytes.fromhex(case["binary_hex"]) if "binary_hex" in case else case["text"]
        with pytest.raises(media.Offence) as caught:
            media.audio(media.read(message, SID)[1])
        assert caught.value.code == case["code"], case["why"]


@pytest.mark.parametrize(
    "message", ["null", "[]", '{"event": ["media"]}', '{"event": "media", "streamSid": 1, "media": {"payload": ""}}', "\x00"]
)
def test_odd_json_is_a_violation_and_no_crash(message: str) -> None:
    with pytest.raises(media.Offence):
        media.read(message, SID)
