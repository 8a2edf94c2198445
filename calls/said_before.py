"""What was said on the calls of this process until the database went away, on this machine's disk for as long as it is away.

While all is well nothing of it is at rest: it is in the rows, and in the memory of the stream that hears it (`bridge.lately`). In the
moment in which the database is found away each process puts that down, a small file a stream. Should the process die then, and the
rows not be readable, whoever takes up its calls tells the next agents from here (`calls.said_by_heart`); what is said later is in the
spools. Nobody waits for the disk: the files have to outlive their process, not the machine.

A file has no more than the newest lines (`bridge.lately`), without what is never stored. It is gone when the caller's leg is over, and
within seconds of the database's return, whoever made it. Of a call that was erased, or whose caller asked not to be recorded, none is
made on a machine that heard of it.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import orjson
from django.conf import settings

from agents.payload import Said
from bridge.ports import CallRef
from calls import away, discretion, redaction, spool
from calls.disk_marks import SAFE

log = logging.getLogger(__name__)

UNSAID = ".unsaid"
UNSAID_FOR_S = 24 * 3600  # longer than any call
OTHERS_FIRST_S = 0.002  # between two calls, for their sound

Heard = Callable[[], Iterable[tuple[str, str]]]


class SaidBefore:
    """The streams of one process."""

    def __init__(self) -> None:
        self._heard: dict[CallRef, Heard] = {}

    @contextmanager
    def remembering(self, ref: CallRef, heard: Heard) -> Iterator[None]:
        """Inside, `heard` says who said what on this stream, oldest first."""
        self._heard[ref] = heard
        try:
            yield
        finally:
            del self._heard[ref]

    def keep(self) -> None:
        """The database is away: put it down. What the disk does not take is known to this process alone."""
        for ref, heard in tuple(self._heard.items()):
            try:
                _keep(ref, as_told(ref.call_sid, heard()))
            except OSError as problem:
                log.error("What was said could not be kept", extra={"problem": type(problem).__name__, "errno": problem.errno})
                return
            except Exception as problem:  # whatever is the matter with this call, others have theirs
                log.error("What was said could not be kept", extra={"call": ref.short_id, "problem": type(problem).__name__})
            time.sleep(OTHERS_FIRST_S)


def as_told(call_sid: str, said: Iterable[tuple[str, str]]) -> tuple[Said, ...]:
    """What a further agent is told of it: no more than would be stored."""
    told = [redaction.Said(role, place, words) for place, (role, words) in enumerate(said)]
    kept = redaction.redact_talk(told, discretion.rules_of_call(call_sid))
    return tuple(Said(line.role, words) for line, words in zip(told, kept, strict=True))


def kept(call_sid: str) -> list[Said]:
    """Oldest first."""
    files = {int(path.suffix[1:]): path for path in _files_of(call_sid) if path.suffix[1:].isdecimal()}
    return [said for _, path in sorted(files.items()) for said in _read(path)]


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


def forget_all() -> None:
    """If the database is back: the rows tell all of it. Raises what the database raises; asks nothing when there is no file."""
    now = time.time()
    found = [(path, path.stat().st_mtime) for path in _directory().glob("*.*")]
    if any(path.suffix != UNSAID for path, _ in found):
        away.ask_for_a_write()
    for path, written_at in found:
        if path.suffix == UNSAID and now - written_at < UNSAID_FOR_S:
            continue
        with suppress(OSError):
            if path.stat().st_mtime == written_at:  # not put down anew: the database may have gone away again
                _end(path)


# -- inside ------------------------------------------------------------------------------------------------------------


def _directory() -> Path:
    return Path(settings.SPOOL_DIR) / "said"


def _files_of(call_sid: str) -> list[Path]:
    return list(_directory().glob(f"{call_sid}.*")) if SAFE.fullmatch(call_sid) else []


def _keep(ref: CallRef, said: Iterable[Said]) -> None:
    """Whole, or not at all; instead of what was kept of this stream before."""
    lines = [(line.role, line.words) for line in said]
    if not lines or not SAFE.fullmatch(ref.call_sid) or _is_unsaid(ref.call_sid):
        return
    path = _directory() / f"{ref.call_sid}.{ref.epoch}"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    whole = path.with_name(f"{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        with open(whole, "xb", opener=partial(os.open, mode=0o600)) as file:
            file.write(orjson.dumps(lines))
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)
    if _is_unsaid(ref.call_sid):  # said so in this very moment
        _end(path)


def _is_unsaid(call_sid: str) -> bool:
    return (_directory() / f"{call_sid}{UNSAID}").exists()


def _read(path: Path) -> list[Said]:
    try:
        return [Said(role, words) for role, words in orjson.loads(path.read_bytes())]
    except (OSError, orjson.JSONDecodeError):
        return []


def _end(path: Path) -> None:
    with suppress(OSError):
        spool.end(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
