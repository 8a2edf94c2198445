"""At which of our accounts at Vapi the next agent of a call is made: the main one, unless it takes no calls or has refused this one.

Who is on the line decides nothing here: `calls.ladder` does, from what this says is to be had.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from agents import account
from calls import admission, breaker, circuit
from calls.models import CallSession, Rung, VapiAccount, VapiState

REFUSED_FOR = timedelta(seconds=60)  # an account that could not make this call is not asked for it again

RUNGS = {VapiAccount.MAIN: Rung.RESUMED, VapiAccount.BACKUP: Rung.BACKUP}  # on which an agent stands that takes another one's place


@dataclass(frozen=True, slots=True)
class Left:
    """Which accounts may be asked for a further agent of a call."""

    main: bool
    backup: bool


def first(*, at: datetime, people: bool) -> VapiAccount | None:
    """Where the first agent of a call is made; None: nowhere, so people take the call.

    Without `people` nobody could, and an account that takes no calls is better than nothing.
    """
    if breaker.may_ask(account.MAIN, at=at):
        return VapiAccount.MAIN
    if _backup_works(at):
        return VapiAccount.BACKUP
    return None if people else VapiAccount.MAIN


def refused(name: str, kind: str, *, at: datetime, besides: int) -> None:
    """An account took no call, for a reason that concerns all of them; `besides` is the session it took none for.

    Want of lines is no trouble of the account's: it carries what it carries, and who comes now waits, or goes to the backup.
    """
    if kind == circuit.LINES:
        admission.lines_are_busy(name, at=at, besides=besides)
    if kind != circuit.LINES or (name == account.MAIN and account.has_backup()):
        breaker.failed(name, kind, at=at)


def took(name: str, *, at: datetime) -> None:
    """An account took a call."""
    breaker.worked(name, at=at)
    admission.has_lines(name)


def left(call: CallSession, *, at: datetime) -> Left:
    """Where a further agent may be made."""
    failed = [session for session in call.vapi_sessions.all() if session.state == VapiState.FAILED]
    refused = {session.account for session in failed if session.ended_at is not None and session.ended_at > at - REFUSED_FOR}
    return Left(
        main=account.MAIN not in refused and breaker.may_ask(account.MAIN, at=at),
        backup=account.BACKUP not in refused and _backup_works(at),
    )


def _backup_works(at: datetime) -> bool:
    return account.has_backup() and not breaker.is_open(account.BACKUP, at=at)
