"""The sandbox Twilio from outside: what it asks, how it streams, and what it does when the stream ends. In virtual time."""

import asyncio
import base64
import json
import time
from itertools import pairwise
from typing import Any

import pytest

from bridge.sandbox.clips import CLIPS
from bridge.sandbox.script import HangUp, Heard, Press, Say, Start, Step
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.virtual import ServerEnd
from tests.sandbox.twilio_house import (
    STREAM,
    WIRE,
    House,
    clip_message,
    greet_and_close,
    mark_message,
    opened,
    place,
)


def test_the_first_webhook_carries_the_27_standard_fields_of_the_sample() -> None:
    house = House({"/voice": "<Hangup/>"})
    call = place(house)
    sample = json.loads((WIRE / "callbacks/normal_call.json").read_text())
    assert house.params("/voice").keys() == sample[0]["params"].keys()
    assert len(sample[0]["params"]) == 27
    assert house.params("/status").keys() == sample[-1]["params"].keys()
    assert house.params("/status")["CallStatus"] == call.status == "completed"
    assert (call.verbs, call.problems, call.violations) == (["Hangup"], [], [])


def test_a_stream_ends_when_the_server_closes_and_the_document_goes_on() -> None:
    house = House({"/voice": STREAM + '<Redirect method="POST">/resume/1</Redirect>', "/resume/1": "<Hangup/>"}, greet_and_close)
    call = place(house)
    stream = call.streams[0]
    assert call.verbs == ["Connect", "Redirect", "Hangup"]
    assert (stream.end, stream.close_code, call.violations, call.problems) == ("server-closed", 1000, [], [])
    assert [(heard.clip_name, heard.complete) for heard in call.heard] == [("greeting", True)]
    (came, _), (back, name) = stream.marks_received[0], stream.marks_returned[0]
    assert name == "end"
    assert back - came == pytest.approx(CLIPS["greeting"].ms / 1000, abs=0.021)
    assert [params["StreamEvent"] for path, params in house.asked if path == "/stream"] == ["stream-started", "stream-stopped"]
    assert house.params("/resume/1")["CallStatus"] == "in-progress"
    assert call.first_sound_ms is not None
    assert call.first_sound_ms < 100


def test_connect_with_action_asks_the_action_and_runs_nothing_behind_it() -> None:
    action = STREAM.replace("<Connect>", '<Connect action="/after">')
    call = place(House({"/voice": action + "<Say>never</Say>", "/after": "<Hangup/>"}, greet_and_close))
    assert call.verbs == ["Connect", "Hangup"]


def test_the_disclosure_is_spoken_and_heard_before_the_stream_opens() -> None:
    disclosure = CLIPS["disclosure"]
    call = place(House({"/voice": f"<Say>{disclosure.text}</Say>{STREAM}"}, greet_and_close))
    assert [heard.clip_name for heard in call.heard] == ["disclosure", "greeting"]
    answered, started = (next(m.at for m in call.timeline if m.what == what) for what in ("answered", "stream-started"))
    assert started - answered == pytest.approx(disclosure.ms / 1000, abs=0.001)


def test_media_come_every_20_ms_with_the_counters_of_the_real_thing() -> None:
    seen: list[dict[str, Any]] = []
    times: list[float] = []

    async def listen(server: ServerEnd) -> None:
        await opened(server)
        while len(seen) < 100 and (text := await server.receive()) is not None:
            seen.append(json.loads(text))
            times.append(asyncio.get_running_loop().time())
        await server.close()

    place(House({"/voice": STREAM}, listen))
    sample = json.loads((WIRE / "media_streams/from_twilio.json").read_text())[2]
    assert [m["sequenceNumber"] for m in seen] == [str(n) for n in range(2, 102)]
    assert [m["media"]["chunk"] for m in seen] == [str(n) for n in range(1, 101)]
    assert seen[0].keys() == sample.keys()
    assert seen[0]["media"].keys() == sample["media"].keys()
    stamps = [int(m["media"]["timestamp"]) for m in seen]
    assert 59 <= stamps[0] <= 79
    assert {b - a for a, b in pairwise(stamps)} == {20}
    assert times[-1] - times[0] == pytest.approx(99 * 0.02, abs=1e-6)
    assert all(len(base64.b64decode(m["media"]["payload"])) == 160 for m in seen)


