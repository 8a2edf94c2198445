"""A whole call in one process: a loop whose clock jumps to the next thing to do, and pipes instead of sockets.

Both vendors' sandboxes, the codecs, the core and the consumer are the real ones. What stands in for a real part is here:
the sockets (two queues each) and the ledger (a notebook).
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import selectors
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridge.audio import load_clips
from bridge.consumers import MediaStreamConsumer
from bridge.ports import Admission, CallRef, Closing, Command, Conversation, LinkClosed, Note
from bridge.sandbox.clips import CLIPS
from bridge.sandbox.ear import Ear
from bridge.sandbox.media import MediaSide, PipeClosed, StreamFacts
from bridge.sandbox.phone import Phone
from bridge.sandbox.script import Caller, Scenario
from bridge.sandbox.turns import Evidence, Faults, Plan, Turns

BRIDGE_CLIPS = load_clips(Path(__file__).parents[2] / "bridge" / "clips")


class Deadlock(Exception):
    """Everybody waits and nobody will ever wake them."""


class _JumpingSelector(selectors.SelectSelector):
    """Never sleeps: where a real selector would wait, the clock jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise Deadlock
        self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class _Queue:
    """Messages one way. None, put last, closes it."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._news = asyncio.Event()

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._news.set()

    async def get(self) -> Any:
        while not self._items:
            self._news.clear()
            await self._news.wait()
        return self._items.popleft()


class TwilioPipe:
    """The media socket: the sandbox's Pipe at one end, ASGI's receive and send at the other."""

    extensions = ""

    def __init__(self) -> None:
        self._to_us, self._to_twilio = _Queue(), _Queue()
        self._to_us.put({"type": "websocket.connect"})
        self.uplink = bytearray()  # what the caller's phone really sent

    async def send(self, text: str) -> None:
        message = json.loads(text)
        if message["event"] == "media":
            self.uplink += base64.b64decode(message["media"]["payload"])
        self._to_us.put({"type": "websocket.receive", "text": text})

    async def receive(self) -> str | bytes:
        item = await self._to_twilio.get()
        if isinstance(item, int):
            raise PipeClosed(item)
        assert isinstance(item, str)
        return item

    async def close(self) -> None:
        self._to_us.put({"type": "websocket.disconnect", "code": 1000})

    def abort(self) -> None:
        self._to_us.put({"type": "websocket.disconnect", "code": 1006})

    async def asgi_receive(self) -> Mapping[str, Any]:
        message: Mapping[str, Any] = await self._to_us.get()
        return message

    async def asgi_send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "websocket.send":
            self._to_twilio.put(message["text"])
        elif message["type"] == "websocket.close":
            self._to_twilio.put(message["code"])


class VapiPipe:
    """The audio socket: the sandbox's Pipe at one end, the bridge's Link at the other."""

    def __init__(self) -> None:
        self._to_us, self._to_vapi = _Queue(), _Queue()
        self.dropped_bytes = 0

    async def send_bytes(self, data: bytes) -> None:
        self._to_us.put(data)

    async def send_text(self, text: str) -> None:
        self._to_us.put(text)

    async def receive_from_us(self) -> bytes | str | None:
        item: bytes | str | None = await self._to_vapi.get()
        return item

    async def close_by_vapi(self, code: int) -> None:
        self._to_us.put(code)
        self._to_vapi.put(None)

    def send_audio(self, ulaw: bytes) -> None:
        self._to_vapi.put(ulaw)

    def send_control(self, message: Mapping[str, Any]) -> None:
        self._to_vapi.put(json.dumps(dict(message)))

    async def receive(self) -> bytes | str:
        item = await self._to_us.get()
        if isinstance(item, int):
            raise LinkClosed(item)
        assert isinstance(item, bytes | str)
        return item

    async def close(self) -> None:
        self._to_vapi.put(None)


class _VapiEnd:
    """The same pipe with the names Vapi's end has for it."""

    def __init__(self, pipe: VapiPipe) -> None:
        self.send_bytes, self.send_text, self.receive, self.close = (
            pipe.send_bytes,
            pipe.send_text,
            pipe.receive_from_us,
            pipe.close_by_vapi,
        )


