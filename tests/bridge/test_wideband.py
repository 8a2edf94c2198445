"""Wide sound over real sockets: the sandbox's Vapi is asked for it by our own create, and both sides understand each other."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import WSMsgType, web

from agents import payload
from bridge.manners import Garbage
from bridge.ports import Link, LinkClosed
from bridge.sandbox.clips import CLIPS, spoken_by
from bridge.sandbox.ear import Ear, Final, Utterance
from bridge.sandbox.script import PLAIN
from bridge.sandbox.vapi import VapiSandbox
from bridge.vapi_http import VapiClient
from bridge.vapi_link import VapiConversations
from tests.agents.words import SERVER, words
from tests.bridge.real_sockets import quick
from tests.bridge.test_vapi_link import vapi


async def next_message(link: Link) -> bytes | str | Garbage:
    got: list[bytes | str | Garbage] = []

    def take(message: bytes | str | Garbage) -> bool:
        got.append(message)
        return False

    await link.carry(take)
    return got[0]


async def test_our_create_asks_for_wide_sound_and_both_sides_understand_each_other() -> None:
    loop = asyncio.get_running_loop()
    request = payload.call_request(
        call_sid="CA" + "1" * 32,
        n=0,
        epoch=0,
        server=SERVER,
        inline=payload.assistant(words(tools=[]), server=SERVER),
        sound="wideband",
    )
    async with VapiSandbox(scenario=PLAIN, api_key="key", faults=quick()) as sandbox:
        client = VapiClient(base_url=sandbox.base_url, api_key="key", socket_hosts=["127.0.0.1"])
        created = await asyncio.to_thread(client.create_call, request)
        link = await VapiConversations(api_key="key").open(created.socket_url, wideband=True)
        ear, heard, told = Ear(spoken_by("agent")), list[Final](), list[Utterance]()
        question = CLIPS["ask_hours"].ulaw + b"\xff" * 8000
        for place in range(0, len(question), 160):
            link.send_audio(question[place : place + 160])
        async with asyncio.timeout(20):
            while not heard:
                said = await next_message(link)
                if isinstance(said, bytes):
                    told = ear.hear(said, loop.time())
                elif isinstance(said, str) and json.loads(said).get("status") == "stopped":
                    told = ear.hear(b"\xff" * 8000, loop.time())
                heard += [final for final in told if isinstance(final, Final)]
        await link.close()
        (call,) = sandbox.calls.values()
        async with asyncio.timeout(20):
            await call.done.wait()
        client.close()
    assert heard[0].clip_name == "opening_hours"  # asked first, the agent answers instead of greeting
    assert [final.clip_name for final in call.evidence.understood] == ["ask_hours"]


async def test_single_bytes_become_sound_and_a_frame_has_four_times_as_many() -> None:
    got: list[bytes] = []

    async def dribble(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for byte in bytes(9):
            await socket.send_bytes(bytes([byte]))
        message = await socket.receive()
        assert message.type is WSMsgType.BINARY
        got.append(message.data)
        await socket.close()
        return socket

    async with vapi(dribble) as url:
        link = await VapiConversations(api_key="").open(url, wideband=True)
        assert [await next_message(link) for _ in range(2)] == [b"\xff", b"\xff"]
        link.send_audio(b"\xff" * 160)
        with pytest.raises(LinkClosed):
            await next_message(link)
    assert got == [bytes(640)]