def test_the_caller_acts_on_what_was_played_and_not_on_what_was_sent() -> None:
    """The agent sends 17 s of speech in one message; the caller interrupts 3.2 s into hearing it."""
    spoken = bytearray()

    async def talk(server: ServerEnd) -> None:
        sid = await opened(server)
        await asyncio.sleep(1.0)
        await server.send(clip_message(sid, CLIPS["reset_steps"].ulaw))
        while (text := await server.receive()) is not None:
            message = json.loads(text)
            if message["event"] == "media":
                frame = base64.b64decode(message["media"]["payload"])
                if frame != b"\xff" * 160:
                    spoken.extend(frame)
                    await server.send(json.dumps({"event": "clear", "streamSid": sid}))

    steps = (Step(Heard("reset_steps", into_s=3.2), Say("already_tried")), Step(Start(3.0), HangUp()))
    call = place(House({"/voice": STREAM}, talk), *steps)
    began = call.phone.playout.first_sound(call.streams[0].started_at)
    says = next(moment.at for moment in call.timeline if moment.what == "caller-says")
    assert began is not None
    assert says - began == pytest.approx(3.2, abs=0.1)
    assert CLIPS["already_tried"].ulaw.rstrip(b"\xff")[:800] in bytes(spoken)
    assert call.clears[0].dropped_ms > 10_000
    assert call.sound_after_clears_ms[0] == 0
    (cut,) = (heard for heard in call.heard if heard.clip_name == "reset_steps")
    assert not cut.complete
    assert cut.heard_to_ms == pytest.approx(3200, abs=250)
    assert CLIPS["already_tried"].ulaw in call.said_audio()


def test_a_clear_sends_every_mark_back_at_once_and_in_order() -> None:
    back: list[tuple[float, str]] = []
    cleared_at = 0.0

    async def talk(server: ServerEnd) -> None:
        nonlocal cleared_at
        sid, now = await opened(server), asyncio.get_running_loop().time
        for name in ("1:200", "1:400", "1:600"):
            await server.send(clip_message(sid, CLIPS["reset_steps"].ulaw[:1600]))
            await server.send(mark_message(sid, name))
        while len(back) < 4 and (text := await server.receive()) is not None:
            if (message := json.loads(text))["event"] != "mark":
                continue
            back.append((now(), message["mark"]["name"]))
            if len(back) == 1:
                await asyncio.sleep(0.1)
                cleared_at = now()
                await server.send(json.dumps({"event": "clear", "streamSid": sid}))
                await server.send(mark_message(sid, "2:0"))
        await server.close()

    call = place(House({"/voice": STREAM}, talk))
    assert [name for _, name in back] == ["1:200", "1:400", "1:600", "2:0"]
    assert [at for at, _ in back[1:]] == pytest.approx([cleared_at] * 3, abs=1e-6)
    assert back[0][0] - call.streams[0].started_at == pytest.approx(0.2, abs=0.021)
    assert call.clears[0].marks == ("1:400", "1:600")


def test_keys_arrive_as_dtmf_and_a_hang_up_as_stop() -> None:
    seen: list[dict[str, Any]] = []

    async def listen(server: ServerEnd) -> None:
        await opened(server)
        while (text := await server.receive()) is not None:
            if (message := json.loads(text))["event"] != "media":
                seen.append(message)

    house = House({"/voice": STREAM + "<Redirect>/resume</Redirect>"}, listen)
    call = place(house, Step(Start(0.5), Press("0#")), Step(Start(0.5), HangUp()))
    assert [m["dtmf"]["digit"] for m in seen if m["event"] == "dtmf"] == ["0", "#"]
    samples = {m["event"]: m for m in json.loads((WIRE / "media_streams/from_twilio.json").read_text())}
    assert all(m.keys() == samples[m["event"]].keys() for m in seen)
    assert seen[-1]["event"] == "stop"
    assert call.verbs == ["Connect"]
    assert [path for path, _ in house.asked] == ["/voice", "/stream", "/stream", "/status"]


@pytest.mark.parametrize(("manner", "stops", "end"), [("stop", 1, "hung-up"), ("no-stop", 0, "hung-up"), ("vanish", 0, "vanished")])
def test_a_caller_leaves_politely_without_stop_or_by_reset(manner: str, stops: int, end: str) -> None:
    seen: list[str] = []

    async def listen(server: ServerEnd) -> None:
        await opened(server)
        while (text := await server.receive()) is not None:
            seen.append(json.loads(text)["event"])

    async def leave(call: TwilioCall) -> None:
        await call.wait_for("stream-started")
        await asyncio.sleep(1.0)
        call.hang_up(manner)

    call = place(House({"/voice": STREAM}, listen), meanwhile=leave)
    assert seen.count("stop") == stops
    assert (call.streams[0].end, call.status) == (end, "completed")


