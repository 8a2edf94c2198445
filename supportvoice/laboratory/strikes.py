"""How a fault is injected into a house: real signals, real locks, real limits, a real bad network. Each is a context: undone when left.

A strike gets the ground and the calls that are up (`Line`), marks those it hits with the moment (`hit`), and takes no care of what the
house makes of it. `mend` brings back what a strike has ended.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import psycopg

from bridge.sandbox.proxy import CLEAR, Proxy, Weather
from supportvoice.laboratory.databases import Database
from supportvoice.laboratory.ground import Ground, children
from supportvoice.memory import MIB, PAGE

ASK_S = 0.02
LEAKED_S = 1.0
CREATE_ASKED_WITHIN_S = 10.0
LEFT_TO_IT = 128 * MIB  # gone after 16 s


class Line(Protocol):
    """A call that is up, as a strike sees it."""

    @property
    def port(self) -> int: ...

    @property
    def call_sid(self) -> str: ...

    def hit(self, *, stands_still: bool = False) -> None:
        """A fault has reached it. `stands_still`: its process does nothing, so nobody can give the caller a sound."""

    def break_stream(self) -> None: ...

    def held_against(self, what: str) -> None:
        """The house did not do what nobody but the strike can see."""


MISSED = (OSError, sqlite3.Error, psycopg.Error)  # a strike that met nothing to strike: what it wanted was gone, or was not to be had
Strike = Callable[[Ground, Sequence[Line]], AbstractAsyncContextManager[None]]


def _signal(pids: Iterable[int], sig: signal.Signals) -> None:
    for pid in pids:
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, sig)


def _there(pid: int) -> int:
    """Raises ProcessLookupError when there is nobody to strike."""
    if not pid:
        raise ProcessLookupError("nobody is there to be struck")
    return pid


def _hit(lines: Iterable[Line], *, stands_still: bool = False) -> None:
    for line in lines:
        line.hit(stands_still=stands_still)


def _carried(ground: Ground, lines: Sequence[Line]) -> dict[int, list[Line]]:
    """Which serving child carries which of the calls."""
    found: dict[int, list[Line]] = {}
    for line in lines:
        for pid in ground.carriers(line.port):
            found.setdefault(pid, []).append(line)
    return found


def _chosen(ground: Ground, lines: Sequence[Line], *, everyone: bool = False, stands_still: bool = False) -> dict[int, list[Line]]:
    """The child that carries the most calls, or all that carry one, with their calls, which are hit."""
    carried = _carried(ground, lines)
    chosen = sorted(carried, key=lambda pid: -len(carried[pid]))[: None if everyone else 1]
    for pid in chosen:
        _hit(carried[pid], stands_still=stands_still)
    return {pid: carried[pid] for pid in chosen}


def _address_space(pid: int) -> int:
    """Bytes of it. Raises OSError when there is no such process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * PAGE


# ---- the serving processes


