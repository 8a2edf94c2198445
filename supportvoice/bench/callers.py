"""One call as both vendors see it: its telephone at Twilio, its agent at Vapi, and an ear at either end.

The caller speaks all the time. The agent speaks in turns, in the sizes of message that live calls of Vapi's were seen to have,
and every five seconds the caller interrupts it. Twilio's playout is a model: sound is heard at 8000 bytes a second from when it
came, a mark returns when all before it was heard, and a clear forgets the rest.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any

import orjson
import picows

from supportvoice.bench.pattern import BYTES_PER_S, FRAME, WIDE_FRAME, WIDER, Ear, Meter, frame, frame_as_text
from supportvoice.bench.wheel import Wheel

FRAME_MS = 20
BEGIN_AFTER_MS = 300.0  # both ends know by then that the socket is open
SIZES = (170, 185, 186, 371, 372, 557, 558, 743)  # bytes; about 46 ms of sound in the mean
WEIGHTS = (1, 2, 3, 5, 5, 2, 1, 1)
TURN_MS = 5000.0
PAUSE_MS = 300.0  # between an interruption and the next turn
CUT_S = 0.25  # a bridge may hold so much back, and drop it
SETTLED_FRAMES = 15  # from here on no turn's first cushion delays a frame
TEXT, BINARY, CLOSE = picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CLOSE
INTERRUPTED = b'{"type":"user-interrupted"}'
AGENT_STARTS = b'{"type":"speech-update","status":"started","role":"assistant"}'
SOUND = (
    '{{"event":"media","sequenceNumber":"{0}","media":{{"track":"inbound","chunk":"{0}",'
    '"timestamp":"{1}","payload":"{2}"}},"streamSid":"{3}"}}'
)


@dataclass(slots=True)
class Tally:
    """What all calls have measured while it counts; milliseconds."""

    counting: bool = False
    up_ms: list[float] = field(default_factory=list)
    down_ms: list[float] = field(default_factory=list)
    cushion_ms: list[float] = field(default_factory=list)  # a turn's first frame
    clear_ms: list[float] = field(default_factory=list)  # from the interruption on Vapi's socket to the clear on Twilio's
    silence_ms: list[float] = field(default_factory=list)  # from there until the caller hears nothing more
    unanswered: int = 0  # interruptions without a clear

    def note(self, kept: list[float], seconds: float) -> None:
        if self.counting:
            kept.append(1000 * seconds)


class Call:
    """`twilio` and `vapi` are its two sockets; it begins to talk when both are open. `wide`: Vapi's has PCM16 at 16 kHz."""

    def __init__(self, number: int, sid: str, wheel: Wheel, tally: Tally, *, calls: int, wide: bool = False) -> None:
        self.sid, self.wide = sid, wide
        self.up: Ear = Meter(2 * number, block=WIDER * FRAME) if wide else Ear(2 * number)
        self.down: Ear = Meter(2 * number + 1) if wide else Ear(2 * number + 1)
        self.tally, self.wheel = tally, wheel
        self.twilio, self.vapi = Telephone(self), Agent(self, Random(number))
        self.begun, self.over = asyncio.Event(), asyncio.Event()
        self.silent = False
        self.phase_ms = FRAME_MS * (number % calls) / calls  # all calls' frames are spread over the 20 ms

    @property
    def is_over(self) -> bool:
        return self.over.is_set()

    def begin(self) -> None:
        """Vapi's socket is open."""
        self.begun.set()
        first = (self.wheel.now_ms + BEGIN_AFTER_MS) // FRAME_MS * FRAME_MS + self.phase_ms
        self.wheel.at(first, lambda: self.twilio.speak(first))
        self.wheel.at(first + FRAME_MS / 2, self.vapi.begin_turn)

    def fall_silent(self) -> None:
        """No more sound; what is under way may arrive."""
        self.silent = True


