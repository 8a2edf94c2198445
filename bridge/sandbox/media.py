"""Twilio's end of one bidirectional media stream: five messages out, three in, every one of them checked.

It moves what the phone says and hears and decides nothing, and falls ill on demand: reading slowly, or half-open. No socket here: a
`Pipe` carries the messages, so the same code runs over a WebSocket at the pace of the clock and in memory at any pace. Time comes from
the running loop only.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from bridge.sandbox.phone import Phone
from bridge.sandbox.sound import Timed, is_silent

MAX_MARK = 512
HOLD_S = 30.0  # a half-open socket that no server lets go of is given up
_SHAPES: Mapping[str, tuple[frozenset[str], str, str]] = {
    "media": (frozenset({"event", "streamSid", "media"}), "media", "payload"),
    "mark": (frozenset({"event", "streamSid", "mark"}), "mark", "name"),
    "clear": (frozenset({"event", "streamSid"}), "", ""),
}


class PipeClosed(Exception):
    """The server closed the stream with `code`; 1006 when it vanished without saying so."""

    def __init__(self, code: int) -> None:
        super().__init__(f"media socket closed with {code}")
        self.code = code


class Pipe(Protocol):
    """An open stream socket, seen from Twilio. Sends keep their order. `extensions`: what the server agreed to; must be nothing."""

    extensions: str

    async def send(self, text: str) -> None:
        """Raises PipeClosed."""

    async def receive(self) -> str | bytes:
        """The server's next message. Raises PipeClosed."""

    async def close(self) -> None:
        """Close politely with 1000."""

    def abort(self) -> None:
        """Be gone without a close frame: a TCP reset."""

    def pause(self) -> None:
        """Read nothing more from the network: what the server sends piles up there, also its wish to close."""

    def resume(self) -> None:
        """Read again."""

    async def gone(self) -> None:
        """Until the server has let go of the connection, seen without reading from it."""


@dataclass(frozen=True, slots=True)
class Violation:
    """What Twilio would have written into its debugger."""

    code: int
    why: str
    at: float


class Offence(Exception):
    """A message Twilio would not understand."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why


def read(message: str | bytes, stream_sid: str) -> tuple[str, str]:
    """A server's message as (event, payload or mark name). Raises Offence with 31950 or 31951; keys must match to the letter."""
    if not isinstance(message, str):
        raise Offence(31950, "binary frame")
    try:
        said: Any = json.loads(message)
    except ValueError as error:
        raise Offence(31951, "not JSON") from error
    shape = _SHAPES.get(said.get("event", "")) if isinstance(said, dict) and isinstance(said.get("event"), str) else None
    if shape is None:
        raise Offence(31951, "unknown event")
    keys, part, field_name = shape
    if said.keys() != keys:
        raise Offence(31951, f"{said['event']}: missing or extra field")
    if said["streamSid"] != stream_sid:
        raise Offence(31951, f"{said['event']}: wrong streamSid")
    if not part:
        return said["event"], ""
    if not isinstance(said[part], dict) or said[part].keys() != {field_name} or not isinstance(said[part][field_name], str):
        raise Offence(31951, f"{part}: missing or extra field inside")
    return part, said[part][field_name]


def audio(payload: str) -> bytes:
    """Mu-law bytes of a media payload. Raises Offence."""
    try:
        ulaw = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Offence(31951, "media: payload is not base64") from error
    if not ulaw:
        raise Offence(31951, "media: empty payload")
    if ulaw[:4] in (b"RIFF", b"ID3\x03", b"OggS"):
        raise Offence(31951, "media: a file header plays as noise")
    return ulaw


@dataclass(slots=True)
class StreamFacts:
    """What was seen of one stream from outside. Times are the loop's; `None` means it did not happen."""

    stream_sid: str
    started_at: float = 0.0
    first_media_at: float | None = None
    ended_at: float | None = None
    let_go_at: float | None = None  # when the server gave up a half-open socket
    end: str = ""  # server-closed | broken | hung-up | turned | vanished | half-open | refused
    close_code: int = 0
    frames_sent: int = 0
    voiced: list[Timed] = field(default_factory=list)  # those of them that are not silent, as they left
    media_received: int = 0
    audio_bytes: int = 0
    marks_received: list[tuple[float, str]] = field(default_factory=list)
    marks_returned: list[tuple[float, str]] = field(default_factory=list)
    clears: list[float] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)


