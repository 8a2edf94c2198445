"""The caller's telephone: a mouth, an ear at the playout, and a hand on the keys. One tick is 20 ms of both directions.

Ticks are counted from one monotonic origin, so they never drift: a late one is made up for at once. The caller acts on what was really
played, never on what was sent. Everything that happened is kept, with its time on the running loop's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from bridge.sandbox import noise
from bridge.sandbox.clips import CLIPS, Clip
from bridge.sandbox.ear import Final, Recogniser, SpeechStarted
from bridge.sandbox.playout import Playout, sound_samples
from bridge.sandbox.script import Caller, Echo, HangUp, Noise, Press, Say
from bridge.sandbox.sound import FRAME, FRAME_S, RATE, SILENT_FRAME

BREATHE = 50  # ticks made up for in a row before everybody else gets a turn
KEPT_WAITING_S = 3 * FRAME_S  # a tick that is later than this was kept by the machine


class Line(Protocol):
    """Whoever listens to the caller just now: a stream, a recorder, a colleague."""

    async def frame(self, ulaw: bytes, now: float) -> None: ...

    async def digit(self, digit: str, now: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened in a call, seen from outside. `at` is the loop's time."""

    at: float
    what: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class Tape:
    """A line that records: a voicemail box, or the ear of a colleague. Once `finished`, `why` says for what reason."""

    def __init__(self, *, silence_s: float = 0.0, max_s: float = 0.0, finish_on: str = "") -> None:
        self.ulaw = bytearray()
        self.finished = asyncio.Event()
        self.digits = ""
        self.why = ""
        self._silence_s = silence_s
        self._max_s = max_s
        self._finish_on = finish_on
        self._quiet_s = 0.0

    async def frame(self, ulaw: bytes, now: float) -> None:
        if self.finished.is_set():
            return
        self.ulaw += ulaw
        self._quiet_s = 0.0 if sound_samples(ulaw) else self._quiet_s + FRAME_S
        if self._silence_s and self._quiet_s >= self._silence_s:
            self._finish("silence")
        elif self._max_s and len(self.ulaw) >= self._max_s * RATE:
            self._finish("too-long")

    async def digit(self, digit: str, now: float) -> None:
        if digit in self._finish_on and not self.finished.is_set():
            self.digits = digit
            self._finish("key")

    @property
    def holds_sound(self) -> bool:
        return sound_samples(bytes(self.ulaw)) > 0

    def _finish(self, why: str) -> None:
        self.why = why
        self.finished.set()


class Keypad:
    """A line that collects digits, until there are `wanted` of them or `finish_on` is pressed. `pressed` is set by every key."""

    def __init__(self, *, wanted: int, finish_on: str) -> None:
        self.digits = ""
        self.finished = False
        self.pressed = asyncio.Event()
        self._wanted = wanted
        self._finish_on = finish_on

    async def frame(self, ulaw: bytes, now: float) -> None:
        return

    async def digit(self, digit: str, now: float) -> None:
        if self.finished:
            return
        if digit == self._finish_on:
            self.finished = True
        else:
            self.digits += digit
            self.finished = 0 < self._wanted <= len(self.digits)
        self.pressed.set()


