"""Calls that are answered while the database is away, from what this machine knows by heart.

The line and its agent are in this process's memory (`agents.lines`). What more than one process must know is a small file
each, beside the spool: that a call was opened, that its stream was let in or turned away, that somebody makes its Vapi call, what its agent
or caller wishes, that a conversation was lost, why a stream is over, to which one its caller was sent on, and that the caller's
leg is over. Such a file is made once, by whoever is first; so a token is used once and a Vapi call made once, as with a row.

While the database is there, one more is made for every call: between the answer to Twilio and the first stream lies the
disclosure, seconds in which the row may become unreadable. What that stream can be let in on then is `expected`, until it has come.
As long as a stream is carried a mark says by which process, then one why it is over, which its row may be too busy to say, and one more
that Twilio has had an answer to what comes after it: should that process die while the row cannot be read, the others know whom it left
in silence (`calls.rescue_by_heart`).

When the database is back a call becomes its row, and the stream it was sent on to the row's epoch (`enter_all`), before anything is
told of it. The end of its leg, which any process may have heard of, is written down when all of them have told what they kept
(`end_all`): it was the last of it.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from agents import lines
from calls import admission, away, carriers, endings, let_in, resuming, services, spool, standing_still
from calls.clock import moment
from calls.disk_marks import SAFE, directory, drop, keep, note, read
from calls.history import NewEvent, record_events
from calls.models import CallSession, Source

log = logging.getLogger(__name__)

A_STREAMS_NUMBERS = 100  # of Vapi sessions: no stream has so many, so one that is sent on by heart needs not know the numbers before it
UNREAD_NUMBER = A_STREAMS_NUMBERS // 2  # of the first stream's agent when its row, which may have one by then, cannot be read
LONGEST_NUMBER = 9999
SENT_ON = re.compile(r"[A-Za-z0-9]{2,64}\.next-([0-9]{1,3})", re.ASCII)
CARRIED = re.compile(r"([A-Za-z0-9]{2,64})\.carried-([0-9]{1,3})", re.ASCII)
LONGEST_MARK_S = 24 * 3600
EXPECTED_FOR_S = 600.0  # more than a token's life and all that is borne beyond it
CLOSED_FOR_S = 3 * 3600.0  # more than a clock jumps
OF_EVERY_CALL = {".expected": EXPECTED_FOR_S, ".answered": EXPECTED_FOR_S, ".closed": CLOSED_FOR_S}  # also while the database is there
LONGEST_WISH_S = 30.0
ANSWERED_WITHIN_S = 3.0  # after that Twilio asks again by itself


class Stream(NamedTuple):
    """One that a process carries, or did when it died; `place` is that process (`supportvoice.lifeline`)."""

    call_sid: str
    epoch: int
    account_sid: str
    place: str
    short_id: str


def opened(*, sid: str, account_sid: str, from_number: str, to_number: str, at: datetime) -> lines.Answer | None:
    """Answer a call that nobody can write down now. None: this process has never seen the line, or the disk takes nothing."""
    answer = lines.remembered(to_number, draw=lines.draw_of(sid))
    if answer is None:
        return None
    told = {"sid": sid, "account_sid": account_sid, "from_number": from_number, "to_number": to_number}
    told = {**told, "public_id": str(public_id(sid))}
    return answer if keep(sid, "call", {**told, "at": at.timestamp()}) is not None else None


def public_id(sid: str) -> uuid.UUID:
    """The same for all who ask. The row of a call that was not opened by heart has another one."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{settings.SECRET_KEY}|{sid}")


def known(sid: str) -> dict[str, Any] | None:
    """What was told of a call that is not written down yet."""
    return read(sid, "call")


def started_at(sid: str) -> datetime | None:
    call = known(sid)
    return moment(call["at"]) if call else None


def first(sid: str, what: str) -> bool:
    """True for the one that does `what` for this call, on this machine."""
    return keep(sid, what, {}) is True


def lost(sid: str, what: str, *, at: float) -> bool:
    """Remember that a conversation of this call was lost. True for the one who says so first, on this machine."""
    return keep(sid, f"lost-{what}", {"at": at}) is True


