"""Strikes on a real process: what is said of them is what they do."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.sandbox.proxy import Proxy
from supportvoice.laboratory import inside, strikes
from supportvoice.laboratory.databases import SqliteFile
from supportvoice.memory import MIB, use_of
from supportvoice.watchdog import STUCK_S

# As a serving child: uvloop, its watchdog, and a thread beside the loop. Each says every 20 ms that it is there.
CHILD = """
import asyncio, threading, time, uvloop
from supportvoice.watchdog import Watchdog

def beside():
    while True:
        print("thread", flush=True)
        time.sleep(0.02)

async def main():
    Watchdog().start()
    threading.Thread(target=beside, daemon=True).start()
    while True:
        print("loop", flush=True)
        await asyncio.sleep(0.02)

uvloop.run(main())
"""


@dataclass(slots=True)
class Carrier:
    """A ground with one process that carries every call."""

    process: asyncio.subprocess.Process
    blocked_while: Path
    leaks_while: Path
    hits: int = 0
    stands_still: bool = False
    held: list[str] = field(default_factory=list)
    beside: list[int] = field(default_factory=list)  # who serves in its place
    places: int = 1
    asked: int = 0
    port: int = 1
    call_sid: str = "CA1"

    def carriers(self, port: int) -> list[int]:
        return [self.process.pid]

    def serving(self) -> list[int]:
        self.asked += 1
        return [*([self.process.pid] if self.process.returncode is None else []), *self.beside]

    def hit(self, *, stands_still: bool = False) -> None:
        self.hits += 1
        self.stands_still |= stands_still

    def held_against(self, what: str) -> None:
        self.held.append(what)

    def resident(self) -> int:
        use = use_of(self.process.pid, resident_limit=1)
        assert use is not None
        return use.used

    async def says(self, what: str) -> None:
        """Read on until it does, 5 s at most."""
        assert self.process.stdout is not None
        async with asyncio.timeout(5):
            while (await self.process.stdout.readline()).strip() != what.encode():
                pass

    async def said_within(self, seconds: float) -> set[bytes]:
        """Everything it says in the next so many seconds."""
        assert self.process.stdout is not None
        said, until = set[bytes](), asyncio.get_running_loop().time() + seconds
        while (left := until - asyncio.get_running_loop().time()) > 0:
            try:
                said.add(await asyncio.wait_for(self.process.stdout.readline(), left))
            except TimeoutError:
                break
        return said


@pytest.fixture
async def carrier(tmp_path: Path) -> AsyncIterator[Carrier]:
    files = {"BLOCKED_WHILE": str(tmp_path / "blocked"), "LEAKS_WHILE": str(tmp_path / "leaks")}
    env = {**os.environ, "PYTHONPATH": str(Path(inside.__file__).parent), **files}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, env=env, stdout=pipe, stderr=asyncio.subprocess.DEVNULL)
    try:
        carrier = Carrier(process, tmp_path / "blocked", tmp_path / "leaks")
        await carrier.says("loop")
        await carrier.says("thread")
        yield carrier
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def blocked(carrier: Carrier) -> AsyncIterator[None]:
    ground: Any = carrier
    async with strikes.block_loop(ground, [cast(strikes.Line, carrier)]):
        yield


async def test_a_blocked_loop_stands_still_while_threads_go_on_and_then_goes_on_itself(carrier: Carrier) -> None:
    async with blocked(carrier):
        assert (carrier.hits, carrier.stands_still) == (1, True)
        async with asyncio.timeout(2):
            while await carrier.said_within(0.2) != {b"thread\n"}:  # what was said before is still in the pipe
                pass
    await carrier.says("loop")
    assert carrier.process.returncode is None


async def test_a_loop_that_is_blocked_for_long_is_ended_by_its_own_watchdog(carrier: Carrier) -> None:
    async with blocked(carrier):
        reading = asyncio.create_task(carrier.said_within(3 * STUCK_S))
        assert await asyncio.wait_for(carrier.process.wait(), 3 * STUCK_S) == 1
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.parametrize(("sig", "stands_still"), [(signal.SIGSTOP, True), (signal.SIGKILL, False)])
async def test_only_the_calls_of_a_process_that_is_stopped_stand_still(carrier: Carrier, sig: signal.Signals, stands_still: bool) -> None:
    ground: Any = carrier
    async with strikes.to_carriers(sig)(ground, [cast(strikes.Line, carrier)]):
        assert (carrier.hits, carrier.stands_still) == (1, stands_still)


@asynccontextmanager
async def leaking(carrier: Carrier) -> AsyncIterator[None]:
    ground: Any = carrier
    async with strikes.leak(ground, [cast(strikes.Line, carrier)]):
        yield


async def test_a_leak_uses_memory_while_the_loop_goes_on_and_gives_it_back(carrier: Carrier) -> None:
    before = carrier.resident()
    async with leaking(carrier):
        assert (carrier.hits, carrier.stands_still) == (1, False)
        await until(lambda: carrier.resident() - before >= 8 * MIB)
        await carrier.says("loop")
        assert use_of(carrier.process.pid, resident_limit=None) is not None
    assert use_of(carrier.process.pid, resident_limit=None) is None  # nor has it a limit any more
    await until(lambda: carrier.resident() - before < 4 * MIB)


async def test_who_leaks_is_killed_at_its_limit(carrier: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strikes, "LEFT_TO_IT", 16 * MIB)
    async with leaking(carrier):
        reading = asyncio.create_task(carrier.said_within(30))
        assert await asyncio.wait_for(carrier.process.wait(), 30) == -signal.SIGKILL
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        carrier.beside.append(os.getpid())  # started when it was dead
    assert len(carrier.held) == 1


async def test_who_leaks_and_is_relieved_while_it_lives_has_left_by_itself(carrier: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strikes, "LEFT_TO_IT", 16 * MIB)
    async with leaking(carrier):
        carrier.beside.append(os.getpid())
        asked = carrier.asked
        await until(lambda: carrier.asked > asked)
        carrier.process.kill()
        await carrier.process.wait()
    assert carrier.held == []


async def test_who_leaks_and_stays_has_not_left(carrier: Carrier) -> None:
    async with leaking(carrier):
        await carrier.says("loop")
    assert len(carrier.held) == 1


async def test_a_rest_that_is_refused_is_so_for_connections_that_are_open_too_and_hits_no_call_by_itself() -> None:
    async def twilio(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionResetError):
            writer.write(await reader.read(1))
        writer.close()

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"?")
        try:
            return await reader.read()
        finally:
            writer.close()

    listening = await asyncio.start_server(twilio, "127.0.0.1", 0)
    async with listening, Proxy(listening.sockets[0].getsockname()) as wire:
        is_open = await asyncio.open_connection("127.0.0.1", wire.port)
        async with asyncio.timeout(5):
            while not wire.connections:
                await asyncio.sleep(0.01)
        ground: Any = SimpleNamespace(to_twilio=wire)
        line: Any = None  # nobody asks it anything
        async with strikes.refuse_rest(ground, [line]):
            with pytest.raises(ConnectionResetError):
                await ask(*is_open)
            comes_new = await asyncio.open_connection("127.0.0.1", wire.port)
            with pytest.raises(ConnectionResetError):
                await ask(*comes_new)
        assert await ask(*await asyncio.open_connection("127.0.0.1", wire.port)) == b"?"


async def test_a_database_is_locked_while_the_strike_lasts_and_who_is_on_the_line_is_hit(tmp_path: Path, carrier: Carrier) -> None:
    database = SqliteFile(tmp_path / "db.sqlite3")
    ground: Any = SimpleNamespace(database=database)
    with closing(sqlite3.connect(database.path, timeout=0)) as session:
        async with strikes.lock_database(ground, [cast(strikes.Line, carrier)]):
            assert carrier.hits == 1
            with pytest.raises(sqlite3.OperationalError):
                session.execute("CREATE TABLE it (n int)")
        session.execute("CREATE TABLE it (n int)")


async def test_a_database_that_cannot_be_struck_hits_nobody(tmp_path: Path, carrier: Carrier) -> None:
    ground: Any = SimpleNamespace(database=SqliteFile(tmp_path / "db.sqlite3"))
    with pytest.raises(strikes.MISSED):
        async with strikes.read_only_database(ground, [cast(strikes.Line, carrier)]):
            pass
    assert carrier.hits == 0
