"""Marks of calls on this machine's disk, for what more than one process must know without a database: a small file each, made once.

Whoever is first makes it, and it says what that one said. What the marks are: `calls.by_heart`.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings

from calls import spool
from calls.clock import moment

log = logging.getLogger(__name__)

SAFE = re.compile(r"[A-Za-z0-9]{2,64}", re.ASCII)
Write = Callable[[Path, bytes], None]


def directory() -> Path:
    return Path(settings.SPOOL_DIR) / "calls"


def keep(sid: str, what: str, told: Mapping[str, Any], *, ways: Iterable[Write] | None = None) -> bool | None:
    """True: it is new, and on the disk. False: it was there. None: the disk takes not even a name.

    A full disk still takes a link, whose text lives with its name; that is what it says then.
    """
    if not SAFE.fullmatch(sid):
        return None
    path, said = directory() / f"{sid}.{what}", orjson.dumps(told)
    for written in ways or (as_file, as_link):
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            written(path, said)
        except FileExistsError:
            return False
        except OSError as problem:
            log.error("What is known by heart could not be kept", extra={"problem": type(problem).__name__, "errno": problem.errno})
        else:
            return True
    return None


def note(sid: str, what: str, told: Mapping[str, Any]) -> None:
    """As `keep`, where nobody may wait for the disk: a mark that may be gone with its machine."""
    keep(sid, what, told, ways=(as_link,))


def drop(sid: str, what: str) -> bool:
    """True for the one that took it away."""
    if not SAFE.fullmatch(sid):
        return False
    try:
        (directory() / f"{sid}.{what}").unlink()
    except OSError:
        return False
    return True


def as_file(path: Path, said: bytes) -> None:
    """Whole, or not at all, and once."""
    whole = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        file = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, said)
            os.fsync(file)
        finally:
            os.close(file)
        os.link(whole, path)
        spool.sync_directory(path.parent)
    finally:
        whole.unlink(missing_ok=True)


def as_link(path: Path, said: bytes) -> None:
    path.symlink_to(said.decode())


def read(sid: str, what: str) -> dict[str, Any] | None:
    if not SAFE.fullmatch(sid):
        return None
    path = directory() / f"{sid}.{what}"
    try:
        told = orjson.loads(os.readlink(path) if path.is_symlink() else path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return told if isinstance(told, dict) else None


def kept_at(sid: str, what: str) -> datetime | None:
    """When this mark was made, to about 10 ms. None when there is none."""
    if not SAFE.fullmatch(sid):
        return None
    try:
        return moment((directory() / f"{sid}.{what}").lstat().st_mtime)
    except OSError:
        return None
