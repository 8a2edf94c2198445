"""What was said lately on the calls that are on, on this machine's disk: for whoever takes up those of a process that dies.

It is in the rows, and in the memory of the stream that hears it (`bridge.lately`). But in an outage there may be nobody who can read the
rows, and a process that is killed in its first moment has no time to do anything about that. So each process puts down what its streams
hear within a quarter of a second, whether the database is there or not. Whoever takes up its calls then tells the next agents from here
(`calls.said_by_heart`); what is said later is in the spools. It is done in a thread of its own, which asks nobody and waits for no
database, and nothing waits for the disk: the files have to outlive their process, not the machine.

A file has no more than the newest lines (`bridge.lately`), without what is never stored, and is written over where it stands: no word
stays behind on the disk. It is gone when the caller's leg is over while the database is away, and else within seconds of the call's end,
whoever made it. Of a call that was erased, or whose caller asked not to be recorded, none is made on a machine that heard of it; another
one hears of it within those seconds.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from django.conf import settings
from django.db.models import Q

from agents.payload import Said
from bridge.lately import LINES
from bridge.ports import CallRef
from calls import discretion, redaction, spool
from calls.disk_marks import SAFE
from calls.models import OVER, CallSession
from calls.unsaid import UNSAID as IS_UNSAID

log = logging.getLogger(__name__)

UNSAID = ".unsaid"
LONGEST_CALL_S = 24 * 3600
LOOK_S = 0.25
OTHERS_FIRST_S = 0.002  # between two calls, for their sound
ROOM = 64 * 1024  # for what is kept of a stream, twice in its file

Heard = Callable[[], Iterable[tuple[str, str]]]
Redact = Callable[[str, redaction.Rules], str]


class SaidBefore:
    """The streams of one process, and the thread that puts down what they hear, as long as there are any."""

    def __init__(self) -> None:
        self._streams: dict[CallRef, _Stream] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._alarmed = False

    @contextmanager
    def remembering(self, ref: CallRef, heard: Heard) -> Iterator[None]:
        """Inside, `heard` says who said what on this stream, oldest first."""
        with self._lock:
            self._streams[ref] = _Stream(ref, heard)
            if self._thread is None:
                self._start()
        try:
            yield
        finally:
            with self._lock:
                del self._streams[ref]

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="said-before", daemon=True)
        with suppress(RuntimeError):  # there is no room for one: the next stream tries again, and this one has its call
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while True:
            time.sleep(LOOK_S)
            with self._lock:
                if not self._streams:
                    self._thread = None
                    return
            self.keep()

    def keep(self) -> None:
        """Put down what is new. What the disk does not take is known to this process alone, and tried again with the next line."""
        kept = [self._kept(stream) for stream in tuple(self._streams.values())]
        if any(kept) and None not in kept:
            self._alarmed = False

    def _kept(self, stream: _Stream) -> bool | None:
        """Whether there was something new; None when it could not be put down."""
        try:
            is_new = stream.keep()
        except Exception as problem:  # whatever is the matter with this call, others have theirs
            self._alarm(stream.ref, problem)
            return None
        if is_new:
            time.sleep(OTHERS_FIRST_S)
        return is_new

    def _alarm(self, ref: CallRef, problem: Exception) -> None:
        """Once, until all is well again: it would be said with every line."""
        if not self._alarmed:
            self._alarmed = True
            extra = {"call": ref.short_id, "problem": type(problem).__name__, "errno": getattr(problem, "errno", None)}
            log.error("What was said could not be kept", extra=extra)


class _Stream:
    """One of them, and what was put down of it."""

    def __init__(self, ref: CallRef, heard: Heard) -> None:
        self.ref, self._heard = ref, heard
        self._said: tuple[tuple[str, str], ...] = ()
        self._written = 0  # the longest, in bytes
        self._redact: Redact = lru_cache(2 * LINES)(redaction.redact)  # each line stays for some twenty more

    def keep(self) -> bool:
        """True when there was something new."""
        said = tuple(self._heard())
        if said == self._said or not SAFE.fullmatch(self.ref.call_sid):
            return False
        self._said = said
        if _is_unsaid(self.ref.call_sid):
            return False
        raw = _record(as_told(self.ref.call_sid, said, redact=self._redact))
        path = _directory() / f"{self.ref.call_sid}.{self.ref.epoch}"
        _write(path, raw.ljust(self._written, b"\0"), is_new=not self._written)
        self._written = max(self._written, len(raw))
        if _is_unsaid(self.ref.call_sid):  # said so in this very moment
            _end(path)
        return True


def as_told(call_sid: str, said: Iterable[tuple[str, str]], *, redact: Redact = redaction.redact) -> tuple[Said, ...]:
    """What a further agent is told of it: no more than would be stored."""
    told = [redaction.Said(role, place, words) for place, (role, words) in enumerate(said)]
    kept = redaction.redact_talk(told, discretion.rules_of_call(call_sid), alone=redact)
    return tuple(Said(line.role, words) for line, words in zip(told, kept, strict=True))


def kept(call_sid: str) -> list[Said]:
    """Oldest first."""
    files = {int(path.suffix[1:]): path for path in _files_of(call_sid) if path.suffix[1:].isdecimal()}
    told: list[Said] = []
    for _, path in sorted(files.items()):
        told = _followed(told, _read(path))
    return told


def forget(call_sid: str) -> None:
    """The call is over, or erased."""
    for path in _files_of(call_sid):
        if path.suffix != UNSAID:
            _end(path)


def never(call_sid: str) -> None:
    """Nothing of this call, which is on, is to be kept on this machine from now on."""
    if not SAFE.fullmatch(call_sid):
        return
    try:
        _directory().mkdir(parents=True, exist_ok=True, mode=0o700)
        (_directory() / f"{call_sid}{UNSAID}").touch(mode=0o600)
    except OSError as problem:
        log.error("What is said could not be marked as not to be kept", extra={"problem": type(problem).__name__, "errno": problem.errno})
    forget(call_sid)


def forget_over() -> None:
    """What is to be kept no longer, by the rows. Raises what the database raises; asks nothing when there is no file."""
    found = list(_directory().glob("*.*"))
    of_calls = CallSession.objects.filter(Q(status__in=OVER) | IS_UNSAID)
    if kept := {path.stem for path in found if path.suffix != UNSAID}:
        for call_sid, status in of_calls.filter(call_sid__in=kept).values_list("call_sid", "status"):
            if status in OVER:
                forget(call_sid)
            else:
                never(call_sid)
    for path in found:
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - LONGEST_CALL_S:
                _end(path)


# -- inside ------------------------------------------------------------------------------------------------------------


def _directory() -> Path:
    return Path(settings.SPOOL_DIR) / "said"


def _files_of(call_sid: str) -> list[Path]:
    return list(_directory().glob(f"{call_sid}.*")) if SAFE.fullmatch(call_sid) else []


def _record(said: Iterable[Said]) -> bytes:
    """Of the newest lines, as many as there is room for."""
    lines = [(line.role, line.words) for line in said]
    while len(raw := spool.encoded(0, {"said": lines})) > ROOM:
        del lines[0]
    return raw


def _write(path: Path, raw: bytes, *, is_new: bool) -> None:
    """Twice, one after the other: whenever its writer is killed, one of the two is whole."""
    if is_new:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if is_new else 0), 0o600)
    try:
        for place in (0, ROOM):
            if os.pwrite(file, raw, place) < len(raw):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(file)


def _is_unsaid(call_sid: str) -> bool:
    return (_directory() / f"{call_sid}{UNSAID}").exists()


def _read(path: Path) -> list[Said]:
    try:
        raw = path.read_bytes()
    except OSError:
        return []
    for place in (0, ROOM):
        line, newline, _ = raw[place : place + ROOM].partition(b"\n")
        if (whole := spool.parsed(line + newline)) is not None:
            return [Said(role, words) for role, words in whole.told["said"]]
    return []


def _followed(before: list[Said], after: list[Said]) -> list[Said]:
    """A stream that took up the agent who waited for it begins with what the stream before it heard."""
    most = min(len(before), len(after))
    both = next(lines for lines in range(most, -1, -1) if before[len(before) - lines :] == after[:lines])
    return before + after[both:]


def _end(path: Path) -> None:
    with suppress(OSError):
        spool.end(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