def test_a_broken_stream_leaves_the_caller_on_the_line() -> None:
    async def listen(server: ServerEnd) -> None:
        await opened(server)
        while await server.receive() is not None:
            pass

    async def breaks(call: TwilioCall) -> None:
        await call.wait_for("stream-started")
        await asyncio.sleep(1.0)
        call.break_stream()

    house = House({"/voice": STREAM + "<Redirect>/resume</Redirect>", "/resume": "<Hangup/>"}, listen)
    call = place(house, meanwhile=breaks)
    assert call.verbs == ["Connect", "Redirect", "Hangup"]
    assert [params["StreamEvent"] for path, params in house.asked if path == "/stream"] == ["stream-started", "stream-error"]


def test_a_refused_upgrade_costs_the_stream_and_not_the_call() -> None:
    house = House({"/voice": STREAM + "<Redirect>/resume</Redirect>", "/resume": "<Hangup/>"})
    call = place(house)
    assert [problem.code for problem in call.problems] == [31920]
    assert call.streams[0].end == "refused"
    assert call.verbs == ["Connect", "Redirect", "Hangup"]
    assert house.params("/stream")["StreamEvent"] == "stream-error"


@pytest.mark.parametrize(("url", "code"), [("ws://voice.example.com/media", 31922), ("wss://voice.example.com/media?token=1", 31920)])
def test_a_stream_url_is_wss_and_carries_no_query(url: str, code: int) -> None:
    call = place(House({"/voice": f'<Connect><Stream url="{url}"/></Connect>'}, greet_and_close), allow_ws=False)
    assert [problem.code for problem in call.problems] == [code]


def test_what_twilio_would_warn_about_is_kept_and_the_call_goes_on() -> None:
    async def misbehave(server: ServerEnd) -> None:
        sid = await opened(server)
        await server.send(b"\xff" * 160)
        await server.send(json.dumps({"event": "clear", "streamSid": "MZ" + "0" * 32}))
        await server.send(json.dumps({"event": "mark", "streamSid": sid, "mark": {"name": ""}}))
        await server.send(json.dumps({"event": "media", "streamSid": sid, "media": {"payload": "####"}}))
        await server.send(clip_message(sid, CLIPS["goodbye"].ulaw))
        await asyncio.sleep(3.0)
        await server.close()

    call = place(House({"/voice": STREAM}, misbehave))
    assert [violation.code for violation in call.violations] == [31950, 31951, 31951, 31951]
    assert call.clears == []
    assert [heard.clip_name for heard in call.heard] == ["goodbye"]


# ---- ten minutes


def test_ten_minutes_of_talk_take_seconds_and_lose_no_frame() -> None:
    """30,000 frames up; one turn of agent speech every 10 s down, in the vendor's odd pieces."""
    frames = 0

    async def talk(server: ServerEnd) -> None:
        nonlocal frames
        sid = await opened(server)

        async def speak() -> None:
            for _ in range(58):
                ulaw = CLIPS["opening_hours"].ulaw
                for start in range(0, len(ulaw), 557):
                    await server.send(clip_message(sid, ulaw[start : start + 557]))
                await server.send(mark_message(sid, "turn"))
                await asyncio.sleep(10)

        speaking = asyncio.create_task(speak())
        while (text := await server.receive()) is not None and frames < 30_000:
            frames += '"event":"media"' in text
        speaking.cancel()
        await server.close()

    began = time.process_time()
    call = place(House({"/voice": STREAM}, talk))
    assert time.process_time() - began < 10
    assert (frames, call.violations, call.problems) == (30_000, [], [])
    assert [heard.clip_name for heard in call.heard] == ["opening_hours"] * 58
    assert all(heard.complete for heard in call.heard)
    assert len(call.streams[0].marks_returned) == 58
    ended = call.streams[0].ended_at
    assert ended is not None
    assert ended - call.streams[0].started_at == pytest.approx(600, abs=0.1)
    assert len(call.said_audio()) == len(call.heard_audio())