def losses(sid: str, *, at: datetime, counts: bool = True) -> int:
    """How many conversations of this call were lost in a row by now, by what this machine remembers. `counts`: so does the one of now."""
    return resuming.in_a_row(_newest_first(each for each in _lost(sid) if each.get("is_loss", True)), at, counts=counts)


def deaths(sid: str, *, at: datetime) -> int:
    """How many processes died in a row under this call, the one now among them, by what this machine remembers."""
    return resuming.in_a_row(_newest_first(each for each in _lost(sid) if each.get("why") == resuming.GONE), at)


def send_on(sid: str, epoch: int, told: Mapping[str, Any]) -> dict[str, Any] | None:
    """Remember that a call goes on with the stream of this epoch. Returns what whoever was first said of it; None: it cannot be."""
    if first_number(epoch) > LONGEST_NUMBER or keep(sid, "onward", {}) is None or keep(sid, f"next-{epoch}", told) is None:
        return None
    return sent_on(sid, epoch)


def sent_on(sid: str, epoch: int) -> dict[str, Any] | None:
    """What was said when a call was sent on to the stream of this epoch."""
    return read(sid, f"next-{epoch}")


def first_number(epoch: int) -> int:
    """Of the Vapi sessions of a stream that a call was sent on to by heart."""
    return A_STREAMS_NUMBERS * epoch


def expect(call: CallSession) -> None:
    """Remember on what the first stream of a call that is written down may be let in, should its row be unreadable by then."""
    its = {"account_sid": call.account_sid, "to_number": call.to_number, "version": call.version_id, "public_id": str(call.public_id)}
    note(call.call_sid, "expected", {**its, "at": timezone.now().timestamp()})


def expected(sid: str) -> dict[str, Any] | None:
    """What was remembered of a call whose first stream has not come to this machine yet."""
    return read(sid, "expected")


def has_come(sid: str) -> bool:
    """The first stream is let in, by its row or without: no other one is expected. True for the one that was."""
    return drop(sid, "expected")


def carries(stream: Stream) -> None:
    """Remember which process has the caller, for whoever finds it dead while nobody can read the row."""
    _forget_carried(stream.call_sid, below=stream.epoch)
    told = {"account_sid": stream.account_sid, "place": stream.place, "short_id": stream.short_id}
    note(stream.call_sid, f"carried-{stream.epoch}", told)


def carrier_is_gone(sid: str, epoch: int) -> bool:
    """The process of this machine that carried the stream of this epoch is known to be dead, or was taken for it."""
    if os.path.lexists(directory() / f"{sid}.rescued-{epoch}"):
        return True
    told = read(sid, f"carried-{epoch}")
    return told is not None and (carriers.the_machine().is_gone(told["place"]) or standing_still.is_seen(told["place"]))


def give_up(sid: str, epoch: int) -> bool:
    """Take the process that carries the stream of this epoch for dead, whatever it does from now on. True for the one who is first."""
    return first(sid, f"rescued-{epoch}")


def died(sid: str, epoch: int) -> None:
    """Remember that the process that carried the stream of this epoch did, which others have seen. Some thirty of a process at once."""
    note(sid, f"rescued-{epoch}", {})


def let_go(sid: str, epoch: int) -> None:
    """The stream of this epoch is over, and its end is written down or kept."""
    _forget_carried(sid, below=epoch + 1)


def carried() -> list[Stream]:
    """Every stream that a process of this machine carries, or carried when it died."""
    found = [CARRIED.fullmatch(path.name) for path in directory().glob("*.carried-*")]
    told = [(name[1], int(name[2]), read(name[1], f"carried-{name[2]}")) for name in found if name]
    return [Stream(sid, epoch, **its) for sid, epoch, its in told if its]


def is_carried_on(sid: str, *, after: int) -> bool:
    """A stream of a later epoch was let in on this machine."""
    found = (CARRIED.fullmatch(path.name) for path in directory().glob(f"{sid}.carried-*"))
    return any(int(name[2]) > after for name in found if name)


def is_leg_over(sid: str) -> bool:
    """Twilio has said so to a process of this machine, and it is not written down yet."""
    return os.path.lexists(directory() / f"{sid}.leg")


