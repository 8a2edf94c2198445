"""Calls at any pace: an event loop whose clock jumps to the next timer, and a stream pipe that is two queues.

Only what asks `loop.time()` and waits with asyncio feels the jump; sockets and threads still live in real time, so keep them out.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from bridge.sandbox.media import PipeClosed

T = TypeVar("T")
STUCK_S = 2.0  # of real time with nothing left to do
LOOK_AWAY = 16  # turns of the loop between two looks at files and sockets


class _Jump(selectors.DefaultSelector):
    """Never waits for a timer: moves the clock there instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._turn = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            events = super().select(STUCK_S)
            if not events:
                raise RuntimeError("everybody waits for somebody else")
            return events
        self._turn += 1
        if timeout <= 0 and self._turn % LOOK_AWAY:  # somebody is ready to run: the outside world can wait a little
            return []
        events = super().select(0)
        if not events and timeout > 0:
            self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


class MemoryPipe:
    """Twilio's end of a stream without a socket; `server` is the other end."""

    extensions = ""

    def __init__(self) -> None:
        self._down: asyncio.Queue[str | bytes | int] = asyncio.Queue()
        self.server = ServerEnd(self._down)
        self._closed: int | None = None

    async def send(self, text: str) -> None:
        if self._closed is not None or self.server.closed:
            raise PipeClosed(self._closed or 1000)
        self.server.arrived.put_nowait(text)

    async def receive(self) -> str | bytes:
        if self._closed is not None:
            raise PipeClosed(self._closed)
        message = await self._down.get()
        if isinstance(message, int):
            self._closed = message
            raise PipeClosed(message)
        return message

    async def close(self) -> None:
        self._end(1000)

    def abort(self) -> None:
        self._end(1006)

    def pause(self) -> None:
        """Whoever is told not to read takes nothing from the queue either."""

    def resume(self) -> None:
        """As `pause`."""

    async def gone(self) -> None:
        await self.server.gone.wait()

    def _end(self, code: int) -> None:
        if self._closed is None:
            self._closed = code
            self.server.arrived.put_nowait(None)
            self._down.put_nowait(code)


class ServerEnd:
    """What a server does with a stream: `receive` gives None when Twilio is gone."""

    def __init__(self, down: asyncio.Queue[str | bytes | int]) -> None:
        self.arrived: asyncio.Queue[str | None] = asyncio.Queue()
        self.closed = False
        self.gone = asyncio.Event()
        self._down = down

    async def receive(self) -> str | None:
        return await self.arrived.get()

    async def send(self, message: str | bytes) -> None:
        if not self.closed:
            self._down.put_nowait(message)

    async def close(self, code: int = 1000) -> None:
        if not self.closed:
            self.closed = True
            self.gone.set()
            self._down.put_nowait(code)