class Telephone(picows.WSListener):  # type: ignore[misc]
    """Twilio's end of the stream."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._stream = f"MZ{call.sid[2:]}"
        self._said = 0
        self._heard_until = 0.0  # when everything that came will have been heard
        self._marks: deque[str] = deque()
        self._socket: picows.WSTransport | None = None
        self.quiet_at: float | None = None  # since the last clear nothing old was heard after this moment

    # -- what Twilio sends ---------------------------------------------------------------------------------------------

    def start(self, *, account_sid: str, token: str) -> None:
        ids = {"accountSid": account_sid, "callSid": self._call.sid, "streamSid": self._stream, "tracks": ["inbound"]}
        sound = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        about = {**ids, "customParameters": {"token": token}, "mediaFormat": sound}
        self._send({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        self._send({"event": "start", "sequenceNumber": "1", "start": about, "streamSid": self._stream})

    def speak(self, due_ms: float) -> None:
        """A frame every 20 ms."""
        if self._socket is None or self._call.silent:
            return
        due_ms += FRAME_MS
        self._call.wheel.at(due_ms, lambda: self.speak(due_ms))
        self._said += 1
        number = self._call.up.sent(time.monotonic())
        payload = frame_as_text(self._call.up.voice, number)
        self._socket.send(TEXT, SOUND.format(self._said, self._said * FRAME_MS, payload, self._stream).encode())

    def stop(self) -> None:
        self._send({"event": "stop", "streamSid": self._stream, "stop": {"callSid": self._call.sid}})

    # -- what comes to Twilio ------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._socket = transport

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._socket = None
        self._call.over.set()

    def on_ws_frame(self, transport: picows.WSTransport, got: picows.WSFrame) -> None:
        now = time.monotonic()
        if got.msg_type is CLOSE:
            transport.send_close(1000)
            transport.disconnect()
        elif got.msg_type is TEXT:
            message = orjson.loads(got.get_payload_as_memoryview())
            event = message["event"]
            if event == "media":
                self._hear(b64decode(message["media"]["payload"]), now)
            elif event == "mark":
                self._mark(message["mark"]["name"])
            elif event == "clear":
                self._clear(now)

    def _hear(self, sound: bytes, now: float) -> None:
        call, stale = self._call, self._call.down.counts.stale
        self._heard_until = max(now, self._heard_until) + len(sound) / BYTES_PER_S
        for number, delay in call.down.take(sound, now):
            place = number - call.vapi.turn_began
            if place >= SETTLED_FRAMES:
                call.tally.note(call.tally.down_ms, delay)
            elif place == 0:
                call.tally.note(call.tally.cushion_ms, delay)
        if call.down.counts.stale > stale:
            self.quiet_at = self._heard_until

    def _mark(self, name: str) -> None:
        self._marks.append(name)
        due = (self._heard_until - self._call.wheel.began) * 1000
        self._call.wheel.at(due, lambda: self._return_mark(name))

    def _return_mark(self, name: str) -> None:
        if self._marks and self._marks[0] == name:  # else a clear has returned it
            self._marks.popleft()
            self._send({"event": "mark", "sequenceNumber": str(self._said), "streamSid": self._stream, "mark": {"name": name}})

    def _clear(self, now: float) -> None:
        self._heard_until = now
        self._call.vapi.cleared(now)
        for name in tuple(self._marks):
            self._return_mark(name)

    def _send(self, message: dict[str, Any]) -> None:
        if self._socket is not None:
            self._socket.send(TEXT, orjson.dumps(message))


class Agent(picows.WSListener):  # type: ignore[misc]
    """Vapi's end of the call's audio socket."""

    def __init__(self, call: Call, random: Random) -> None:
        self._call, self._random = call, random
        self._ready = b""  # of the frame that is not sent to its end
        self._made = 0
        self._socket: picows.WSTransport | None = None
        self._interrupted_at: float | None = None
        self.turn_began = 0  # frame number

    def begin_turn(self) -> None:
        self._judge_interruption()
        if self._socket is None or self._call.silent:
            return
        self.turn_began = self._made
        self._socket.send(TEXT, AGENT_STARTS)
        now = self._call.wheel.now_ms
        self._speak(now, now + TURN_MS)

    def _speak(self, due_ms: float, until_ms: float) -> None:
        """One message, and the next one when this one has been played."""
        if self._socket is None or self._call.silent:
            self._end_frame()
        elif due_ms >= until_ms:
            self._end_frame()
            self._interrupt()
        else:
            size = self._random.choices(SIZES, WEIGHTS)[0]
            self._send(size * WIDER if self._call.wide else size)
            due_ms += 1000 * size / BYTES_PER_S
            self._call.wheel.at(due_ms, lambda: self._speak(due_ms, until_ms))

    def _send(self, size: int) -> None:
        """So many bytes of the call's sound, in Vapi's format."""
        ear, now = self._call.down, time.monotonic()
        while len(self._ready) < size:
            self._ready += WIDE_FRAME if self._call.wide else frame(ear.voice, self._made)
            self._made += 1
        chunk, self._ready = self._ready[:size], self._ready[size:]
        while len(ear.sent_at) < self._made - bool(self._ready):
            ear.sent(now)
        if self._socket is not None:
            self._socket.send(BINARY, chunk)

    def _end_frame(self) -> None:
        if self._ready:
            self._send(len(self._ready))

    def _interrupt(self) -> None:
        if self._socket is None:
            return
        now = time.monotonic()
        self._interrupted_at = now
        self._call.down.may_be_cut(now - CUT_S)
        self._call.twilio.quiet_at = None
        self._socket.send(TEXT, INTERRUPTED)
        self._call.wheel.at(self._call.wheel.now_ms + PAUSE_MS, self.begin_turn)

    def cleared(self, now: float) -> None:
        """Twilio was told to clear."""
        if self._interrupted_at is None or self._call.twilio.quiet_at is not None:
            return
        self._call.twilio.quiet_at = now
        self._call.down.cleared(self._made)
        self._call.tally.note(self._call.tally.clear_ms, now - self._interrupted_at)

    def _judge_interruption(self) -> None:
        """The next turn begins: by now the caller must have heard silence."""
        if self._interrupted_at is None:
            return
        quiet_at = self._call.twilio.quiet_at
        if quiet_at is None:
            self._call.tally.unanswered += 1
        else:
            self._call.tally.note(self._call.tally.silence_ms, quiet_at - self._interrupted_at)
        self._interrupted_at = None

    # -- what comes to Vapi --------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._socket = transport
        self._call.begin()

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._socket = None

    def on_ws_frame(self, transport: picows.WSTransport, got: picows.WSFrame) -> None:
        if got.msg_type is BINARY:
            now, call = time.monotonic(), self._call
            for _, delay in call.up.take(got.get_payload_as_bytes(), now):
                call.tally.note(call.tally.up_ms, delay)
        elif got.msg_type is CLOSE:
            transport.send_close(1000)
            transport.disconnect()
