"""The caller's leg of a call: what every verb needs to know of it, and the three ways to be interrupted in one.

The caller hangs up, the REST API ends the call, or it sends the call to another document. Whatever a verb waits for, it waits `while_up`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from bridge.sandbox.asking import Asking, Next, Reader
from bridge.sandbox.callbacks import Callbacks
from bridge.sandbox.dial import Human
from bridge.sandbox.errands import Errands
from bridge.sandbox.fields import Form, Parties, standard
from bridge.sandbox.media import MediaSide
from bridge.sandbox.phone import Phone
from bridge.sandbox.seen import Recording, Seen
from bridge.sandbox.twiml import Verb, parse

T = TypeVar("T")


class Interrupted(Exception):
    """The verb being executed is over, whatever it was doing."""


class HungUp(Interrupted):
    """The caller left."""


class Ended(Interrupted):
    """The call is ended: a document said so, or the REST API."""


class Turned(Interrupted):
    """The REST API sent the call somewhere else."""

    def __init__(self, to: Next) -> None:
        super().__init__()
        self.to = to


@dataclass(frozen=True, slots=True)
class Manners:
    """How the media socket of this call behaves; see `TwilioCall`."""

    allow_ws: bool = True
    half_open_after_s: float | None = None
    slow_reader_after_s: float | None = None
    slow_reader_for_s: float = 10.0
    on_abnormal_close: str = "next_verb"


@dataclass(frozen=True, slots=True)
class Running:
    """A recording under way: what asked for it, the file to be, and the sample of the call it began with."""

    noun: Verb
    recording: Recording
    since: int


class Leg:
    """The caller's leg. Verbs are functions of it."""

    def __init__(
        self,
        *,
        seen: Seen,
        parties: Parties,
        asking: Asking,
        callbacks: Callbacks,
        errands: Errands,
        manners: Manners,
        humans: Mapping[str, Human],
        anyone: Human,
        voicemail: str | None,
        rng: Random,
        wall: Callable[[], float],
    ) -> None:
        self.seen = seen
        self.parties = parties
        self.asking = asking
        self.callbacks = callbacks
        self.errands = errands
        self.manners = manners
        self.voicemail = voicemail
        self.rng = rng
        self.wall = wall
        self.side: MediaSide | None = None  # the stream that is open
        self.running: list[Running] = []  # recordings of the call so far
        self.leaving = "stop"  # how the media socket ends when the caller hangs up
        self._humans = humans
        self._anyone = anyone
        self._turn: Interrupted | None = None
        self._turned = asyncio.Event()

    @property
    def phone(self) -> Phone:
        return self.seen.phone

    def human(self, number: str) -> Human:
        return self._humans.get(number, self._anyone)

    def sid(self, prefix: str) -> str:
        return new_sid(self.rng, prefix)

    def standard(self) -> Form:
        return standard(self.parties, self.seen.status)

    def take_up(self) -> None:
        """The call is answered, if it was not already."""
        if self.seen.status == "ringing":
            self.seen.status = "in-progress"
            self.seen.answered_at = self.phone.now()
            self.phone.remember("answered")
            self.phone.connected()

    async def ask(self, request: Next, params: Mapping[str, str], reader: Reader = parse, *, copies: int = 1) -> tuple[str, list[Verb]]:
        """As `Asking.ask`, while the caller is there."""
        return await self.while_up(self.asking.ask(request, params, reader, copies=copies))

    async def speak(self, ulaw: bytes) -> None:
        """Twilio's own voice in the caller's ear, to its end."""
        ends = self.phone.playout.play(ulaw, self.phone.now())
        try:
            await self.wait(ends - self.phone.now())
        except Interrupted:
            self.phone.playout.stop(self.phone.now())
            raise

    async def wait(self, seconds: float) -> None:
        await self.while_up(asyncio.sleep(max(seconds, 0)))

    def interrupt(self, turn: Interrupted) -> None:
        """From outside: whatever is being executed ends with this. The newest wins."""
        self._turn = turn
        self._turned.set()

    def go_on(self) -> None:
        """The interruption was obeyed; nothing before it counts any more."""
        self._turn = None
        self._turned.clear()

    def interruption(self) -> Interrupted | None:
        """What ends the present verb, if anything does."""
        return HungUp() if self.phone.hung_up.is_set() else self._turn

    async def while_up(self, work: Coroutine[Any, Any, T]) -> T:
        """Work that ends, cancelled, when the call is interrupted. Raises Interrupted then."""
        task = asyncio.ensure_future(work)
        gone, turned = asyncio.ensure_future(self.phone.hung_up.wait()), asyncio.ensure_future(self._turned.wait())
        try:
            await asyncio.wait({task, gone, turned}, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done() and not turned.done():
                return task.result()
        finally:
            for each in (task, gone, turned):
                each.cancel()
            await asyncio.gather(task, gone, turned, return_exceptions=True)
        raise self.interruption() or HungUp


def new_sid(rng: Random, prefix: str) -> str:
    """An id as Twilio makes them: two letters, 32 hexadecimal digits."""
    return f"{prefix}{rng.getrandbits(128):032x}"


async def until(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Work that ends, cancelled, once the event is set."""
    task, done = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, done}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        for each in (task, done):
            each.cancel()
        await asyncio.gather(task, done, return_exceptions=True)
