"""How our processes die together: nobody outlives the process that started it, not even after `kill -9`.

Standard library only, and no import of ours: this file is also run as a script, in front of programs that are not ours
(`run`: Valkey, Celery) and beside the Valkey that several commands of one checkout share (`keep`).
On Linux the kernel does the killing (PR_SET_PDEATHSIG survives `exec`); elsewhere `run` only starts the program, and
our own children still notice because their end of a socket pair with the parent closes.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
LOOK_S = 0.25  # how often `keep` looks whether anybody still needs Valkey


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it is gone; exit now if it already is."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def die_with_pipe(fd: int, told: Callable[[bytes], None] = lambda word: None) -> None:
    """Exit at once when the other end of `fd` closes. A thread watches, so a stuck event loop does not matter.

    `told` is called in that thread with every byte that comes.
    """

    def watch() -> None:
        try:
            while word := os.read(fd, 1):
                told(word)
        except OSError:
            pass
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def place(pid: int = 0) -> str:
    """This process, or another one here, as no other is called: boot of the machine, namespace of processes, id, begin.

    Empty but on Linux.
    """
    pid = pid or os.getpid()
    try:
        return " ".join([*_surroundings(), str(pid), _began(pid)])
    except OSError:
        return ""


def is_gone(place: str) -> bool:
    """True when that process was here and is no more. Of one that is elsewhere nobody here can say that."""
    try:
        *surroundings, pid, began = place.split()
        if surroundings != _surroundings():
            return False
        os.kill(int(pid), 0)
        return _began(int(pid)) != began
    except (ProcessLookupError, FileNotFoundError):
        return True
    except (OSError, ValueError):  # somebody else's, who is there; or no place at all
        return False


def _surroundings() -> list[str]:
    return [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]


def _began(pid: int) -> str:
    """In ticks since the boot; nothing of one that is dead and not yet buried."""
    state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return "" if state in "ZX" else fields[18]


def under_lifeline(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` so that it dies with the process calling this."""
    return [sys.executable, "-I", "-S", __file__, "run", str(os.getpid()), *command]


def keeper(*, users: Path, socket: Path, program: Sequence[str]) -> list[str]:
    """The command line of a process that runs `program` for as long as anybody holds a lock on `users`."""
    return [sys.executable, "-I", "-S", __file__, "keep", str(users), str(socket), *program]


def _run(parent: int, command: Sequence[str]) -> None:
    die_with_parent(parent)
    os.execvp(command[0], list(command))  # noqa: S606 - a program of ours, named by us


def _keep(users: Path, socket: Path, program: Sequence[str]) -> None:
    """Run `program`, again if it dies, until the shared lock on `users` has no holder left; then remove `socket`.

    A lock needs no bookkeeping: however a user ends, the kernel lets go of it. The exclusive lock is kept until this
    process is gone, so a newcomer waits for the old server to be away before it starts a new one.
    """
    if os.fork():
        os._exit(0)  # whoever asked for a keeper is not its parent: it may leave first, and has nobody to bury
    lock = os.open(users, os.O_RDWR | os.O_CREAT, 0o600)
    child: subprocess.Popen[bytes] | None = None
    while not _taken(lock):
        if child is None or child.poll() is not None:
            child = subprocess.Popen(under_lifeline(program), stdin=subprocess.DEVNULL)
        time.sleep(LOOK_S)
    if child is not None:
        child.kill()  # nothing in it outlives its users: no persistence
        child.wait()
    socket.unlink(missing_ok=True)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    if sys.argv[1] == "run":
        _run(int(sys.argv[2]), sys.argv[3:])
    else:
        _keep(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
