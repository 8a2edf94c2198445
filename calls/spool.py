"""What must outlive an absent database: a file of this process's own, every line on the disk before `append` returns.

A line is JSON: its number, a checksum, and what was told. A line that was torn by a crash, or by a full disk, is not there.
While the disk takes nothing, lines wait in memory, 10 MB of them, and go to the disk with the next that it takes. The file is
bounded; what finds no room is counted, and said in the log once.

Whoever has the lock of a file reads it. The kernel lets go of it when a process dies, however it dies, and then anybody may
`adopt` the file. How far a file has been read is known by whoever stores what it tells (`calls.keeper`), in the same
transaction: so each line is told once.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import orjson

log = logging.getLogger(__name__)

LONGEST_FILE = 256 * 1024 * 1024
MEMORY = 10 * 1024 * 1024
SUFFIX = ".spool"
OVERWRITE = 1024 * 1024
STALE_S = 3600.0  # whoever serves adopts a file within seconds: one that is so old has nobody

Write = Callable[[int, bytes], int]


class Line(NamedTuple):
    number: int
    told: dict[str, Any]


class Spool:
    """This process's own, made when there is something to keep. Every method may be called from any thread."""

    def __init__(self, directory: Path, *, longest: int = LONGEST_FILE, memory: int = MEMORY, write: Write = os.write) -> None:
        self.counts: Counter[str] = Counter()  # kept, in-memory, dropped
        self.lock = RLock()
        self._directory, self._longest, self._memory, self._write = directory, longest, memory, write
        self._file: int | None = None
        self._path = directory
        self._size = self._number = 0
        self._ring: deque[bytes] = deque()
        self._ring_size = 0
        self._read_to = 0  # bytes
        self._is_stuck = self._alarmed = False

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def waits(self) -> bool:
        """True while something was kept that nobody has read."""
        return self._read_to < self._size or bool(self._ring)

    def append(self, told: Sequence[Mapping[str, Any]]) -> int:
        """Keep these, in their order, behind all others. Returns how many there was room for, on the disk or in memory."""
        with self.lock:
            self.flush()
            lines = [self._line(each) for each in told]
            kept = self._room_for(lines)
            self._ring.extend(lines[:kept])
            self._ring_size += sum(map(len, lines[:kept]))
            self.counts["kept"] += kept
            if kept < len(lines):
                self.counts["dropped"] += len(lines) - kept
                self._alarm("The spool has no room: history is lost")
            self.flush()
            return kept

    def flush(self) -> bool:
        """Have the disk take what waits in memory. False while it does not."""
        with self.lock:
            if not self._ring:
                return True
            try:
                self._to_disk(b"".join(self._ring))
            except OSError as problem:
                self._is_stuck = True
                self._alarm("The spool cannot be written: history waits in memory", problem=type(problem).__name__, errno=problem.errno)
                return False
            self._ring.clear()
            self._ring_size, self._is_stuck, self._alarmed = 0, False, False
            return True

    def unread(self, *, at_most: int = 200) -> list[Line]:
        """What is next, from where `was_read` said; from the disk, then from memory."""
        with self.lock:
            self.flush()
            if self._file is None:
                return [line for raw in list(self._ring)[:at_most] if (line := parsed(raw))]
            found = lines_of(self._file, self._read_to, at_most)
            return found or [line for raw in list(self._ring)[:at_most] if (line := parsed(raw))]

    def was_read(self, lines: Sequence[Line]) -> None:
        """These are stored elsewhere now. With the last one the file is overwritten and gone."""
        with self.lock:
            for line in lines:
                raw = encoded(line.number, line.told)
                if self._ring and self._ring[0] == raw and self._read_to >= self._size:
                    self._ring_size -= len(self._ring.popleft())
                else:
                    self._read_to += len(raw)
            if not self.waits and self._file is not None:
                end(self._path, self._file)
                self._file, self._size, self._read_to = None, 0, 0

    # -- inside ----------------------------------------------------------------------------------------------------

    def _line(self, told: Mapping[str, Any]) -> bytes:
        self._number += 1
        return encoded(self._number, told)

    def _room_for(self, lines: Sequence[bytes]) -> int:
        room = min(self._longest - self._size, self._memory if self._is_stuck else self._longest) - self._ring_size
        for place, line in enumerate(lines):
            room -= len(line)
            if room < 0:
                return place
        return len(lines)

    def _to_disk(self, raw: bytes) -> None:
        """All of it or nothing: what a full disk took of it is taken back."""
        file = self._open()
        try:
            written = 0
            while written < len(raw):
                written += self._write(file, raw[written:])
            os.fsync(file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, self._size)
            raise
        self._size += len(raw)

    def _open(self) -> int:
        if self._file is None:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path = self._directory / f"{time.time_ns():020d}-{os.getpid()}{SUFFIX}"
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            sync_directory(self._directory)
            self._file = file
        return self._file

    def _alarm(self, sentence: str, **detail: Any) -> None:
        if not self._alarmed:
            self._alarmed = True
            log.error(sentence, extra={**detail, "dropped": self.counts["dropped"], "waiting": len(self._ring)})