def took_up(sid: str, n: int) -> bool:
    """The stream for which session `n` was to be made has found the agent of the one before. True if nobody makes it."""
    return keep(sid, f"claim-{n}", {"parked": True}) is True


def closed(sid: str, epoch: int, why: str) -> None:
    """Remember why a stream is over, for whichever process Twilio asks what is next."""
    note(sid, f"closed-{epoch}", {"why": why})


def why_closed(sid: str, epoch: int) -> str:
    """Empty when this machine does not know."""
    return str((read(sid, f"closed-{epoch}") or {}).get("why", ""))


@contextmanager
def being_asked(sid: str, epoch: int) -> Iterator[None]:
    """Inside, Twilio waits at the resume door for what is next after the stream of this epoch."""
    path = directory() / f"{sid}.asking-{epoch}"
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch()
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


def is_being_asked(sid: str, epoch: int, *, now: float) -> bool:
    """It does, on this machine, or was answered by heart just now. Not for so long that whoever answers must be taken for dead."""
    if (sent := sent_on(sid, epoch + 1)) is not None and abs(now - sent["at"]) < ANSWERED_WITHIN_S:
        return True
    try:
        return abs(now - (directory() / f"{sid}.asking-{epoch}").lstat().st_mtime) < ANSWERED_WITHIN_S
    except OSError:
        return False


def was_answered(sid: str, epoch: int) -> None:
    """Remember that Twilio has been told what is next after the stream of this epoch: nobody has to look after that any more."""
    let_go(sid, epoch)
    let_in.answered(sid, epoch)


def is_answered(sid: str, epoch: int) -> bool:
    return let_in.answered_at(sid, epoch) is not None


def wish(sid: str, verb: str, *, at: float, at_once: bool = False) -> bool:
    """Leave a command for the stream of this call, whichever process carries it; the first one stands. False when nothing was kept."""
    return keep(sid, "wish", {"verb": verb, "at_once": at_once, "at": at}) is not None


def granted(sid: str, *, now: float) -> dict[str, Any] | None:
    """The wish that waits for the stream of this call; it is told once, and an old one, of a stream that is over, never."""
    told = read(sid, "wish")
    if told is not None:
        (directory() / f"{sid}.wish").unlink(missing_ok=True)
    return told if told and abs(now - told["at"]) < LONGEST_WISH_S else None


def is_wished(sid: str, *, now: float) -> bool:
    """A wish waits for a stream of this call."""
    told = read(sid, "wish")
    return told is not None and abs(now - told["at"]) < LONGEST_WISH_S


def leg_over(sid: str, *, status: str, at: datetime) -> bool:
    """Remember that the caller's leg is over, by Twilio's CallStatus. False when the disk takes nothing."""
    return keep(sid, "leg", {"status": status, "at": at.timestamp()}) is not None


def enter_all() -> int:
    """Write down every call that was opened, or sent on, by heart. Returns how many are new. Raises what the database raises."""
    new = sum(map(_entered, sorted(directory().glob("*.call"))))
    _enter_sent_on(directory().glob("*.next-*"))
    return new


def enter(sid: str) -> None:
    """Write this call down, if it was opened, or sent on, by heart: before anything is done with its row."""
    path = directory() / f"{sid}.call"
    if SAFE.fullmatch(sid) and os.path.lexists(path):
        _entered(path)
    if SAFE.fullmatch(sid) and os.path.lexists(path.with_suffix(".onward")):
        _enter_sent_on(directory().glob(f"{sid}.next-*"))


def end_all() -> list[str]:
    """Write down whose leg is over, after all that was told of their streams. Returns their CallSids."""
    over = [path.stem for path in sorted(directory().glob("*.leg"))]
    for sid in over:
        if (leg := read(sid, "leg")) is not None:
            endings.leg_over(call_sid=sid, status=leg["status"], at=moment(leg["at"]))
        (directory() / f"{sid}.leg").unlink(missing_ok=True)
    return over


def is_to_be_told(*, now: datetime) -> bool:
    """A process of this machine has not yet stored all it was told while the database was away: what comes after that has to wait."""
    return spool.is_waited_for(Path(settings.SPOOL_DIR), now=now.timestamp())


