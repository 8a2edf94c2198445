"""Recordings of the sandbox Twilio: what is on them, and what the house is told of them and when."""

import io
import json
import wave
from typing import Any

import numpy as np
import pytest

from bridge.sandbox.clips import CLIPS
from bridge.sandbox.script import HangUp, Heard, Press, Say, Start, Step
from bridge.sandbox.sound import decode
from bridge.sandbox.virtual import ServerEnd
from tests.sandbox.twilio_house import HOUSE, STREAM, WIRE, House, clip_message, opened, place

SAMPLE = json.loads((WIRE / "callbacks/recording_status.json").read_text())[0]["params"]
DISCLOSURE = CLIPS["disclosure"]
ALL_EVENTS = 'recordingStatusCallbackEvent="in-progress completed absent"'
CALLBACK = f'recordingStatusCallback="{HOUSE}/recording"'


def start(*attributes: str) -> str:
    return f"<Start><Recording {CALLBACK} {' '.join(attributes)}/></Start>"


def told(house: House) -> list[dict[str, str]]:
    return [params for path, params in house.asked if path == "/recording"]


async def greet(server: ServerEnd) -> None:
    sid = await opened(server)
    await server.send(clip_message(sid, CLIPS["greeting"].ulaw))
    while await server.receive() is not None:
        pass


CONVERSATION = (Step(Heard("greeting"), Say("cannot_log_in")), Step(Start(6.0), HangUp()))


def tracks(content: bytes) -> list[Any]:
    """The channels of a WAV file."""
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getframerate(), file.getsampwidth()) == (8000, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").reshape(-1, file.getnchannels())
    return list(samples.T)


def holds(track: Any, clip: str) -> bool:
    return decode(CLIPS[clip].ulaw).tobytes() in np.ascontiguousarray(track).astype(np.int16).tobytes()


def test_a_call_is_recorded_in_stereo_from_the_verb_to_the_end_while_everything_else_goes_on() -> None:
    house = House({"/voice": f"<Say>{DISCLOSURE.text}</Say>{start(ALL_EVENTS)}{STREAM}<Redirect>/resume</Redirect>"}, greet)
    call = place(house, *CONVERSATION)
    (recording,) = call.recordings
    left, right = tracks(recording.wav())
    assert holds(left, "cannot_log_in")
    assert holds(right, "greeting")
    assert not holds(right, "disclosure")
    assert recording.seconds == pytest.approx(len(call.said_audio()) / 8000 - DISCLOSURE.ms / 1000, abs=0.03)
    assert (recording.why, call.verbs) == ("over", ["Say", "Start", "Connect"])


def test_the_house_is_told_when_a_recording_begins_and_when_it_can_be_fetched() -> None:
    house = House({"/voice": start(ALL_EVENTS, 'channels="dual"', 'track="both"') + STREAM}, greet)
    call = place(house, *CONVERSATION)
    began, done = told(house)
    assert done.keys() == SAMPLE.keys()
    for name in ("RecordingChannels", "RecordingSource", "RecordingTrack", "RecordingStatus"):
        assert done[name] == SAMPLE[name]
    assert (began["RecordingStatus"], "RecordingDuration" in began) == ("in-progress", False)
    assert began["RecordingSid"] == done["RecordingSid"] == call.recordings[0].sid
    assert 0 <= int(done["RecordingDuration"]) - call.recordings[0].seconds < 1
    paths = [path for path, _ in house.asked]
    assert paths.index("/recording") < paths.index("/stream")
    assert paths[-2:] == ["/status", "/recording"]


def test_only_the_events_that_were_asked_for_are_told() -> None:
    house = House({"/voice": start() + STREAM}, greet)
    place(house, *CONVERSATION)
    assert [params["RecordingStatus"] for params in told(house)] == ["completed"]


def test_a_recording_without_a_sound_is_absent() -> None:
    house = House({"/voice": start(ALL_EVENTS) + "<Pause/>"})
    call = place(house)
    assert call.recordings[0].silent
    assert [params["RecordingStatus"] for params in told(house)] == ["in-progress", "absent"]


@pytest.mark.parametrize(("track", "caller", "agent"), [("both", True, True), ("inbound", True, False), ("outbound", False, True)])
def test_one_channel_holds_the_tracks_that_were_asked_for(track: str, caller: bool, agent: bool) -> None:
    house = House({"/voice": start('channels="mono"', f'track="{track}"') + STREAM}, greet)
    (recording,) = place(house, *CONVERSATION).recordings
    (mixed,) = tracks(recording.wav())
    assert (holds(mixed, "cannot_log_in"), holds(mixed, "greeting")) == (caller, agent)
    assert (told(house)[0]["RecordingChannels"], told(house)[0]["RecordingTrack"]) == ("1", track)


def test_a_message_left_while_the_call_is_recorded_is_on_both_recordings() -> None:
    house = House({"/voice": f'{start()}<Record action="/box" {CALLBACK} {ALL_EVENTS}/>', "/box": "<Hangup/>"})
    call = place(house)
    message, whole = call.recordings
    assert (message.source, whole.source) == ("RecordVerb", "StartCallRecordingTwiML")
    assert CLIPS["callback_message"].ulaw in message.ulaw
    assert CLIPS["callback_message"].ulaw in whole.ulaw
    assert [(params["RecordingSource"], params["RecordingStatus"]) for params in told(house)] == [
        ("RecordVerb", "completed"),
        ("StartCallRecordingTwiML", "completed"),
    ]


def test_a_caller_who_says_nothing_leaves_an_absent_message() -> None:
    house = House({"/voice": f'<Record action="/box" {CALLBACK} {ALL_EVENTS}/>', "/box": "<Hangup/>"})
    call = place(house, voicemail=None)
    assert [params["RecordingStatus"] for params in told(house)] == ["absent"]
    assert "/box" not in [path for path, _ in house.asked]
    assert call.recordings[0].silent


def test_a_message_ended_by_a_key_and_one_by_hanging_up_are_told_alike() -> None:
    box = f'<Record action="/box" finishOnKey="#" {CALLBACK}/>'
    sample = json.loads((WIRE / "callbacks/voicemail_done.json").read_text())
    steps = (Step(Start(1.0), Say("no_thanks")), Step(Start(3.0), Press("#")))
    for row, (script, voicemail) in zip(sample, ((steps, None), ((), "callback_message")), strict=True):
        house = House({"/voice": box, "/box": "<Hangup/>"})
        place(house, *script, voicemail=voicemail)
        asked = house.params("/box")
        assert asked.keys() == row["params"].keys()
        assert (asked["Digits"], asked["CallStatus"]) == (row["params"]["Digits"], row["params"]["CallStatus"])
        assert [params["RecordingSid"] for params in told(house)] == [asked["RecordingSid"]]