# -- files that nobody holds any more ----------------------------------------------------------------------------------


@contextlib.contextmanager
def adopted(path: Path) -> Iterator[int | None]:
    """The file of a dead process, opened; None when somebody has it, or it is gone."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = path.exists()  # whoever had it before may just have ended it
    except BlockingIOError:
        mine = False
    try:
        yield file if mine else None
    finally:
        with contextlib.suppress(OSError):
            os.close(file)


def files(directory: Path) -> list[Path]:
    """Every spool there is, oldest first."""
    return sorted(directory.glob(f"*{SUFFIX}"))


def is_waited_for(directory: Path, *, now: float) -> bool:
    """True while what a process of this machine was told is still to be stored: whatever comes after it has to wait. `now`: since 1970."""
    for path in files(directory):
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime < STALE_S:
                return True
    return False


def lines_of(file: int, start: int, at_most: int) -> list[Line]:
    """Whole lines from byte `start` on; a torn one ends them."""
    found: list[Line] = []
    with open(os.dup(file), "rb") as reader:
        reader.seek(start)
        while len(found) < at_most and (line := parsed(reader.readline())):
            found.append(line)
    return found


def last_lines(path: Path, *, of: bytes, at_most: int) -> Iterator[Line]:
    """Those among the last `at_most` bytes of a file in which this stands, whoever has it; none when it is gone."""
    try:
        with path.open("rb") as reader:
            size = os.fstat(reader.fileno()).st_size
            reader.seek(max(0, size - at_most))
            said = reader.read(at_most)
    except OSError:
        return
    for raw in said.splitlines(keepends=True):
        if of in raw and (line := parsed(raw)):
            yield line


def end(path: Path, file: int) -> None:
    """Overwrite a file and remove it: words were in it."""
    with contextlib.suppress(OSError):  # a full disk still lets it go
        left = os.fstat(file).st_size
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) & ~os.O_APPEND)
        os.lseek(file, 0, os.SEEK_SET)
        while left > 0:
            left -= os.write(file, b"\0" * min(left, OVERWRITE))
        os.fsync(file)
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.close(file)


def sync_directory(directory: Path) -> None:
    """A new file's name is on the disk only when its directory is."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def encoded(number: int, told: Mapping[str, Any]) -> bytes:
    body = orjson.dumps(told)
    return orjson.dumps({"n": number, "sum": zlib.crc32(b"%d " % number + body), "told": orjson.Fragment(body)}) + b"\n"


def parsed(raw: bytes) -> Line | None:
    """A line as it was kept; None for a torn or a changed one."""
    if not raw.endswith(b"\n"):
        return None
    try:
        line = orjson.loads(raw)
        number, told = line["n"], line["told"]
        return Line(number, told) if line["sum"] == zlib.crc32(b"%d " % number + orjson.dumps(told)) else None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
