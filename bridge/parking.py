"""Agents who wait for their caller: only Twilio's stream broke, so the Vapi session is kept for five seconds.

Twilio asks the resume door, whose answer opens the next stream. Should it arrive in this process, it takes the agent up where
the last one left off: the same session, no greeting, not a word about it. Which process it reaches is a matter of luck, so the
door asks for no other session while one is parked; the stream that arrives and does not find its agent asks for it. That costs
those callers the time from Twilio's question to the stream, and saves all others a session that would be made, billed and ended
unheard, with two agents awake for one caller. Who has the call is the row's to say and nobody else's: one conditional UPDATE is
won either by the stream that takes the agent up, or by whoever asks for another one (`calls.parked`); the loser ends its session.

Vapi wants a frame every 20 ms for ever, so it hears silence meanwhile. The wait ends early when the agent's socket closes
without a goodbye, when the call is over or somebody else's, and when this process is to leave: then nobody is parked either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Any

from bridge.audio import FRAME_S, SILENT_FRAME, ms
from bridge.lately import Lately
from bridge.manners import Garbage
from bridge.parked import LeftOff, Meanwhile
from bridge.ports import Link

WAITS_S = 5.0
MOST = 20  # of one process at once: each may hold a minute of sound and a megabyte of texts, and costs money


class Over(Enum):
    """Why a wait is over."""

    TAKEN = "taken up by the next stream"
    LATE = "nobody came in time"
    AGENT_GONE = "the agent is gone"
    NOT_OURS = "the call is over, or another agent was asked for"
    LEAVING = "this process leaves"


class Spot:
    """One agent that waits: session number `n`, since the loop's time `since`."""

    def __init__(self, parking: Parking, *, call_sid: str, n: int, link: Link, left_off: LeftOff, lately: Lately) -> None:
        self._parking = parking
        self.call_sid, self.n, self.link, self.left_off, self.lately = call_sid, n, link, left_off, lately
        self.meanwhile = Meanwhile()
        loop = asyncio.get_running_loop()
        self.since = loop.time()
        self.over: asyncio.Future[Over] = loop.create_future()
        self.let_go = asyncio.Event()  # whoever listened to the link until now does so no more

    async def wait(self) -> Over:
        """Until the wait is over. Silence goes to the agent meanwhile."""
        return await self._parking.keep(self)

    def end(self, why: Over) -> bool:
        """True for the first word of it."""
        if self.over.done():
            return False
        self.over.set_result(why)
        return True

    def hear(self, message: bytes | str | Garbage) -> bool:
        """One message of the agent's; it goes on, whatever is dropped."""
        self.meanwhile.hear(message)
        return True

    def agent_gone(self) -> None:
        """Its socket closed. After a goodbye the caller is to hear that, so it is kept."""
        if not self.meanwhile.has_ended:
            self.end(Over.AGENT_GONE)

    def in_vain(self) -> dict[str, Any]:
        """Of an agent that nobody takes up: how long it waited, and heard silence, and what it said that nobody heard."""
        return {"n": self.n, "ms": self.waited_ms, "said_ms": ms(self.meanwhile.sound_bytes), **self.meanwhile.dropped}

    @property
    def waited_ms(self) -> int:
        return int((asyncio.get_running_loop().time() - self.since) * 1000)


class Parking:
    """The agents that wait in this process. `is_open`: the process stays, so a stream may come here."""

    def __init__(self, *, is_open: Callable[[], bool] = lambda: True, most: int = MOST, waits_s: float = WAITS_S) -> None:
        self._is_open, self._most, self._waits_s = is_open, most, waits_s
        self._spots: dict[str, Spot] = {}
        self.refused = 0  # that found no room

    def __len__(self) -> int:
        return len(self._spots)

    def park(self, *, call_sid: str, n: int, link: Link, left_off: LeftOff, lately: Lately) -> Spot | None:
        """A place for this agent; None when there is none, and it must be ended. Whoever parks it awaits `Spot.wait`."""
        if not self._is_open() or call_sid in self._spots:
            return None
        if len(self._spots) >= self._most:
            self.refused += 1
            return None
        spot = self._spots[call_sid] = Spot(self, call_sid=call_sid, n=n, link=link, left_off=left_off, lately=lately)
        return spot

    def take(self, call_sid: str) -> Spot | None:
        """The agent of this call, if it waits here. It and its link are the taker's from now on, once `let_go` is set."""
        spot = self._spots.get(call_sid)
        return spot if spot is not None and spot.end(Over.TAKEN) else None

    async def keep(self, spot: Spot) -> Over:
        """See `Spot.wait`."""
        loop = asyncio.get_running_loop()
        at = spot.since
        try:
            while not spot.over.done():
                if not self._is_open():
                    spot.end(Over.LEAVING)
                elif loop.time() >= spot.since + self._waits_s:
                    spot.end(Over.LATE)
                else:
                    spot.link.send_audio(SILENT_FRAME)
                    at = max(at + FRAME_S, loop.time() - FRAME_S)
                    await asyncio.wait({spot.over}, timeout=max(0.0, at - loop.time()))
            return spot.over.result()
        finally:
            spot.end(Over.LEAVING)  # when this task is cancelled
            del self._spots[spot.call_sid]
