"""The demo as its reader meets it: a command, its lines, a sound file, a console, and nothing left after Ctrl-C.

With PostgreSQL behind it, whose locks and pool are other than SQLite's; `make demo` itself is the same call on SQLite.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from supportvoice.stack import HOME, free_port
from tests.roof.test_stack import get, nothing_left

pytestmark = pytest.mark.journey
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3} \[call-[0-9a-f]{6}\] \S")


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sv-") as name:
        yield Path(name)


@contextmanager
def a_database(template: str = "template1") -> Iterator[str]:
    """The URL of a database of its own, empty, or as that one is."""
    server = os.environ["TEST_POSTGRES_URL"]
    name = f"supportvoice_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        yield server.rsplit("/", 1)[0] + f"/{name}"
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database() -> Iterator[str]:
    with a_database() as url:
        yield url


@pytest.mark.postgres
@pytest.mark.timeout(400)
async def test_the_demo_carries_its_call_shows_it_and_goes_without_a_trace(directory: Path, database: str) -> None:
    port = free_port()
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "manage.py", "demo", "--port", str(port), "--directory", str(directory)),
        cwd=HOME,
        env=os.environ | {"DATABASE_URL": database, "DEBUG": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert demo.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(350):
        async for line in demo.stdout:
            lines.append(line.decode().rstrip())
            if lines[-1].startswith("The console is at "):
                break
    said = "\n".join(lines)
    assert not re.search("^FAIL", said, re.MULTILINE), said
    assert len(re.findall("^ok ", said, re.MULTILINE)) >= 13, said
    log = [line for line in lines if LOG_LINE.match(line)]
    assert any(line.endswith('transcript-final: "I already tried that"') for line in log)
    assert any(re.search(r"TTS buffer flushed \([1-9]\d*ms audio cancelled\)$", line) for line in log)
    with wave.open(re.search(r"Listen to the call: (\S+)", said)[1]) as sound:  # type: ignore[index]
        assert (sound.getnchannels(), sound.getframerate(), sound.getsampwidth()) == (2, 8000, 2)
        assert sound.getnframes() > 20 * 8000
    assert b" 200 " in await get(port, "/login/")
    demo.send_signal(signal.SIGINT)
    rest = (await asyncio.wait_for(demo.communicate(), 60))[0]
    assert demo.returncode == 0, rest
    await nothing_left(directory)
    with psycopg.connect(database) as connection:
        ended = connection.execute("SELECT end_reason FROM calls_callsession ORDER BY started_at DESC").fetchall()
    assert ended[0] == ("agent_ended",)


def test_a_taken_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "manage.py", "demo", "--once", "--port", str(port)],
            cwd=HOME,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert (done.returncode, done.stderr) == (2, f"CommandError: Port {port} is taken; choose another with --port.\n")