def forget_old(*, now: float) -> None:
    """Marks of calls that are long over."""
    for path in directory().glob("*.*"):
        with suppress(OSError):
            kept_s = OF_EVERY_CALL.get(path.suffix.partition("-")[0], LONGEST_MARK_S)
            if path.suffix not in (".call", ".leg") and path.lstat().st_mtime < now - kept_s:
                path.unlink()


# -- inside ------------------------------------------------------------------------------------------------------------


def _entered(path: Path) -> bool:
    """A call that the database refuses, whatever for, keeps no other from being written down."""
    is_new = False
    try:
        with transaction.atomic():
            is_new = _enter(path)
    except Exception as problem:
        if away.is_away(problem):
            raise
        log.error("A call answered by heart could not be written down", extra={"problem": type(problem).__name__})
    with suppress(OSError):
        spool.end(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))  # the caller's number is in it
    path.unlink(missing_ok=True)
    return is_new


def _enter(path: Path) -> bool:
    call = read(path.stem, "call")
    if call is None:
        return False
    sid, public_id = call["sid"], call.pop("public_id")
    is_new = not CallSession.objects.filter(call_sid=sid).exists()
    row = services.open_call(**{**call, "at": moment(call["at"])}, by_heart=True)
    if row is not None and is_new:
        CallSession.objects.filter(pk=row.pk).update(public_id=public_id)
        if row.version_id is not None and read(sid, "leg") is None:  # else nobody is there who has it
            admission.take_again(row, at=timezone.now())
        spooled = NewEvent("history-spooled", Source.SYSTEM, timezone.now(), {"degraded": "db", "answered": True})
        record_events(call_sid=sid, events=[spooled])
    if row is not None and not _left_to_its_row(sid, 0):  # also of one that was answered by its row a moment before
        resuming.being_made_by_heart(row, 0)
    return is_new


def _enter_sent_on(paths: Iterable[Path]) -> None:
    """Each once, those of a call in their order."""
    found = [(int(name[1]), path) for path in paths if (name := SENT_ON.fullmatch(path.name))]
    for epoch, path in sorted(found):
        if os.path.lexists(path.with_suffix(f".entered-{epoch}")):
            continue
        try:
            with transaction.atomic():
                is_known = _write_sent_on(path.stem, epoch)
        except Exception as problem:
            if away.is_away(problem):
                raise
            log.error("A call sent on by heart could not be written down", extra={"problem": type(problem).__name__})
            is_known = True
        if is_known:
            first(path.stem, f"entered-{epoch}")


def _write_sent_on(sid: str, epoch: int) -> bool:
    """False when its call is not written down yet."""
    sent, n = sent_on(sid, epoch), first_number(epoch)
    if sent is None or not CallSession.objects.filter(call_sid=sid).exists():
        return sent is None
    is_made = not _left_to_its_row(sid, n)
    resuming.elsewhere_by_heart(
        call_sid=sid,
        epoch=epoch,
        n=n,
        account=sent["account"],
        raw=sent["why"],
        at=moment(sent["at"]),
        is_made=is_made,
        is_parked=bool((read(sid, f"claim-{n}") or {}).get("parked")),
    )
    return True


def _left_to_its_row(sid: str, n: int) -> bool:
    """Nobody has begun to make this session by heart, and from now on nobody will. A second writer of its row hears the same."""
    keep(sid, f"claim-{n}", {"row": True})
    return bool((read(sid, f"claim-{n}") or {}).get("row"))


def _lost(sid: str) -> Iterator[dict[str, Any]]:
    marks = [path.suffix[1:] for what in ("lost", "next") for path in directory().glob(f"{sid}.{what}-*")]
    return (told for mark in marks if (told := read(sid, mark)))


def _newest_first(told: Iterable[Mapping[str, Any]]) -> list[datetime]:
    return sorted((moment(each["at"]) for each in told), reverse=True)


def _forget_carried(sid: str, *, below: int) -> None:
    for path in directory().glob(f"{sid}.carried-*") if SAFE.fullmatch(sid) else ():
        if (name := CARRIED.fullmatch(path.name)) and int(name[2]) < below:
            path.unlink(missing_ok=True)
