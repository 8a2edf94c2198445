"""Messages on their way to Twilio. A clear overtakes the sound that has not left yet: Twilio must not get it.

Where the server lets us write at once (`bridge.ports.Wire`), nothing waits here as long as Twilio reads. What it does not read
piles up here, for the server below takes only 64 KiB of it. `full` says that no more of the agent's sound should be fetched,
`over` that Twilio will never catch up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

log = logging.getLogger(__name__)

FULL = 64 * 1024  # characters: about 6 s of sound
OVER = 256 * 1024

Send = Callable[[Any], Awaitable[None]]


class Outbox:
    """One stream's way out. `deliver` is a task of its own; the others never wait for it."""

    def __init__(self, write: Callable[[str], bool] | None = None) -> None:
        self._write = write
        self._sending = False  # a message left the queue and not yet us
        self.is_waiting = False  # that, or something is in the queue
        self._queue: deque[tuple[str, int]] = deque()
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._room = asyncio.Event()
        self._room.set()
        self.waiting = 0  # characters
        self.full = False
        self.sent = 0  # messages that have left
        self.overtaken_bytes = self.overtaken_frames = 0  # of sound
        self.held_bytes = self.held_most = 0  # of sound that waits, and how much ever did

    @property
    def over(self) -> bool:
        return self.waiting > OVER

    def put(self, text: str, *, sound: int = 0) -> None:
        """`sound`: how many bytes of it the message brings."""
        if self._write is not None and not self.is_waiting and self._write(text):
            self.sent += 1
            return
        self.is_waiting = True
        self._queue.append((text, sound))
        self.waiting += len(text)
        self.full = self.waiting > FULL
        self.held_bytes += sound
        self.held_most = max(self.held_most, self.held_bytes)
        self._empty.clear()
        self._news.set()
        if self.full:
            self._room.clear()

    def put_clear(self, text: str) -> None:
        self.overtaken_bytes += self.held_bytes
        self.overtaken_frames += sum(sound > 0 for _, sound in self._queue)
        self._queue.clear()
        self.is_waiting = self._sending
        self.waiting, self.held_bytes, self.full = 0, 0, False
        self._room.set()
        self.put(text)

    async def room(self, *, within_s: float) -> bool:
        """Until half of what `full` allows has left. False when that took too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                return await self._room.wait()
        return False

    async def deliver(self, send: Send) -> None:
        """Until the peer is gone: then the reader hears of it too, and the call ends there."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._queue:
                text, sound = self._queue.popleft()
                self.waiting -= len(text)
                self.full = self.waiting > FULL
                self.held_bytes -= sound
                if self.waiting < FULL // 2:
                    self._room.set()
                self._sending = True
                try:
                    await send({"type": "websocket.send", "text": text})
                    self._sending, self.is_waiting = False, bool(self._queue)
                    self.sent += 1
                except Exception:  # every server has its own class for "the peer is gone"
                    log.info("Twilio's socket is gone")
                    self._queue.clear()
                    self.waiting, self.held_bytes, self.full = 0, 0, False
                    self._empty.set()
                    self._room.set()
                    return
            self._empty.set()

    async def drained(self, *, within_s: float = 1.0) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._empty.wait()
