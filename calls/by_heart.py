"""Calls that are answered while the database is away, from what this machine knows by heart.

The line and its agent are in this process's memory (`agents.lines`). What more than one process must know is a small file
each, beside the spool: that a call was opened, that its stream was let in, that somebody makes its Vapi call, what its agent
or caller wishes, why a stream is over, and that the caller's leg is. Such a file is made once, by whoever is first; so a token
is used once and a Vapi call made once, as with a row.

When the database is back a call becomes its row (`enter_all`) before anything is told of it. The end of its leg, which any
process may have heard of, is written down when all of them have told what they kept (`end_all`): it was the last of it.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from agents import lines
from calls import endings, resuming, services, spool
from calls.clock import moment
from calls.history import NewEvent, record_events
from calls.models import CallSession, Source

log = logging.getLogger(__name__)

SAFE = re.compile(r"[A-Za-z0-9]{2,64}", re.ASCII)
LONGEST_MARK_S = 24 * 3600
LONGEST_WISH_S = 30.0


def opened(*, sid: str, account_sid: str, from_number: str, to_number: str, at: datetime) -> lines.Answer | None:
    """Answer a call that nobody can write down now. None: this process has never seen the line, or the disk takes nothing."""
    answer = lines.remembered(to_number, draw=lines.draw_of(sid))
    if answer is None:
        return None
    told = {"sid": sid, "account_sid": account_sid, "from_number": from_number, "to_number": to_number}
    public = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{settings.SECRET_KEY}|{sid}"))
    return answer if _keep(sid, "call", {**told, "at": at.timestamp(), "public_id": public}) is not None else None


def known(sid: str) -> dict[str, Any] | None:
    """What was told of a call that is not written down yet."""
    return _read(sid, "call")


def started_at(sid: str) -> datetime | None:
    call = known(sid)
    return moment(call["at"]) if call else None


def first(sid: str, what: str) -> bool:
    """True for the one that does `what` for this call, on this machine."""
    return _keep(sid, what, {}) is True


def lost(sid: str, what: str, *, at: float) -> bool:
    """Remember that a conversation of this call was lost. True for the one who says so first, on this machine."""
    return _keep(sid, f"lost-{what}", {"at": at}) is True


def losses(sid: str, *, at: datetime, counts: bool = True) -> int:
    """How many conversations of this call were lost in a row by now, by what this machine remembers. `counts`: so does the one of now."""
    told = (_read(sid, path.suffix[1:]) or {} for path in _directory().glob(f"{sid}.lost-*"))
    times = sorted((moment(each["at"]) for each in told if each), reverse=True)
    return resuming.in_a_row(times, at, counts=counts)


def closed(sid: str, epoch: int, why: str) -> None:
    """Remember why a stream is over, for whichever process Twilio asks what is next."""
    _keep(sid, f"closed-{epoch}", {"why": why})


def why_closed(sid: str, epoch: int) -> str:
    """Empty when this machine does not know."""
    return str((_read(sid, f"closed-{epoch}") or {}).get("why", ""))


def wish(sid: str, verb: str, *, at: float, at_once: bool = False) -> bool:
    """Leave a command for the stream of this call, whichever process carries it; the first one stands. False when nothing was kept."""
    return _keep(sid, "wish", {"verb": verb, "at_once": at_once, "at": at}) is not None


def granted(sid: str, *, now: float) -> dict[str, Any] | None:
    """The wish that waits for the stream of this call; it is told once, and an old one, of a stream that is over, never."""
    told = _read(sid, "wish")
    if told is not None:
        (_directory() / f"{sid}.wish").unlink(missing_ok=True)
    return told if told and abs(now - told["at"]) < LONGEST_WISH_S else None


def leg_over(sid: str, *, status: str, at: datetime) -> bool:
    """Remember that the caller's leg is over, by Twilio's CallStatus. False when the disk takes nothing."""
    return _keep(sid, "leg", {"status": status, "at": at.timestamp()}) is not None


def enter_all() -> int:
    """Write down every call that was opened by heart. Returns how many. Raises what the database raises."""
    return sum(map(_entered, sorted(_directory().glob("*.call"))))


def enter(sid: str) -> None:
    """Write this call down, if it was opened by heart: before anything is done with its row."""
    path = _directory() / f"{sid}.call"
    if SAFE.fullmatch(sid) and os.path.lexists(path):
        _entered(path)


def end_all() -> list[str]:
    """Write down whose leg is over, after all that was told of their streams. Returns their CallSids."""
    over = [path.stem for path in sorted(_directory().glob("*.leg"))]
    for sid in over:
        if (leg := _read(sid, "leg")) is not None:
            endings.leg_over(call_sid=sid, status=leg["status"], at=moment(leg["at"]))
        (_directory() / f"{sid}.leg").unlink(missing_ok=True)
    return over


def forget_old(*, now: float) -> None:
    """Marks of calls that are long over."""
    for path in _directory().glob("*.*"):
        with suppress(OSError):
            if path.suffix not in (".call", ".leg") and path.lstat().st_mtime < now - LONGEST_MARK_S:
                path.unlink()


# -- inside ------------------------------------------------------------------------------------------------------------


def _entered(path: Path) -> bool:
    """A call that the database refuses, whatever for, keeps no other from being written down."""
    is_new = False
    try:
        with transaction.atomic():
            is_new = _enter(path)
    except (OperationalError, InterfaceError):
        raise
    except Exception as problem:
        log.error("A call answered by heart could not be written down", extra={"problem": type(problem).__name__})
    with suppress(OSError):
        spool.end(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))  # the caller's number is in it
    path.unlink(missing_ok=True)
    return is_new


def _enter(path: Path) -> bool:
    call = _read(path.stem, "call")
    if call is None:
        return False
    sid, public_id = call["sid"], call.pop("public_id")
    is_new = not CallSession.objects.filter(call_sid=sid).exists()
    row = services.open_call(**{**call, "at": moment(call["at"])})
    if row is not None and is_new:
        CallSession.objects.filter(pk=row.pk).update(public_id=public_id)
        if not first(sid, "claim-0"):
            resuming.being_made_by_heart(row, 0)
        spooled = NewEvent("history-spooled", Source.SYSTEM, timezone.now(), {"degraded": "db", "answered": True})
        record_events(call_sid=sid, events=[spooled])
    return is_new


def _directory() -> Path:
    return Path(settings.SPOOL_DIR) / "calls"


def _keep(sid: str, what: str, told: Mapping[str, Any]) -> bool | None:
    """True: it is new, and on the disk. False: it was there. None: the disk takes not even a name.

    A full disk still takes a link, whose text lives with its name; that is what it says then.
    """
    if not SAFE.fullmatch(sid):
        return None
    path, said = _directory() / f"{sid}.{what}", orjson.dumps(told)
    for written in (_as_file, _as_link):
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


def _as_file(path: Path, said: bytes) -> None:
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


def _as_link(path: Path, said: bytes) -> None:
    path.symlink_to(said.decode())


def _read(sid: str, what: str) -> dict[str, Any] | None:
    if not SAFE.fullmatch(sid):
        return None
    path = _directory() / f"{sid}.{what}"
    try:
        told = orjson.loads(os.readlink(path) if path.is_symlink() else path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return told if isinstance(told, dict) else None