@dataclass
class Notebook:
    """A ledger that only remembers."""

    notes: list[Note] = field(default_factory=list)
    closing: Closing | None = None
    beats: int = 0
    state: str = "live"

    async def admit(self, *, call_sid: str, account_sid: str, stream_sid: str, token: str) -> Admission | None:
        return Admission(CallRef(call_sid, 0, "call-test00"), barge_in="instant") if token == "right" else None

    async def conversation(self, ref: CallRef) -> Conversation | None:
        return Conversation(0, self.state, "vapi-1", "ws://in-memory")

    async def claim(self, ref: CallRef, n: int) -> None:
        raise AssertionError("nobody has to claim a live session")

    def note(self, ref: CallRef, note: Note) -> None:
        self.notes.append(note)

    def heartbeat(self, ref: CallRef) -> None:
        self.beats += 1

    async def commands(self, ref: CallRef, *, after: int) -> list[Command]:
        return []

    async def ended(self, ref: CallRef, closing: Closing) -> None:
        self.closing = closing

    def kinds(self) -> list[str]:
        return [note.kind for note in self.notes]

    def details(self, kind: str) -> list[Mapping[str, Any]]:
        return [note.detail for note in self.notes if note.kind == kind]


@dataclass
class OneCall:
    """What was seen of a call from outside, and what the notebook says of it."""

    facts: StreamFacts
    phone: Phone
    evidence: Evidence
    notebook: Notebook
    uplink: bytes
    seconds: float


def carry_a_call(scenario: Scenario, *, seed: int = 1, faults: Faults | None = None, token: str = "right") -> OneCall:
    """Run one call from the stream's start to its end on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_call(scenario, seed, faults or Faults(), token))


async def _call(scenario: Scenario, seed: int, faults: Faults, token: str) -> OneCall:
    loop = asyncio.get_running_loop()
    twilio, vapi, evidence, notebook = TwilioPipe(), VapiPipe(), Evidence(), Notebook()
    everybody = {clip.name: clip for clip in CLIPS.values()}
    phone = Phone(Caller(scenario.caller), Ear({name: clip for name, clip in everybody.items() if clip.voice == "agent"}))
    messages = frozenset({"speech-update", "user-interrupted", "transcript", "status-update", "model-output"})
    plan = Plan(
        greeting_interruptible=True,
        max_duration_s=3600,
        client_messages=messages,
        server_messages=frozenset({"tool-calls"}),
        tools={"get_user_account": {"type": "function", "function": {"name": "get_user_account"}}},
    )
    turns: list[asyncio.Task[str]] = []

    async def answer_tools(message: dict[str, Any]) -> dict[str, Any]:
        results = [{"toolCallId": call["id"], "name": call["function"]["name"], "result": "locked"} for call in message["toolCallList"]]
        return {"results": results}

    class InMemory:
        async def open(self, socket_url: str) -> VapiPipe:
            engine = Turns(
                pipe=_VapiEnd(vapi),
                post=answer_tools,
                scenario=scenario,
                ear=Ear({name: clip for name, clip in everybody.items() if clip.voice == "caller"}),
                plan=plan,
                rng=random.Random(seed),
                wall=loop.time,
                evidence=evidence,
                faults=faults,
            )
            turns.append(asyncio.create_task(engine.run()))
            return vapi

    consumer = MediaStreamConsumer(
        ledger=notebook,
        conversations=InMemory(),
        proof=lambda *, path, headers: True,
        clips=BRIDGE_CLIPS,
        clock=loop.time,
        wall=loop.time,
    )
    stream = MediaSide(twilio, phone, stream_sid="MZ1", call_sid="CA1", account_sid="AC1", parameters={"token": token})
    scope = {"type": "websocket", "path": "/webhook/twilio/media", "headers": []}
    bridge = asyncio.create_task(consumer(scope, twilio.asgi_receive, twilio.asgi_send))
    ticking = asyncio.create_task(phone.run())
    phone.connected()
    async with asyncio.timeout(3600):
        facts = await stream.run()
    ticking.cancel()
    phone.last_words()
    await bridge
    await asyncio.gather(*turns)
    return OneCall(facts, phone, evidence, notebook, bytes(twilio.uplink), loop.time())
