"""Both ends of a conversation with the sandbox Vapi: in virtual time over queues, and over real sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from bridge.sandbox import crm, liquid, sound, virtual
from bridge.sandbox.clips import CLIPS, spoken_by
from bridge.sandbox.ear import Ear, Final
from bridge.sandbox.memory import MemoryClient, MemoryLink
from bridge.sandbox.script import Caller, Say, Scenario, Step
from bridge.sandbox.turns import Evidence, Faults, Message, Plan, Turns
from bridge.sandbox.vapi import VapiSandbox

KEY = "sandbox-vapi-key"
TOOL = {"type": "function", "function": {"name": "get_user_account", "parameters": {"type": "object", "properties": {}}}}
NOON = 1_800_014_400.0  # 12:00 on 15 January 2027, UTC
LOCKED = '{"name": "Alex", "status": "locked"}'
ASSISTANT: Message = {
    "name": "TechFlow",
    "firstMessage": CLIPS["greeting"].text,
    "firstMessageInterruptionsEnabled": True,
    "model": {"provider": "openai", "model": "gpt-4.1", "messages": [{"role": "system", "content": "Help."}], "tools": [TOOL]},
    "voice": {"provider": "11labs", "voiceId": "v"},
    "startSpeakingPlan": {"waitSeconds": 0.4},
    "serverMessages": ["status-update", "end-of-call-report", "tool-calls", 'transcript[transcriptType="final"]', "user-interrupted"],
}
CALL: Message = {
    "name": "CA0123456789abcdef0123456789abcdef.0",
    "assistant": ASSISTANT,
    "transport": {"provider": "vapi.websocket", "audioFormat": {"format": "mulaw", "container": "raw", "sampleRate": 8000}},
}


class PhoneLine:
    """The far end of an in-memory link: plays what comes at 8000 bytes a second, drops it when the caller interrupts."""

    def __init__(self, client: MemoryClient, caller: Caller) -> None:
        self.client = client
        self.caller = caller
        self.heard: list[Final] = []
        self.texts: list[Message] = []
        self.strange: list[str | bytes] = []  # what no client can read
        self._buffer = bytearray()
        self._mouth = bytearray()
        self._ear = Ear(spoken_by("agent"))

    def say(self, ulaw: bytes) -> None:
        self._mouth += ulaw

    async def talk(self) -> None:
        loop = asyncio.get_running_loop()
        self.caller.connected(loop.time())
        start = loop.time()
        for tick in itertools.count(1):
            await asyncio.sleep(start + tick * sound.FRAME_S - loop.time())
            if not self._take(loop.time()):
                return

    def _take(self, now: float) -> bool:
        for message in self.client.receive_nowait():
            if message is None:
                self._hang_up(now)
                return False
            if isinstance(message, bytes):
                self._buffer += message
            else:
                self._read(message)
        played = bytes(self._buffer[: sound.FRAME]).ljust(sound.FRAME, b"\xff")
        del self._buffer[: sound.FRAME]
        for utterance in self._ear.hear(played, now):
            self.caller.heard(utterance)
            if isinstance(utterance, Final):
                self.heard.append(utterance)
        for deed in self.caller.deeds(now):
            if isinstance(deed, Say):
                self.say(CLIPS[deed.clip].ulaw)
        self.client.send(bytes(self._mouth[: sound.FRAME]).ljust(sound.FRAME, b"\xff"))
        del self._mouth[: sound.FRAME]
        return True

    def _hang_up(self, now: float) -> None:
        """The other end is gone; what has come is still played."""
        rest = [*self._ear.hear(bytes(self._buffer), now), *self._ear.close(now)]
        self.heard += [utterance for utterance in rest if isinstance(utterance, Final)]

    def _read(self, text: str) -> None:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if isinstance(message, dict) and isinstance(message.get("type"), str):
            self._text(message)
        else:
            self.strange.append(text)

    def _text(self, message: Message) -> None:
        self.texts.append(message)
        if message["type"] == "user-interrupted":
            self._buffer.clear()


class Held:
    """One conversation in virtual time and everything it left behind."""

    def __init__(self) -> None:
        self.evidence = Evidence()
        self.hooks: list[Message] = []
        self.reason = ""
        self.line: PhoneLine
        self.turns: Turns
        self.close_code: int | None = None
        self.lasted_s = 0.0


def hold(
    scenario: Scenario,
    *,
    assistant: Message = ASSISTANT,
    steps: tuple[Step, ...] | None = None,
    faults: Faults | None = None,
    result: str | None = LOCKED,
    answer: Message | None = None,
    tool_takes_s: float = 0.0,
    meanwhile: Callable[[PhoneLine], Any] | None = None,
) -> Held:
    """Hold a conversation over an in-memory link; `meanwhile` may play somebody else's part.

    The tool's server answers with `result` and what else is in `answer`, after `tool_takes_s`.
    """

    async def main() -> Held:
        held = Held()

        async def post(message: Message) -> Message | None:
            held.hooks.append(message)
            await asyncio.sleep(0.05)
            if message["type"] != "tool-calls" or result is None:
                return None
            await asyncio.sleep(tool_takes_s)
            mine = {"toolCallId": message["toolCallList"][0]["id"], "name": "get_user_account", "result": result}
            return {"results": [{**mine, **(answer or {})}]}

        loop = asyncio.get_running_loop()
        link = MemoryLink()
        held.line = PhoneLine(link.client, Caller(scenario.caller if steps is None else steps))
        held.turns = Turns(
            pipe=link,
            post=post,
            scenario=scenario,
            ear=Ear(spoken_by("caller")),
            plan=Plan.of(assistant, lambda text: liquid.render(text, {"plan": "pro"}, NOON)),
            rng=random.Random(7),
            wall=lambda: 1_800_000_000 + loop.time(),
            evidence=held.evidence,
            faults=faults or Faults(),
        )
        talking = asyncio.create_task(held.line.talk())
        extra = asyncio.create_task(meanwhile(held.line)) if meanwhile else None
        started = loop.time()
        held.reason = await held.turns.run()
        held.lasted_s = loop.time() - started
        await asyncio.sleep(0.1)
        held.close_code = link.client.close_code
        talking.cancel()
        if extra:
            extra.cancel()
        return held

    return virtual.run(main())


def spoken(held: Held, role: str) -> list[str]:
    return [hook["transcript"] for hook in held.hooks if hook["type"] == "transcript" and hook["role"] == role]


# ---- over the network


class House:
    """Our side of Vapi: takes the webhooks and answers tool calls from a real customer database."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Message]] = []
        self.secrets: list[str | None] = []
        self.fail_first: set[str] = set()
        self.url = ""
        self._crm = ""

    async def hook(self, request: web.Request) -> web.Response:
        body = await request.json()
        message = body["message"]
        self.secrets.append(request.headers.get("X-Vapi-Secret"))
        if message["type"] in self.fail_first:
            self.fail_first.remove(message["type"])
            return web.Response(status=500)
        self.got.append((message["type"], message))
        if message["type"] != "tool-calls":
            return web.Response()
        call = message["toolCallList"][0]
        async with aiohttp.ClientSession() as http, http.post(self._crm, json=call["function"]["arguments"]) as answer:
            result = await answer.text()
        return web.json_response({"results": [{"toolCallId": call["id"], "name": call["function"]["name"], "result": result}]})


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    ours = House()
    app = web.Application()
    app.add_routes([web.post("/webhook/vapi", ours.hook), *crm.routes()])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    ours.url, ours._crm = f"{base}/webhook/vapi", f"{base}/crm/get_user_account"
    try:
        yield ours
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client(vapi: VapiSandbox, key: str = KEY) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(vapi.base_url, headers={"Authorization": f"Bearer {key}"}) as session:
        yield session


async def create(http: aiohttp.ClientSession, body: Message = CALL) -> Message:
    async with http.post("/call", json=body) as answer:
        assert answer.status == 201, await answer.text()
        made: Message = await answer.json()
        return made
