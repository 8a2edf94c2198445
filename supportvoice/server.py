"""The ASGI server under `serve`: one parent, N children on one listening socket, and what only a server can enforce.

The parent accepts nothing; it starts the children, starts a dead one again, and passes the stop signal on. A child is
uvicorn with two protocol classes that give up on peers that never finish a header, a message or a read, and a stop that
waits for the calls: no new socket from the first signal on, but HTTP goes on while a call is carried (`supportvoice.duty`).
The second signal ends the wait, the third ends the processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame

from supportvoice.duty import Duty
from supportvoice.lifeline import die_with_pipe

log = logging.getLogger(__name__)

HEADER_SECONDS = 5.0
HEADER_BYTES = 32 * 1024
MESSAGE_BYTES = 64 * 1024
MESSAGE_FRAGMENTS = 64
MESSAGE_SECONDS = 10.0
UNREAD_BYTES = 64 * 1024
UNREAD_SECONDS = 5.0
SLOWEST_BYTES_S = 1000
KEEP_ALIVE_SECONDS = 75
GOODBYE_SECONDS = 1.0
FINISH_SECONDS = 10  # for requests still being answered when a child stops

# The loop that carries the sound and the threads that write of it take turns at the interpreter, and a thread gives its turn
# back at each statement: with Python's usual 5 ms it waits that long for the next one, the database's lock in its hand.
SWITCH_S = 0.0005

RESTART_FIRST_S, RESTART_LONGEST_S, HEALTHY_S = 0.2, 5.0, 30.0


class SlowReader:
    """Drops a peer that leaves more than 64 KiB unread for 5 s: it would otherwise hold our memory for as long as it likes.

    `patient`: a peer that read at least 1 kB/s of it meanwhile (a large page over a thin line) gets another 5 s.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, *, patient: bool) -> None:
        self._loop, self._transport, self._patient = loop, transport, patient
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0
        transport.set_write_buffer_limits(high=UNREAD_BYTES)

    def falls_behind(self) -> None:
        if self._timer is None:
            self._unread = self._transport.get_write_buffer_size()
            self._timer = self._loop.call_later(UNREAD_SECONDS, self._judge)

    def caught_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _judge(self) -> None:
        self._timer = None
        unread = self._transport.get_write_buffer_size()
        if self._patient and unread <= self._unread - SLOWEST_BYTES_S * UNREAD_SECONDS:
            self.falls_behind()
            return
        log.warning("dropped a peer that does not read", extra={"unread_bytes": unread})
        self._transport.abort()


