"""The ASGI server in a serving process, and when it leaves.

It is uvicorn with the protocol classes of `supportvoice.guards`, and a stop that waits for the calls: no new socket from the first
signal on, but HTTP goes on while a call is carried (`supportvoice.duty`). Calls that outlast the wait are asked, one after the
other, to go on in another process; each does when no sentence is cut by it. The second signal ends the wait, the third ends
the process.

When it leaves it says so to its parent (`supportvoice.parent`), and as soon as somebody else serves it accepts nothing more: what is
new goes to those who stay.

A process that could not open a file more accepts nothing until it can (`supportvoice.spare`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn

from supportvoice import collecting
from supportvoice.duty import Duty
from supportvoice.framing import MESSAGE_BYTES
from supportvoice.guards import GuardedHttp, GuardedSocket
from supportvoice.lifeline import die_with_pipe
from supportvoice.spare import FEWEST, Spare, can_open
from supportvoice.words import ARE_YOU_THERE, HERE, HURRY, LEAVING, SERVES

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 75
FINISH_SECONDS = 10  # for requests still being answered when a child stops

# The loop that carries the sound and the threads that write of it take turns at the interpreter, and a thread gives its turn
# back at each statement: with Python's usual 5 ms it waits that long for the next one, the database's lock in its hand.
SWITCH_S = 0.0005

HAND_ON_S = 25.0  # for a call that was asked to go on elsewhere; it goes within 20 s, whatever is being said

REST_WITHIN_S = 1.0


class CallServer(uvicorn.Server):
    """uvicorn that leaves when its calls are over, not when it is told to."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        duty: Duty,
        drain_s: float,
        started: socket.socket | None = None,
        at_rest: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`at_rest` is called when the last of the calls is over."""
        super().__init__(config)
        self._at_rest = at_rest
        self._duty, self._drain_s, self._started = duty, drain_s, started
        self._leave_by = float("inf")
        self._gone_by = 0.0
        self._relieved = False  # others accept what is new
        self._listening: list[socket.socket] = []
        self._carried = False  # a call, since what stays was set aside
        self._spare = Spare(self._has_enough)
        self._accepts = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM is the parent's word; uvicorn would also end the process by the signal it got."""
        signal.signal(signal.SIGTERM, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First: drain. Second: leave now. Third: do not even wait for answers under way."""
        if not self._duty.draining:
            self._duty.draining = True
            self._leave_by = time.monotonic() + self._drain_s
            self._tell(LEAVING)
        elif self._leave_by:
            self._leave_by = 0.0
        else:
            self.force_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._listening = sockets or []
        await self._accept()
        collecting.set_aside_what_stays()
        self._duty.watchdog.start()
        self._tell(SERVES)

    def heed(self, word: bytes) -> None:
        """The parent's, in any thread."""
        if word == ARE_YOU_THERE:
            self._tell(HERE)
        elif word == HURRY:  # said again and again to who leaves already; no signal, whose third one would cut the calls
            self._leave_by = min(self._leave_by, time.monotonic())
        else:
            self._relieved = True

    def _tell(self, word: bytes) -> None:
        if self._started is not None:
            self._started.sendall(word)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._duty.watchdog.stop()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        if await super().on_tick(counter):
            return True
        collecting.pace(self._duty.streams)
        if self._duty.streams:
            self._carried = True
        elif self._carried:  # the first call loads a good deal, and nobody is on the line now
            self._carried = False
            collecting.set_aside_what_stays()
            await self._rest()
        if self._duty.draining:
            return self._has_left()
        await self._mind_descriptors()
        return False

    async def _accept(self) -> None:
        """On copies, which end with what is made of them."""
        await super().startup([each.dup() for each in self._listening] or None)

    def _has_enough(self) -> bool:
        return not self._listening or can_open(FEWEST, like=self._listening[0].fileno())

    async def _mind_descriptors(self) -> None:
        accepts = self._spare.accepts(time.monotonic())
        if accepts == self._accepts:
            return
        if accepts:
            with contextlib.suppress(OSError):  # not one is to be had
                await self._accept()
                self._accepts = True
            return
        log.error("no file descriptors to spare: what is new is left to the other processes")
        self._accepts = False
        for server in self.servers:
            server.close()

    def _has_left(self) -> bool:
        """On the way out, ten times a second."""
        if self._relieved:
            for server in self.servers:
                server.close()
            for listening in self._listening:
                listening.close()
        if not self._duty.streams or self.force_exit:
            return True
        now = time.monotonic()
        if now < self._leave_by:
            return False
        if self._duty.carried.hand_on_next():
            self._gone_by = now + HAND_ON_S
        return now >= self._gone_by

    async def _rest(self) -> None:
        if self._at_rest is None:
            return
        try:
            async with asyncio.timeout(REST_WITHIN_S):
                await self._at_rest()
        except Exception as problem:  # whatever it is, the server goes on
            log.warning("could not give back what nobody uses", extra={"problem": type(problem).__name__})


def configured(app: Any, **changes: Any) -> uvicorn.Config:
    """uvicorn as we run it: no compression, no access log, no headers that tell who we are."""
    settings: dict[str, Any] = {
        "loop": "uvloop",
        "http": GuardedHttp,
        "ws": GuardedSocket,
        "ws_max_size": MESSAGE_BYTES,
        "ws_per_message_deflate": False,
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": FINISH_SECONDS,
    }
    return uvicorn.Config(app, **(settings | changes))


def serve_as_child(
    app: Any,
    *,
    duty: Duty,
    listening: socket.socket,
    lifeline: socket.socket,
    drain_s: float,
    at_rest: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serve until told to stop. `lifeline` is this child's end of the pair whose other end the parent holds."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # its info lines name clients
    server = CallServer(configured(app), duty=duty, drain_s=drain_s, started=lifeline, at_rest=at_rest)
    sys.setswitchinterval(SWITCH_S)
    die_with_pipe(lifeline.fileno(), server.heed)
    server.run(sockets=[listening])
