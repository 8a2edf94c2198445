"""What the kernel says of a process and its children."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PROC = Path("/proc")


def _fields(pid: int) -> list[str]:
    """`/proc/<pid>/stat` from the state on; empty when it is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def tree(pid: int) -> list[int]:
    """The process and everybody it started, and so on."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _fields(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))

    def below(parent: int) -> Iterator[int]:
        yield parent
        for child in children.get(parent, []):
            yield from below(child)

    return list(below(pid))


def cpu_s(pid: int) -> float:
    """User and system seconds of the tree so far; the kernel counts hundredths."""
    return sum(sum(map(int, fields[11:13])) for each in tree(pid) if (fields := _fields(each))) / TICKS_PER_S


def resident_bytes(pid: int) -> int:
    return sum(int(fields[21]) for each in tree(pid) if (fields := _fields(each))) * PAGE


def threads(pid: int) -> int:
    return sum(int(fields[17]) for each in tree(pid) if (fields := _fields(each)))


def descriptors(pid: int) -> dict[str, int]:
    """Open descriptors of the process itself; of them sockets, files of a database on SQLite, and connections to it.

    Each connection has the log of writes open. The database itself may be open more often: SQLite closes it only when nobody of
    the process has a lock, and gives what is left to the next connection.
    """
    targets = []
    for fd in (PROC / str(pid) / "fd").iterdir():
        try:
            targets.append(os.readlink(fd))
        except OSError:  # closed meanwhile
            continue
    return {
        "descriptors": len(targets),
        "sockets": sum(target.startswith("socket:") for target in targets),
        "database_files": sum(".sqlite3" in target for target in targets),
        "database_connections": sum(target.endswith(".sqlite3-wal") for target in targets),
    }