def to_carriers(sig: signal.Signals, *, everyone: bool = False) -> Strike:
    """A signal to the child that carries the most calls, or to all that carry one; a stopped one goes on afterwards."""

    @asynccontextmanager
    async def strike(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
        chosen = _chosen(ground, lines, everyone=everyone, stands_still=sig == signal.SIGSTOP)
        _signal(chosen, sig)
        try:
            yield
        finally:
            if sig == signal.SIGSTOP:
                _signal(chosen, signal.SIGCONT)

    return strike


@asynccontextmanager
async def block_loop(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    """The event loop of the child that carries the most calls stands still; its other threads go on, its own watchdog among them."""
    ground.blocked_while.touch()
    try:
        _signal(_chosen(ground, lines, stands_still=True), signal.SIGUSR2)
        yield
    finally:
        ground.blocked_while.unlink()


@asynccontextmanager
async def kill_serve(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    """The whole of `serve`: nobody answers until it is started again."""
    _hit(lines)
    await ground.stack.kill("serve")
    yield


@asynccontextmanager
async def kill_one_of_two(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    """The whole of the first `serve`, parent and children, while the second one serves."""
    first = ("127.0.0.1", ground.stack.port)
    _hit(line for line in lines if ground.front is not None and ground.front.server_of(line.port) == first)
    _signal(children(ground.stack.members["serve"].process.pid), signal.SIGKILL)
    await ground.stack.kill("serve")
    yield


@asynccontextmanager
async def leave_one_of_two(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    """The first `serve` is told to leave, and has left in the end. Who is on the line there keeps it until they are handed on."""
    leaving = asyncio.create_task(ground.stack.kill("serve", signal.SIGTERM))
    yield
    await leaving


def limited(what: int, *, to: Callable[[int], int], who: Callable[[Ground], list[int]]) -> Strike:
    """A resource limit of processes becomes `to(pid)`, and what it was afterwards."""

    @asynccontextmanager
    async def strike(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
        before: dict[int, tuple[int, int]] = {}
        for pid in who(ground):
            with suppress(ProcessLookupError):
                before[pid] = resource.prlimit(pid, what)
                resource.prlimit(pid, what, (to(pid), before[pid][1]))
        _hit(lines)
        try:
            yield
        finally:
            for pid, limits in before.items():
                with suppress(ProcessLookupError):
                    resource.prlimit(pid, what, limits)

    return strike


no_space_here = limited(resource.RLIMIT_FSIZE, to=lambda pid: 0, who=Ground.everybody)
not_one_more = limited(resource.RLIMIT_NOFILE, to=lambda pid: len(os.listdir(f"/proc/{pid}/fd")), who=lambda ground: ground.serving()[:1])


@asynccontextmanager
async def no_descriptors(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    """Of one serving process; the next caller comes a second later, for a leak does not eat the last ones between two calls."""
    async with not_one_more(ground, lines):
        await asyncio.sleep(LEAKED_S)
        yield


@asynccontextmanager
async def leak(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    """The child that carries the most calls uses more and more memory; it may have so much more than it has (`LEFT_TO_IT`), then dies.

    That it left before, by itself, is seen by who takes its place while it is there.
    """
    leaking = _chosen(ground, lines)
    looking = {pid: asyncio.create_task(_is_relieved(ground, pid)) for pid in leaking}
    ground.leaks_while.touch()
    try:
        async with limited(resource.RLIMIT_AS, to=lambda pid: _address_space(pid) + LEFT_TO_IT, who=lambda ground: [*leaking])(ground, ()):
            _signal(leaking, signal.SIGUSR1)
            yield
    finally:
        ground.leaks_while.unlink()
        for pid, look in looking.items():
            if not (look.done() and look.result()):
                look.cancel()
                for line in leaking[pid]:
                    line.held_against("its process did not leave, though it had used up its memory")


async def _is_relieved(ground: Ground, pid: int) -> bool:
    """Whether there is one more than there are places, this one among them. A process that was ended is replaced when it is gone."""
    while pid in (there := ground.serving()):
        if len(there) > ground.places:
            return True
        await asyncio.sleep(ASK_S)
    return False


# ---- the lines of the account at Vapi


@asynccontextmanager
async def limit_forgotten(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    """Nothing but what comes after: that Vapi had no line for us is not remembered in the next row."""
    _hit(lines)
    try:
        yield
    finally:
        await asyncio.to_thread(ground.database.forget_limit)


def vapi_carries(calls: int) -> Strike:
    """So many at once, and refuses the next one."""

    @asynccontextmanager
    async def strike(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
        before, ground.vapi.concurrency_limit = ground.vapi.concurrency_limit, calls
        try:
            async with limit_forgotten(ground, lines):
                yield
        finally:
            ground.vapi.concurrency_limit = before

    return strike


# ---- the database, Valkey, the worker, beat


def to_database(failing: Callable[[Database], AbstractContextManager[None]]) -> Strike:
    """It fails so, for everybody."""

    @asynccontextmanager
    async def strike(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
        held = ExitStack()
        try:
            await asyncio.to_thread(held.enter_context, failing(ground.database))
            _hit(lines)
            yield
        finally:
            await asyncio.to_thread(held.close)

    return strike


lock_database = to_database(lambda database: database.locked())
close_database = to_database(lambda database: database.closed())
fill_database = to_database(lambda database: database.full())
read_only_database = to_database(lambda database: database.read_only())


@asynccontextmanager
async def stop_valkey(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    stopped = [_there(ground.valkey())]
    _hit(lines)
    _signal(stopped, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(stopped, signal.SIGCONT)


@asynccontextmanager
async def kill_valkey(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    """Gone, and nobody starts it again until the strike is over."""
    keeper, server = [_there(ground.valkeys_keeper())], [_there(ground.valkey())]
    _hit(lines)
    _signal(keeper, signal.SIGSTOP)
    _signal(server, signal.SIGKILL)
    try:
        yield
    finally:
        _signal(keeper, signal.SIGCONT)


@asynccontextmanager
async def flush_valkey(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    """FLUSHALL: everything that waits in it is forgotten."""
    _hit(lines)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(ground.stack.valkey_socket))
        asking.sendall(b"FLUSHALL\r\n")
        asking.recv(16)
    yield


@asynccontextmanager
async def kill_worker(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    """All of it, with its pool."""
    _hit(lines)
    _signal(ground.working(), signal.SIGKILL)
    if "worker" in ground.stack.members:
        await ground.stack.kill("worker")
    yield


@asynccontextmanager
async def kill_creators(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    """The worker's pool, while one of them waits for Vapi's answer to a create."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CREATE_ASKED_WITHIN_S):
            while not any(ground.vapi.asked[line.call_sid] for line in lines):  # noqa: ASYNC110 - the sandbox counts, it does not tell
                await asyncio.sleep(ASK_S)
    _hit(line for line in lines if ground.vapi.asked[line.call_sid])
    _signal(ground.working()[:-1], signal.SIGKILL)
    yield


@asynccontextmanager
async def kill_beat(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    _hit(lines)
    if "beat" in ground.stack.members:
        await ground.stack.kill("beat")
    yield


# ---- the network


def _weather(wire: Callable[[Ground], Proxy | None], weather: Weather, *, reset: bool = False) -> Strike:
    @asynccontextmanager
    async def strike(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
        struck = wire(ground)
        if struck is None:
            raise ConnectionError("this house has no network there")
        _hit(lines)
        struck.weather = weather
        if reset:
            struck.reset()
        try:
            yield
        finally:
            struck.weather = CLEAR

    return strike


def vapi_weather(weather: Weather, *, reset: bool = False) -> Strike:
    """The wire to Vapi, REST and audio sockets; `reset`: whatever is open ends."""
    return _weather(lambda ground: ground.to_vapi, weather, reset=reset)


def database_weather(weather: Weather) -> Strike:
    """The wire to PostgreSQL, of connections that are open too."""
    return _weather(lambda ground: ground.to_database, weather)


@asynccontextmanager
async def refuse_rest(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    """Nobody reaches Twilio's REST. By itself that hits no call: only who is to be fetched from a dead stream needs it."""
    ground.to_twilio.weather = Weather(refuse=True)
    ground.to_twilio.reset()
    try:
        yield
    finally:
        ground.to_twilio.weather = CLEAR


@asynccontextmanager
async def break_streams(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
    """Twilio's media sockets are reset, the callers stay."""
    for line in lines:
        line.hit()
        line.break_stream()
    yield


# ---- several at once


def together(*strikes: Strike) -> Strike:
    @asynccontextmanager
    async def strike(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
        async with AsyncExitStack() as all_of_them:
            for each in strikes:
                await all_of_them.enter_async_context(each(ground, lines))
            yield

    return strike


def later(strike: Strike, *, after_s: float) -> Strike:
    """When what was done before has had so long."""

    @asynccontextmanager
    async def strikes(ground: Ground, lines: Sequence[Line]) -> AsyncIterator[None]:
        await asyncio.sleep(after_s)
        async with strike(ground, lines):
            yield

    return strikes


full_disk = together(fill_database, no_space_here)  # SQLite's file lies on ours; a PostgreSQL has a disk of its own
