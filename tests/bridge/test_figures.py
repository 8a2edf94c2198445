"""The counters of a call's streams: added up, and what they say of a socket whose other end takes no more."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from pytest_django import Settings

from bridge.consumers import MediaStreamConsumer
from bridge.figures import together
from bridge.ports import Link
from bridge.sandbox.script import THREE_BARGE_INS, End, Scenario, Speak
from bridge.twilio_media import MAX_AUDIO_BYTES
from bridge.vapi_link import VapiConversations
from tests.bridge.test_vapi_link import vapi
from tests.bridge.virtual_time import BRIDGE_CLIPS, Meddle, Notebook, OneCall, TwilioPipe, carry_a_call

PIECES = 450  # of the longest there are: more than the buffers of a socket that nobody reads
STOPS_BEFORE_S, UNREAD_S = 0.5, 1.0
NOBODY_INTERRUPTS = Scenario("nobody_interrupts", caller=(), opening=(Speak("greeting"), End(clip="goodbye")))


@pytest.fixture(autouse=True)
def no_channel_layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {}


def test_streams_are_added_up_but_of_a_most_the_largest_stays() -> None:
    first = {"to_caller": 160, "from_agent_held_most": 900, "keys": 0}
    second = {"to_caller": 320, "from_agent_held_most": 400, "clips": 80}
    assert together(first, second) == {"to_caller": 480, "from_agent_held_most": 900, "clips": 80}
    assert together({}, second) == second


# -- a Vapi that does not read ----------------------------------------------------------------------------------------------


@dataclass
class Stalled:
    """A Vapi on a real socket that reads nothing until it may, and then all that there is."""

    may_read: asyncio.Event = field(default_factory=asyncio.Event)
    got: list[int] = field(default_factory=list)  # the bytes of each message of sound
    url: str = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        vapi = web.WebSocketResponse()
        await vapi.prepare(request)
        assert request.transport is not None
        request.transport.pause_reading()
        await self.may_read.wait()
        request.transport.resume_reading()
        async for message in vapi:
            if message.type is WSMsgType.BINARY:
                self.got.append(len(message.data))
        return vapi

    async def open(self, socket_url: str, *, wideband: bool = False, account: str = "main") -> Link:
        return await VapiConversations(api_key="").open(self.url, wideband=wideband)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def too_much_for(stalled: Stalled, notebook: Notebook) -> None:
    """A call whose caller says more than Vapi takes, until Twilio says stop."""
    twilio = TwilioPipe()
    consumer = MediaStreamConsumer(ledger=notebook, conversations=stalled, proof=lambda *, path, headers: True, clips=BRIDGE_CLIPS)

    async def says(event: str, **more: Any) -> None:
        await twilio.send(json.dumps({"event": event, "streamSid": "MZ1", **more}))

    async with vapi(stalled.serve) as stalled.url:
        carrying = asyncio.create_task(consumer({"path": "/", "headers": []}, twilio.asgi_receive, twilio.asgi_send))
        sound = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        ids = {"accountSid": "AC1", "callSid": "CA1", "streamSid": "MZ1"}
        await says("start", start={**ids, "mediaFormat": sound, "customParameters": {"token": "right"}})
        await until(lambda: "vapi-connected" in notebook.kinds())
        payload = base64.b64encode(b"\x55" * MAX_AUDIO_BYTES).decode()
        for _ in range(PIECES):
            await says("media", media={"track": "inbound", "payload": payload})
        await says("stop", stop={})
        await until(lambda: notebook.closing)
        stalled.may_read.set()
        await carrying


@pytest.mark.parametrize(("wants", "wider"), [({}, 1), ({"wideband": True}, 4)], ids=["telephone", "wideband"])
def test_what_a_vapi_that_does_not_read_never_gets_is_counted_to_the_byte_and_to_the_message(wants: dict[str, bool], wider: int) -> None:
    async def call() -> Stalled:
        stalled = Stalled()
        await too_much_for(stalled, notebook)
        return stalled

    notebook = Notebook(admission=wants)
    got = asyncio.run(call()).got
    assert notebook.closing is not None
    audio = notebook.closing.figures["audio"]
    assert audio["to_agent_dropped_frames"] > 0
    assert audio["to_agent_dropped"] == audio["to_agent"] - sum(got) // wider
    assert audio["to_agent_dropped_frames"] == audio["to_agent_frames"] - len(got)


# -- a Twilio that does not read --------------------------------------------------------------------------------------------


def reads_nothing(*, from_s: float) -> Meddle:
    async def meddle(twilio: TwilioPipe) -> None:
        await asyncio.sleep(from_s)
        twilio.read_on.clear()
        await asyncio.sleep(UNREAD_S)
        twilio.read_on.set()

    return meddle


def figures(call: OneCall) -> dict[str, int]:
    assert call.notebook.closing is not None
    audio: dict[str, int] = call.notebook.closing.figures["audio"]
    return audio


def test_sound_that_waits_for_a_twilio_that_does_not_read_is_counted_as_held_and_comes_later() -> None:
    audio = figures(call := carry_a_call(NOBODY_INTERRUPTS, meddle=reads_nothing(from_s=1.5)))
    assert UNREAD_S / 2 <= audio["to_caller_held_most"] / 8000 <= UNREAD_S
    assert (audio["to_caller_overtaken"], audio["to_caller_overtaken_frames"]) == (0, 0)
    assert audio["to_caller"] == call.facts.audio_bytes


def test_what_a_clear_overtakes_on_its_way_to_twilio_is_counted_to_the_byte_and_to_the_message() -> None:
    undisturbed = carry_a_call(THREE_BARGE_INS)
    clear_at_s = undisturbed.facts.clears[0] - undisturbed.facts.started_at
    call = carry_a_call(THREE_BARGE_INS, meddle=reads_nothing(from_s=clear_at_s - STOPS_BEFORE_S))
    audio = figures(call)
    assert audio["to_caller_overtaken_frames"] > 0
    assert audio["to_caller_overtaken"] == audio["to_caller"] - call.facts.audio_bytes
    assert audio["to_caller_overtaken_frames"] == audio["to_caller_frames"] - call.facts.media_received
    assert STOPS_BEFORE_S / 2 <= audio["to_caller_held_most"] / 8000 <= UNREAD_S


def test_a_call_on_two_sockets_that_take_all_has_none_of_these() -> None:
    audio = figures(carry_a_call(THREE_BARGE_INS))
    held_up = ("to_agent_dropped", "to_agent_dropped_frames", "to_caller_overtaken", "to_caller_overtaken_frames")
    assert [audio[name] for name in held_up] == [0, 0, 0, 0]