class MediaSide:
    """One stream of one call. `run` speaks first (`connected`, `start`) and returns when the server has closed."""

    def __init__(
        self,
        pipe: Pipe,
        phone: Phone,
        *,
        stream_sid: str,
        call_sid: str,
        account_sid: str,
        parameters: Mapping[str, str],
        first_timestamp_ms: int = 60,
    ) -> None:
        self.facts = StreamFacts(stream_sid)
        self._pipe = pipe
        self._phone = phone
        self._ids = {"accountSid": account_sid, "callSid": call_sid}
        self._parameters = dict(parameters)
        self._first_ms = first_timestamp_ms
        self._sequence = 0
        self._open = False
        self._holding: asyncio.Task[None] | None = None
        self._reading = asyncio.Event()
        self._reading.set()
        self._loop = asyncio.get_running_loop()

    async def run(self) -> StreamFacts:
        """Carry the stream until the server closes it. Cancelled when the caller leaves: then `leave` says how."""
        facts = self.facts
        try:
            await self._introduce()
            facts.started_at = self._loop.time()
            self._open = True
            self._phone.line = self
            while True:
                message = await self._pipe.receive()
                if not self._reading.is_set():
                    await self._reading.wait()
                for name in self._take(message, now := self._loop.time()):
                    await self._return_mark(name, now)
        except PipeClosed as closed:
            facts.close_code = 1006 if self.is_half_open else closed.code  # no close frame gets through to a half-open end
            self._over("broken" if facts.close_code == 1006 else "server-closed")
        finally:
            self._open = False
            self._phone.line = None
        return facts

    async def _introduce(self) -> None:
        sid = self.facts.stream_sid
        await self._pipe.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        start = {
            "streamSid": sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self._parameters,
            **self._ids,
        }
        await self._pipe.send(json.dumps({"event": "start", "sequenceNumber": self._next(), "start": start, "streamSid": sid}))

    async def frame(self, ulaw: bytes, now: float) -> None:
        """One tick of the phone: marks whose audio was played, then 20 ms of the caller."""
        facts = self.facts
        if not self._open:
            return
        try:
            for name in self._phone.playout.due(now):
                await self._return_mark(name, now)
            if now < facts.started_at + self._first_ms / 1000:
                return
            facts.frames_sent += 1
            if not is_silent(ulaw):
                facts.voiced.append((self._loop.time(), ulaw))
            await self._pipe.send(
                f'{{"event":"media","sequenceNumber":"{self._next()}","media":{{"track":"inbound","chunk":"{facts.frames_sent}",'
                f'"timestamp":"{self._first_ms + 20 * (facts.frames_sent - 1)}","payload":"{base64.b64encode(ulaw).decode()}"}},'
                f'"streamSid":"{facts.stream_sid}"}}'
            )
        except PipeClosed:
            self._open = False  # `run` hears of it too, and ends the stream

    async def digit(self, digit: str, now: float) -> None:
        """The caller pressed a key."""
        if self._open:
            part = {"track": "inbound_track", "digit": digit}
            message = {"event": "dtmf", "streamSid": self.facts.stream_sid, "sequenceNumber": self._next(), "dtmf": part}
            with suppress(PipeClosed):  # `run` hears of it too
                await self._pipe.send(json.dumps(message))

    @property
    def is_half_open(self) -> bool:
        return self._holding is not None

    def stop_reading(self) -> None:
        """Leave what the server sends in the network; the caller is still sent."""
        self._phone.remember("stream-slow")
        self._reading.clear()
        self._pipe.pause()

    def read_again(self) -> None:
        """Take what has piled up, all at once."""
        if self._holding is None:
            self._pipe.resume()
            self._reading.set()

    def half_open(self) -> None:
        """From now on neither send nor read nor close. When the server lets go of the socket, `run` ends as broken."""
        if self._holding is None:
            self._phone.remember("stream-half-open")
            self._open = False
            self._reading.clear()
            self._pipe.pause()
            self._holding = asyncio.create_task(self._hold())

    def abandon(self) -> None:
        """The caller is gone, and the server is to hear nothing of it from this stream. Then `give_up`."""
        self.half_open()
        self._over("half-open")

    async def give_up(self) -> None:
        """Hold a half-open socket until the server lets go of it, HOLD_S at most."""
        if self._holding is not None:
            await asyncio.wait({self._holding}, timeout=HOLD_S)
            self._holding.cancel()
        self._pipe.abort()

    async def _hold(self) -> None:
        await self._pipe.gone()
        self.facts.let_go_at = self._loop.time()
        self._pipe.abort()
        self._reading.set()

    def leave(self, how: str = "hung-up", *, stop: bool = True) -> Coroutine[Any, Any, None]:
        """The call is over, or turned elsewhere, now. Await the rest: `stop` (unless that message gets lost) and a polite close."""
        self._over(how)
        self._pipe.resume()
        return self._say_goodbye(stop)

    async def _say_goodbye(self, stop: bool) -> None:
        with suppress(PipeClosed):
            if stop:
                message = {"event": "stop", "sequenceNumber": self._next(), "stop": self._ids, "streamSid": self.facts.stream_sid}
                await self._pipe.send(json.dumps(message))
            await self._pipe.close()

    def vanish(self) -> None:
        """A TCP reset, no `stop`."""
        self._over("vanished")
        self._pipe.abort()
        if self._holding is not None:
            self._holding.cancel()

    def _take(self, message: str | bytes, now: float) -> list[str]:
        """Obey one message; the marks that have to be sent back for it."""
        facts, playout = self.facts, self._phone.playout
        if self._holding is not None:
            return []
        try:
            event, value = read(message, facts.stream_sid)
            if event == "media":
                ulaw = audio(value)
                playout.play(ulaw, now)
                facts.first_media_at = facts.first_media_at or now
                facts.media_received += 1
                facts.audio_bytes += len(ulaw)
                return []
            if event == "mark" and not 0 < len(value) <= MAX_MARK:
                raise Offence(31951, "mark: name empty or too long")
        except Offence as offence:
            facts.violations.append(Violation(offence.code, offence.why, now))
            return []
        if event == "mark":
            facts.marks_received.append((now, value))
            playout.mark(value, now)
            return playout.due(now)  # an empty buffer answers at once
        cleared = playout.clear(now)
        facts.clears.append(now)
        self._phone.remember("clear", dropped_ms=cleared.dropped_ms, marks=len(cleared.marks))
        return list(cleared.marks)

    async def _return_mark(self, name: str, now: float) -> None:
        sid = self.facts.stream_sid
        self.facts.marks_returned.append((now, name))
        message = {"event": "mark", "sequenceNumber": self._next(), "streamSid": sid, "mark": {"name": name}}
        await self._pipe.send(json.dumps(message))

    def _over(self, how: str) -> None:
        now = self._loop.time()
        if not self.facts.end:  # what ended it first did
            self.facts.end, self.facts.ended_at = how, now
        self._phone.playout.stop(now)

    def _next(self) -> str:
        self._sequence += 1
        return str(self._sequence)
