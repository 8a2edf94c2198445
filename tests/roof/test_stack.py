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

from supportvoice.stack import HOME, Stack, StackFailed, free_port, is_ready

pytestmark = pytest.mark.journey

OWNER = """
import asyncio, functools, sys
from pathlib import Path
from supportvoice.stack import Stack
async def own():
    say = functools.partial(print, flush=True)
    async with Stack(Path(sys.argv[1]), port=int(sys.argv[2]), workers=1, say=say):
        say("up")
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
async def test_a_household_comes_up_serves_everything_and_dies_with_its_owner(directory: Path) -> None:
    port = free_port()
    arguments = ("-c", OWNER, str(directory), str(port))
    owner = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, cwd=HOME)
    assert owner.stdout is not None
    told = b""
    async with asyncio.timeout(150):
        while not told.endswith(b"up\n"):
            line = await owner.stdout.readline()
            assert line, "the owner ended before its household was up"
            told += line
    assert b"migrating the database\n" in told
    assert b" 200 " in await get(port, "/login/")
    assert b"text/css" in await get(port, "/static/admin/css/base.css")
    with sqlite3.connect(directory / "db.sqlite3") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()
    media = Stack(directory, {"SERVE_ROLE": "media"}, workers=1)
    pages = Stack(directory, {"SERVE_ROLE": "web"}, server="daphne")
    await asyncio.gather(served(media, webhook=b" 405 ", login=b" 404 "), served(pages, webhook=b" 404 ", login=b" 200 "))
    assert len(of_the_household(directory)) >= 6  # Valkey and its keeper, serve and its child, worker, beat
    os.kill(owner.pid, signal.SIGKILL)
    await owner.wait()
    await nothing_left(directory)


async def served(beside: Stack, *, webhook: bytes, login: bytes) -> None:
    """Start another server in a household that is up, with the doors of its role, and see who answers."""
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(sys.executable, *beside.serving(), cwd=HOME, env=beside.env, stdout=quiet)
    try:
        async with asyncio.timeout(100):
            while not await is_ready(beside.port):
                await asyncio.sleep(0.1)
        assert webhook in await get(beside.port, "/webhook/twilio")
        assert login in await get(beside.port, "/login/")
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)


@pytest.mark.timeout(300)
async def test_a_household_that_cannot_come_up_says_why_and_leaves_nothing(directory: Path) -> None:
    with pytest.raises(StackFailed, match=r"manage.py migrate failed"):
        await Stack(directory, {"DATABASE_URL": "sqlite:////no/such/directory/db.sqlite3"}).start()
    await nothing_left(directory)
