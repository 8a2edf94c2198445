"""A whole call in one process: a loop whose clock jumps to the next thing to do, and pipes instead of sockets.

Both vendors' sandboxes, the codecs, the core and the consumer are the real ones. What stands in for a real part is here:
the sockets (two queues each) and the ledger (a notebook).
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from agents.payload import RESUMED
from bridge.audio import load_clips
from bridge.consumers import MediaStreamConsumer
from bridge.ports import Admission, CallRef, Closing, Command, Conversation, LedgerAway, Link, Note
from bridge.sandbox import virtual
from bridge.sandbox.clips import spoken_by
from bridge.sandbox.ear import Ear
from bridge.sandbox.media import MediaSide, PipeClosed, StreamFacts
from bridge.sandbox.memory import MemoryClient, MemoryLink
from bridge.sandbox.phone import Phone
from bridge.sandbox.script import Caller, Scenario
from bridge.sandbox.turns import Evidence, Faults, Plan, Turns
from bridge.sandbox.wideband import WidePipe
from bridge.wideband import Wideband
from supportvoice.rehearsal import StreamPipe, VapiPipe

BRIDGE_CLIPS = load_clips(Path(__file__).parents[2] / "bridge" / "clips")


class TwilioPipe(StreamPipe):
    """A media socket that can be listened in on, and lost."""

    def __init__(self) -> None:
        super().__init__()
        self.uplink = bytearray()  # what the caller's phone really sent
        self.deaf_and_dumb = False  # half-open: nothing arrives any more, in either direction, and nobody is told
        self.refuses = False  # whatever is sent, as a server does whose peer is gone
        self.read_on = asyncio.Event()  # cleared: the server's buffer is full, and stays full
        self.read_on.set()

    async def send(self, text: str) -> None:
        if self.deaf_and_dumb:
            return
        message = json.loads(text)
        if message["event"] == "media":
            self.uplink += base64.b64decode(message["media"]["payload"])
        await super().send(text)

    async def asgi_send(self, message: Mapping[str, Any]) -> None:
        await self.read_on.wait()
        if self.refuses:
            raise ConnectionResetError
        if message["type"] == "websocket.close" or not self.deaf_and_dumb:
            await super().asgi_send(message)


Meddle = Callable[[TwilioPipe], Awaitable[None]]
Spoil = Callable[[MemoryClient], Awaitable[None]]


@dataclass
class Notebook:
    """A ledger that only remembers."""

    notes: list[Note] = field(default_factory=list)
    closing: Closing | None = None
    beats: int = 0
    state: str = "live"
    away: bool = False
    admits_after_s: float = 0.0
    waiting: list[Command] = field(default_factory=list)  # given once the agent has begun to speak
    obeyed: list[int] = field(default_factory=list)
    asked_for_a_person: int = 0
    agents: int = 1  # how many Vapi sessions may be had, one after the other
    lost: list[str] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)  # what was told with the last of them
    epoch: int = 0
    admission: dict[str, Any] = field(default_factory=dict)  # what the call's agent and line want otherwise

    async def admit(self, *, call_sid: str, account_sid: str, stream_sid: str, token: str) -> Admission | None:
        await asyncio.sleep(self.admits_after_s)
        if self.away:
            raise LedgerAway
        ref = CallRef(call_sid, self.epoch, "call-test00")
        return Admission(ref, **{"barge_in": "instant", **self.admission}) if token == "right" else None

    async def conversation(self, ref: CallRef) -> Conversation | None:
        return Conversation(len(self.lost), self.state, "vapi-1", "ws://in-memory")

    async def claim(self, ref: CallRef, n: int, *, from_another: bool = False) -> bool:
        raise AssertionError("nobody has to claim a live session")

    async def resume(self, ref: CallRef, *, raw: str, n: int, said: Iterable[tuple[str, str]] = ()) -> bool:
        self.lost.append(raw)
        self.said = [*said]
        return len(self.lost) < self.agents

    async def is_parked(self, ref: CallRef) -> bool:
        return False

    async def taken_up(self, ref: CallRef) -> bool:
        return False

    async def given_up(self, ref: CallRef, waited: Mapping[str, Any]) -> None:
        raise AssertionError("nobody is parked")

    def note(self, ref: CallRef, note: Note) -> None:
        self.notes.append(note)

    def heartbeat(self, ref: CallRef) -> None:
        self.beats += 1

    def person_asked(self, ref: CallRef) -> None:
        self.asked_for_a_person += 1
        self.waiting.append(Command(100 + self.asked_for_a_person, "hand-over", {"at_once": True}))

    @contextmanager
    def watching(self, ref: CallRef, look: Callable[[], None], heard: Callable[[], Iterable[tuple[str, str]]]) -> Iterator[None]:
        async def keep_looking() -> None:
            while True:
                await asyncio.sleep(2.0)
                look()

        looking = asyncio.create_task(keep_looking())
        try:
            yield
        finally:
            looking.cancel()

    async def commands(self, ref: CallRef, *, after: int) -> list[Command]:
        return [command for command in self.waiting if command.id > after and "agent-speech-started" in self.kinds()]

    def done(self, ref: CallRef, command_id: int) -> None:
        self.obeyed.append(command_id)

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
    left_at: float  # seconds after its start the bridge had left


def carry_a_call(
    scenario: Scenario,
    *,
    seed: int = 1,
    faults: Faults | None = None,
    token: str = "right",
    notebook: Notebook | None = None,
    meddle: Meddle | None = None,
    spoil: Spoil | None = None,
) -> OneCall:
    """Run one call from the stream's start to its end on a virtual clock.

    `meddle` does something to the media socket meanwhile, `spoil` to what Vapi's socket brings.
    """
    return virtual.run(_call(scenario, seed, faults or Faults(), token, notebook or Notebook(), meddle, spoil))


async def _call(
    scenario: Scenario,
    seed: int,
    faults: Faults,
    token: str,
    notebook: Notebook,
    meddle: Meddle | None,
    spoil: Spoil | None,
) -> OneCall:
    loop = asyncio.get_running_loop()
    began = loop.time()
    twilio, vapi, evidence = TwilioPipe(), MemoryLink(), Evidence()
    phone = Phone(Caller(scenario.caller), Ear(spoken_by("agent")))
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
        async def open(self, socket_url: str, *, wideband: bool = False, account: str = "main") -> Link:
            is_first = not turns
            pipe = vapi if is_first else MemoryLink()
            before = () if is_first else tuple(final.text.lower() for final in evidence.understood)
            engine = Turns(
                pipe=WidePipe(pipe) if wideband else pipe,
                post=answer_tools,
                scenario=scenario,
                ear=Ear(spoken_by("caller")),
                plan=plan if is_first else replace(plan, first_message=RESUMED, caller_said=before),
                rng=random.Random(seed),
                wall=loop.time,
                evidence=evidence,
                faults=faults if faults.sessions is None or len(turns) < faults.sessions else Faults(),
            )
            turns.append(asyncio.create_task(engine.run()))
            link = VapiPipe(pipe.client)
            return Wideband(link) if wideband else link

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

    async def served() -> None:
        """As a server does: once the application has returned, the socket is gone, whether it was closed or not."""
        await consumer(scope, twilio.asgi_receive, twilio.asgi_send)
        await twilio.server.close(1006)

    bridge = asyncio.create_task(served())
    ticking = asyncio.create_task(phone.run())
    phone.connected()
    meddling = [asyncio.ensure_future(work) for work in (meddle and meddle(twilio), spoil and spoil(vapi.client)) if work]
    streaming = asyncio.ensure_future(stream.run())
    async with asyncio.timeout(3600):
        await asyncio.wait({streaming, bridge}, return_when=asyncio.FIRST_EXCEPTION)
    ticking.cancel()
    await asyncio.gather(*meddling)
    phone.last_words()
    await bridge
    left_at = loop.time() - began
    await asyncio.gather(*turns)
    return OneCall(await streaming, phone, evidence, notebook, bytes(twilio.uplink), loop.time() - began, left_at)


def patience(seconds: float) -> Meddle:
    """Nobody waits for ever on a line where nothing happens any more: the media socket is cut then."""

    async def wait(twilio: TwilioPipe) -> None:
        try:
            async with asyncio.timeout(seconds):
                await twilio.gone()
        except TimeoutError:
            twilio.abort()

    return wait


def refused_with(twilio: TwilioPipe, notebook: Notebook) -> int:
    """The code with which a stream is closed that says what is waiting in `twilio`. Raises when it is carried instead."""
    return virtual.run(_refused_with(twilio, notebook))


async def _refused_with(twilio: TwilioPipe, notebook: Notebook) -> int:
    class Nobody:
        async def open(self, socket_url: str, *, wideband: bool = False, account: str = "main") -> VapiPipe:
            raise AssertionError("a refused stream has no business at Vapi")

    consumer = MediaStreamConsumer(ledger=notebook, conversations=Nobody(), proof=lambda *, path, headers: True, clips=BRIDGE_CLIPS)
    async with asyncio.timeout(60):
        await consumer({"type": "websocket", "path": "/", "headers": []}, twilio.asgi_receive, twilio.asgi_send)
    with pytest.raises(PipeClosed) as closed:
        await twilio.receive()
    return closed.value.code
