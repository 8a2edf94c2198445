"""A whole household in processes of its own: it comes up, it goes down, and it dies with its owner."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supportvoice.stack import HOME, Stack, StackFailed, free_port

pytestmark = pytest.mark.journey

OWNER = """
import asyncio, sys
from pathlib import Path
from supportvoice.stack import Stack
async def own():
    async with Stack(Path(sys.argv[1]), workers=1):
        print("up", flush=True)
        await asyncio.sleep(600)
asyncio.run(own())
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for a unix socket, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="sv-") as name:
        yield Path(name)


def of_the_household(directory: Path) -> list[str]:
    """The command lines of every process that was started with this household's Valkey or runs it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(directory).encode() + b"/valkey.sock" in told:
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


async def nothing_left(directory: Path) -> None:
    async with asyncio.timeout(30):
        while of_the_household(directory):
            await asyncio.sleep(0.1)


async def get(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    try:
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


@pytest.mark.timeout(300)
async def test_a_household_comes_up_serves_everything_and_leaves_nothing(directory: Path) -> None:
    told: list[str] = []
    async with Stack(directory, workers=1, say=told.append) as stack:
        assert {"serve", "worker", "beat"} <= set(stack.members)
        assert b" 200 " in await get(stack.port, "/login/")
        assert b"text/css" in await get(stack.port, "/static/admin/css/base.css")
        with sqlite3.connect(directory / "db.sqlite3") as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        database.close()
        assert (directory / "valkey.sock").exists()
    assert "migrating the database" in told
    await nothing_left(directory)


@pytest.mark.timeout(300)
async def test_kill_9_of_the_owner_leaves_no_process_behind(directory: Path) -> None:
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", OWNER, str(directory), stdout=asyncio.subprocess.PIPE, cwd=HOME)
    assert owner.stdout is not None
    assert await asyncio.wait_for(owner.stdout.readline(), 150) == b"up\n"
    assert len(of_the_household(directory)) >= 5  # Valkey and its keeper, serve and its child, worker, beat
    os.kill(owner.pid, signal.SIGKILL)
    await owner.wait()
    await nothing_left(directory)


@pytest.mark.timeout(300)
async def test_a_household_that_cannot_come_up_says_why_and_leaves_nothing(directory: Path) -> None:
    with pytest.raises(StackFailed, match=r"manage.py migrate failed"):
        await Stack(directory, {"DATABASE_URL": "sqlite:////no/such/directory/db.sqlite3"}).start()
    await nothing_left(directory)


@pytest.mark.timeout(300)
async def test_roles_have_their_own_doors_and_daphne_serves_the_same_house(directory: Path) -> None:
    stack = Stack(directory)
    await stack.prepare()
    try:
        for role, webhook, login in (("media", b" 405 ", b" 404 "), ("web", b" 404 ", b" 200 ")):
            async with served(stack, "manage.py", "serve", "--workers", "1", "--role", role, "--port") as port:
                assert webhook in await get(port, "/webhook/twilio")
                assert login in await get(port, "/login/")
        async with served(stack, "-m", "daphne", "supportvoice.asgi:application", "--port") as port:
            assert b" 405 " in await get(port, "/webhook/twilio")
            assert b" 200 " in await get(port, "/login/")
    finally:
        await stack.stop()
    await nothing_left(directory)


class served:
    """A server of the household, started by hand, from ready to gone."""

    def __init__(self, stack: Stack, *command: str) -> None:
        self._stack, self._command, self._port = stack, command, free_port()

    async def __aenter__(self) -> int:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *self._command, str(self._port), cwd=HOME, env=self._stack.env, stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(100):
            while True:
                try:
                    if b" 200 " in await get(self._port, "/readyz"):
                        return self._port
                except OSError:
                    await asyncio.sleep(0.1)

    async def __aexit__(self, *_: object) -> None:
        self._process.terminate()
        await asyncio.wait_for(self._process.wait(), 30)
