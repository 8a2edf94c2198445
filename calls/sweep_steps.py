"""What a sweep does, step by step, whoever does it: a worker on schedule, or a serving process when nobody does.

A worker leaves what Vapi is asked for to tasks of their own; a serving process cannot count on anybody, and does it there and then.

A step that breaks keeps nobody waiting: those behind it have their turn, and it has its own again at the next sweep. So it is
with one that is still at it when the task is told that its time is over; those behind it have the rest, until it is killed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple, Protocol

from django.conf import settings
from django.db import close_old_connections

from calls import consent, lost_reports, returning, sessions, twilio_account, whereabouts
from calls.in_time import InTime
from calls.sweep import end_silent_calls

log = logging.getLogger(__name__)


class Sweep(NamedTuple):
    """One of them. Unless it `judges`, no silence is held against a call.

    `fetch_report` and `end_session` see to one Vapi session, known by its primary key. None is begun after `asked_s` seconds of a step:
    a worker's tasks have time limits of their own.
    """

    now: datetime
    judges: bool
    fetch_report: Callable[[int], object]
    end_session: Callable[[int], object]
    asked_s: float = float("inf")


class Step(Protocol):
    """A function, which the log knows by its name."""

    __name__: str

    def __call__(self, sweep: Sweep, /) -> None: ...


def _end_silent_calls(sweep: Sweep) -> None:
    if sweep.judges:
        end_silent_calls(now=sweep.now, ttl=settings.CALL_TTL, twilio=twilio_account.client())


def _stop_recordings(sweep: Sweep) -> None:
    consent.stop_recordings(twilio=twilio_account.client(), now=sweep.now)


def _keep_missed_calls(sweep: Sweep) -> None:
    returning.keep_missed_calls(twilio=twilio_account.client(), now=sweep.now)


def _give_up_reports(sweep: Sweep) -> None:
    if given_up := sessions.give_up_reports(now=sweep.now):
        log.error("Calls are closed without the report of their AI", extra={"calls": given_up})


def _ask_for_reports(sweep: Sweep) -> None:
    for pk in lost_reports.due(now=sweep.now, in_time=InTime(sweep.asked_s)):
        sweep.fetch_report(pk)


def _end_left_over(sweep: Sweep) -> None:
    for pk in InTime(sweep.asked_s).begun(sessions.left_over(now=sweep.now, judges=sweep.judges)):
        sweep.end_session(pk)


STEPS: tuple[Step, ...] = (
    _end_silent_calls,
    _stop_recordings,
    _keep_missed_calls,
    _give_up_reports,
    _ask_for_reports,
    _end_left_over,
)


def take(steps: Iterable[Step], sweep: Sweep) -> None:
    for step in steps:
        try:
            step(sweep)
        except Exception as problem:  # whatever it is: agents that cost money wait behind it
            log.error("A step of the sweep broke", extra={"step": step.__name__.lstrip("_"), **whereabouts.of(problem)})
            close_old_connections()  # one that broke would fail the next step too
