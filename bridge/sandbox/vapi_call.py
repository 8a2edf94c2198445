"""A call as Vapi knows it, its audio socket, and the recordings it leaves."""

from __future__ import annotations

import asyncio
import socket as sockets
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from bridge.sandbox import sound, wav
from bridge.sandbox.evidence import Evidence, Message, Posted
from bridge.sandbox.faults import NO_CLOSE_FRAME, RESET, Faults
from bridge.sandbox.script import Scenario
from bridge.sandbox.turns import Turns
from bridge.sandbox.web import LINGER_0

TRACKS = ("mono", "stereo", "assistant", "customer")


@dataclass(slots=True)
class SandboxCall:
    """A call, and everything that can be proven about it afterwards."""

    id: str
    request: Message
    assistant: Message
    public: Message  # what GET /call/{id} says
    scenario: Scenario
    faults: Faults
    evidence: Evidence = field(default_factory=Evidence)
    posted: list[Posted] = field(default_factory=list)
    turns: Turns | None = None
    blocked: bool = False  # all lines are busy: nobody can connect
    ended_reason: str | None = None
    report: Message = field(default_factory=dict)  # once it is over
    done: asyncio.Event = field(default_factory=asyncio.Event)  # over, its report delivered or given up
    watch: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        return self.ended_reason is None

    @property
    def name(self) -> str:
        return str(self.request.get("name", ""))

    @property
    def variables(self) -> Message:
        found: Message = self.request.get("assistantOverrides", {}).get("variableValues", {})
        return found

    def webhooks(self, kind: str) -> list[Message]:
        """The messages of this type that our server accepted, in order of their answers."""
        return [each.body["message"] for each in self.posted if each.kind == kind and each.status is not None and each.status < 300]

    def recording(self, track: str) -> bytes:
        """One of TRACKS as a WAV file; both sides begin with the first audio of the call."""
        evidence = self.evidence
        caller, agent = bytes(evidence.uplink), bytearray(sound.silence(0))
        first = evidence.chunks[0][0] if evidence.chunks else 0.0
        place = 0
        for at, size in evidence.chunks:
            agent += bytes([sound.SILENCE]) * max(int((at - first) * sound.RATE) - len(agent), 0)
            agent += evidence.downlink[place : place + size]
            place += size
        if track == "stereo":
            return wav.stereo(caller, bytes(agent))
        return wav.mono(*{"customer": (caller,), "assistant": (bytes(agent),)}.get(track, (caller, bytes(agent))))


class SocketPipe:
    """The audio socket as the engine's Pipe."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self._socket = socket
        self._request = request
        self.gone = asyncio.Event()

    async def send_bytes(self, data: bytes) -> None:
        if not self._socket.closed:
            with suppress(ConnectionError):  # the other side may be gone; `receive` says so
                await self._socket.send_bytes(data)

    async def send_text(self, text: str) -> None:
        if not self._socket.closed:
            with suppress(ConnectionError):
                await self._socket.send_str(text)

    async def receive(self) -> bytes | str | None:
        message = await self._socket.receive()
        if message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
            data: bytes | str = message.data
            return data
        self.gone.set()
        return None

    async def close(self, code: int) -> None:
        transport = self._request.transport
        if code in (NO_CLOSE_FRAME, RESET):
            if transport is not None:
                raw = transport.get_extra_info("socket")
                if code == RESET and raw is not None:
                    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, LINGER_0)
                transport.abort()
        elif not self._socket.closed:
            await self._socket.close(code=1008 if code == 1005 else code)
        self.gone.set()