class GuardedHttp(HttpToolsProtocol):
    """HTTP whose headers are complete within 5 s and 32 KiB, read by peers that read."""

    def __init__(self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(config, server_state, app_state, **kwargs)
        self._reader: SlowReader | None = None
        self._header_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._in_header = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._reader = SlowReader(self.loop, transport, patient=True)
        self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_done()
        if self._reader is not None:
            self._reader.caught_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._in_header and (self.cycle is None or self.cycle.response_complete):
            self._await_header()  # a further request on this connection begins
        self._header_bytes += len(data)
        super().data_received(data)
        if self._in_header and self._header_bytes > HEADER_BYTES:
            self._give_up(431, "The request header is too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_header()

    def on_headers_complete(self) -> None:
        if sum(len(name) + len(value) for name, value in self.headers) > HEADER_BYTES:
            raise ValueError("the request header is too long")  # the parser turns it into a 400
        self._header_done()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reader is not None:
            self._reader.falls_behind()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader is not None:
            self._reader.caught_up()

    def _await_header(self) -> None:
        self._in_header = True
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_SECONDS, self._header_late)

    def _header_done(self) -> None:
        self._in_header, self._header_bytes = False, 0
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _header_late(self) -> None:
        self._give_up(408, f"The request header was not complete within {HEADER_SECONDS:g} s.")

    def _give_up(self, status: int, sentence: str) -> None:
        text = f"{sentence}\n".encode()
        head = b"HTTP/1.1 %d Refused\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        if self.cycle is None or self.cycle.response_complete:  # else an earlier answer on this connection is under way
            self.transport.write(head % (status, len(text)) + text)
        self.transport.close()


class GuardedSocket(WebSocketsSansIOProtocol):
    """A WebSocket whose messages are complete within 10 s and 64 fragments, read by peers that read.

    A vendor has 1 s to answer our close. Twilio goes on with the call when its socket is gone: if it is the one that does not
    hear us any more, the usual 10 s are 10 s in which the caller hears nothing.
    """

    def __init__(self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(config, server_state, app_state, **kwargs)
        self._reader: SlowReader | None = None
        self._message_timer: asyncio.TimerHandle | None = None
        self._goodbye_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._reader = SlowReader(self.loop, self.transport, patient=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._message_done()
        if self._goodbye_timer is not None:
            self._goodbye_timer.cancel()
        if self._reader is not None:
            self._reader.caught_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated:  # an upgrade that the WebSocket parser could not read
            self.transport.close()
        elif self.frames or self.conn.reader.buffer:
            if self._message_timer is None:
                self._message_timer = self.loop.call_later(MESSAGE_SECONDS, self._message_late)
        else:
            self._message_done()

    def send_receive_event_to_app(self) -> None:
        self._message_done()  # the next one, perhaps begun in the same bytes, has its own 10 s
        super().send_receive_event_to_app()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= MESSAGE_FRAGMENTS:
            self._fail(1009, "too many fragments")
        elif not self.close_sent:
            super().handle_cont(event)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reader is not None:
            self._reader.falls_behind()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader is not None:
            self._reader.caught_up()

    def send(self, message: Any) -> Coroutine[Any, Any, None]:
        if message["type"] == "websocket.close" and self._is_a_vendors and self._goodbye_timer is None:
            self._goodbye_timer = self.loop.call_later(GOODBYE_SECONDS, self.transport.abort)  # also what the peer did not read
        return super().send(message)

    def start_keepalive(self) -> None:
        """Ping browsers only. Whether Twilio answers pings is not documented, and its media says that it is there."""
        if not self._is_a_vendors:
            super().start_keepalive()

    @property
    def _is_a_vendors(self) -> bool:
        return self.scope["path"].startswith("/webhook/")

    def _message_late(self) -> None:
        self._message_timer = None
        if self.read_paused:  # the rest may be here already: it is our application that has not read on
            self._message_timer = self.loop.call_later(MESSAGE_SECONDS, self._message_late)
        else:
            self._fail(1008, "message not complete in time")

    def _message_done(self) -> None:
        if self._message_timer is not None:
            self._message_timer.cancel()
            self._message_timer = None

    def _fail(self, code: int, reason: str) -> None:
        self._message_done()
        if not self.handshake_complete:
            self.transport.close()
        elif not self.close_sent and not self.transport.is_closing():
            self.conn.fail(code, reason)
            self.handle_parser_exception()


class CallServer(uvicorn.Server):
    """uvicorn that leaves when its calls are over, not when it is told to."""

    def __init__(self, config: uvicorn.Config, *, duty: Duty, drain_s: float, started: socket.socket | None = None) -> None:
        super().__init__(config)
        self._duty, self._drain_s, self._started = duty, drain_s, started
        self._leave_by = float("inf")

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
        elif self._leave_by:
            self._leave_by = 0.0
        else:
            self.force_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # a full collection of the loaded process costs two audio frames of every call
        if self._started is not None:
            self._started.sendall(b"r")

    async def on_tick(self, counter: int) -> bool:
        if await super().on_tick(counter):
            return True
        return self._duty.draining and (not self._duty.streams or time.monotonic() >= self._leave_by)


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


def serve_as_child(app: Any, *, duty: Duty, listening: socket.socket, lifeline: socket.socket, drain_s: float) -> None:
    """Serve until told to stop. `lifeline` is this child's end of the pair whose other end the parent holds."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # its info lines name clients
    server = CallServer(configured(app), duty=duty, drain_s=drain_s, started=lifeline)
    sys.setswitchinterval(SWITCH_S)
    die_with_pipe(lifeline.fileno())
    server.run(sockets=[listening])


@dataclass(slots=True)
class Child:
    process: asyncio.subprocess.Process
    lifeline: socket.socket
    born: float
    ready: bool = False


class StartFailed(Exception):
    """The children do not come up; the text says what to look at."""


@dataclass(slots=True)
class Parent:
    """Keeps `workers` children serving on `listening` until it is told to stop; `run` returns the exit code."""

    GIVE_UP_AFTER: ClassVar[int] = 3  # children in a row that died before they ever served

    listening: socket.socket
    workers: int
    role: str
    home: Path  # where `supportvoice` is imported from
    on_ready: Callable[[], None] | None = None  # called once, when every child serves
    program: str = "supportvoice.child"
    children: dict[int, Child] = field(default_factory=dict)
    signals: int = 0
    stillborn: int = 0
    announced: bool = False
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self.told_to_stop)
        keepers = [asyncio.create_task(self._keep(number)) for number in range(self.workers)]
        try:
            await asyncio.gather(*keepers)
        except StartFailed as failed:
            print(failed, file=sys.stderr)  # noqa: T201
            return 1
        finally:
            await self._kill_all(keepers)
        return 0

    def told_to_stop(self) -> None:
        self.signals += 1
        self.stopping.set()
        for child in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM if self.signals < 4 else signal.SIGKILL)

    async def _keep(self, number: int) -> None:
        """One place in the row of children: start, wait, start again a little later."""
        pause = RESTART_FIRST_S
        while not self.stopping.is_set():
            child = await self._start(number)
            code = await self._outlive(child)
            del self.children[number]
            if self.stopping.is_set():
                return
            self._note_death(child, code)
            if time.monotonic() - child.born > HEALTHY_S:
                pause = RESTART_FIRST_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause)
            pause = min(2 * pause, RESTART_LONGEST_S)

    async def _start(self, number: int) -> Child:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self.program, "--listening", str(self.listening.fileno())),
            *("--lifeline", str(theirs.fileno()), "--parent", str(os.getpid())),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(self.listening.fileno(), theirs.fileno()),
            env=os.environ | {"SERVE_ROLE": self.role},
            cwd=self.home,
            start_new_session=True,  # Ctrl-C at a terminal goes to everybody in the session: the parent answers for all
        )
        theirs.close()
        child = Child(process, ours, born=time.monotonic())
        self.children[number] = child
        if self.stopping.is_set():  # the signal came while we were starting this one
            process.send_signal(signal.SIGTERM)
        return child

    async def _outlive(self, child: Child) -> int:
        """Until the child is dead; on the way, note that it serves."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while await loop.sock_recv(child.lifeline, 16):
                child.ready, self.stillborn = True, 0
                self._announce()
        child.lifeline.close()
        return await child.process.wait()

    def _announce(self) -> None:
        if not self.announced and len(self.children) == self.workers and all(child.ready for child in self.children.values()):
            self.announced = True
            if self.on_ready is not None:
                self.on_ready()

    def _note_death(self, child: Child, code: int) -> None:
        log.error("a serving process died and is started again", extra={"pid": child.process.pid, "exit_code": code})
        if not child.ready:
            self.stillborn += 1
            if self.stillborn >= self.GIVE_UP_AFTER:
                raise StartFailed("The serving processes do not start; the lines above say why.")

    async def _kill_all(self, keepers: list[asyncio.Task[None]]) -> None:
        for child in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                child.process.kill()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)


def listen(host: str, port: int) -> socket.socket:
    """The one socket all children accept on. Raises OSError when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=2048)
    listening.setblocking(False)
    return listening