class Phone:
    """One caller's phone, from dialling to hanging up."""

    def __init__(self, caller: Caller, ear: Recogniser, *, clips: Mapping[str, Clip] = CLIPS) -> None:
        self._loop = asyncio.get_running_loop()
        self.origin = self._loop.time()
        self.playout = Playout(self.origin)
        self.line: Line | None = None
        self.heard: list[Final] = []
        self.said = bytearray()  # every frame since `origin`, silent ones too
        self.timeline: list[Moment] = []
        self.hung_up = asyncio.Event()
        self._caller = caller
        self._ear = ear
        self._clips = clips
        self._mouth = bytearray()
        self._waiting: list[tuple[str, asyncio.Future[Moment]]] = []
        self._connected = False
        self._echoes = False
        self.late_s = 0.0  # the longest this phone was kept from a tick: more than a frame or two, and nobody should judge by it
        self._stalls: list[tuple[float, float]] = []  # from when to when it was

    def now(self) -> float:
        """The running loop's time."""
        return self._loop.time()

    def connected(self) -> None:
        """The call is answered; the caller begins to follow their steps."""
        if not self._connected:
            self._connected = True
            self._caller.connected(self._loop.time())

    def say(self, clip: str) -> None:
        """Speak a clip, after whatever is still being said."""
        self.remember("caller-says", clip=clip)
        self.utter(self._clips[clip].ulaw)

    def utter(self, ulaw: bytes) -> None:
        """Make any sound, after whatever is still being said."""
        self._mouth += ulaw

    def hang_up(self) -> None:
        if not self.hung_up.is_set():
            self.remember("hung-up")
            self.hung_up.set()

    def remember(self, what: str, **detail: Any) -> None:
        """Write a moment into the timeline and wake who waits for it."""
        moment = Moment(self._loop.time(), what, detail)
        self.timeline.append(moment)
        for name, future in self._waiting:
            if name == what and not future.done():
                future.set_result(moment)

    async def wait_for(self, what: str, *, within: float = 30.0) -> Moment:
        """The first moment of that name, past or coming. Raises TimeoutError after `within` seconds."""
        for moment in self.timeline:
            if moment.what == what:
                return moment
        entry = (what, self._loop.create_future())
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(within):
                coming: Moment = await entry[1]
                return coming
        finally:
            self._waiting.remove(entry)

    async def run(self) -> None:
        """Tick until cancelled."""
        ticks = 0
        while True:
            ticks += 1
            due = self.origin + ticks * FRAME_S
            wait = due - self._loop.time()
            if wait > 0 or ticks % BREATHE == 0:
                await asyncio.sleep(max(wait, 0))
            self._note_lateness(due, self._loop.time())
            await self._tick(due)

    def stood_still_s(self, since: float, until: float) -> float:
        """How much of that time the machine kept this phone from ticking."""
        return sum(max(0.0, min(until, over) - max(since, began)) for began, over in self._stalls)

    def _note_lateness(self, due: float, now: float) -> None:
        self.late_s = max(self.late_s, now - due)
        if now - due < KEPT_WAITING_S:
            return
        if self._stalls and due <= self._stalls[-1][1]:  # the same one: its ticks are made up for
            due = self._stalls.pop()[0]
        self._stalls.append((due, now))

    async def _tick(self, now: float) -> None:
        self._listen(now)
        if self._connected and (due := self._caller.next_deadline()) is not None and due <= now:
            await self._act(now)
        frame = SILENT_FRAME
        if self._mouth:
            frame = bytes(self._mouth[:FRAME]).ljust(FRAME, b"\xff")
            del self._mouth[:FRAME]
        if self._echoes:
            came = self.playout.heard(now - noise.ECHO_S - FRAME_S, now - noise.ECHO_S)
            frame = noise.together(frame, noise.returned(came))
        self.said += frame
        if self.line is not None:
            await self.line.frame(frame, now)

    def _listen(self, now: float) -> None:
        for utterance in self._ear.hear(self.playout.heard(now - FRAME_S, now), now):
            if isinstance(utterance, Final):
                self._understood(utterance)
            elif isinstance(utterance, SpeechStarted):
                self.remember("hears-speech")
            self._caller.heard(utterance)

    def _understood(self, final: Final) -> None:
        self.heard.append(final)
        self.remember("heard", clip=final.clip_name, to_ms=final.heard_to_ms, complete=final.complete, started_at=final.started_at)

    async def _act(self, now: float) -> None:
        for deed in self._caller.deeds(now):
            match deed:
                case Say(clip):
                    self.say(clip)
                case Press(digits):
                    self.remember("presses", digits=digits)
                    for digit in digits:
                        if self.line is not None:
                            await self.line.digit(digit, now)
                case Noise(name):
                    self.utter(noise.NOISES[name]())
                case Echo():
                    self._echoes = True
                case HangUp():
                    self.hang_up()

    def last_words(self) -> None:
        """The line is dead: what was still being heard counts as far as it came."""
        for utterance in self._ear.close(self._loop.time()):
            if isinstance(utterance, Final):
                self._understood(utterance)
