"""Which of our accounts at Vapi takes calls: the circuits of `calls.circuit`, one row each, shared by all processes.

A row is changed by compare-and-set on its version. Who cannot read it takes the account for healthy: a database that is away
must not cost a caller the agent. What is only learnt is not worth an exception either.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from django.db import Error as DatabaseProblem
from django.db import transaction

from bridge.errors import VapiError, VapiRefused
from calls import circuit
from calls.circuit import Circuit
from calls.clock import moment
from calls.models import VendorHealth

log = logging.getLogger(__name__)

TRIES = 10  # at once, of several who change one row; each try that fails is another one's that worked
SENTENCES = {
    circuit.KEY: "Vapi refuses our key",
    circuit.CREDIT: "Vapi says that the account has no credit",
    circuit.LINES: "Vapi has no free line for us",
    circuit.BUSY: "Vapi is too busy for us",
    circuit.TROUBLE: "Vapi does not take our calls",
}


def is_open(account: str, *, at: datetime) -> bool:
    """True while an account takes no calls, by all we know, and it is not time to try it again."""
    state, _ = _read(account)
    return state.is_open and not circuit.may_probe(state, at=at.timestamp())


def may_ask(account: str, *, at: datetime) -> bool:
    """Whether this call may be made at an account: it takes calls, or this very call is the probe. One query in the usual case."""
    state, version = _read(account)
    if not state.is_open:
        return True
    seconds = at.timestamp()
    return circuit.may_probe(state, at=seconds) and _wrote(account, circuit.probed(state, at=seconds), version)


def failed(account: str, kind: str, *, at: datetime) -> bool:
    """An account did not take a call. True for the one whose failure opened its circuit: an alarm, once."""
    opened = _changed(account, lambda state: circuit.after_failure(state, kind, at=at.timestamp()))
    if opened is None or opened[0].is_open or not opened[1].is_open:
        return False
    log.error("breaker-opened: %s", SENTENCES[kind], extra={"account": account, "why": kind})
    return True


def worked(account: str, *, at: datetime) -> bool:
    """An account took a call. True for the one that closed its circuit. One query in the usual case."""
    closed = _changed(account, lambda _: circuit.CLOSED)
    if closed is None or closed[0].opened_at is None:
        return False
    seconds = max(0, round(at.timestamp() - closed[0].opened_at))
    log.warning("breaker-closed: Vapi takes our calls again", extra={"account": account, "seconds": seconds})
    return True


def kind_of(problem: VapiError) -> str:
    """What a refused create says of the account; empty when it says something of that one call only."""
    if problem.limit:
        return problem.limit
    if problem.status == 429:
        return circuit.BUSY
    is_ours = isinstance(problem, VapiRefused) and problem.status is not None and 400 <= problem.status < 500
    return "" if is_ours or (isinstance(problem, VapiRefused) and problem.status is None) else circuit.TROUBLE


def opened() -> list[VendorHealth]:
    """The accounts that take no calls now."""
    return list(VendorHealth.objects.filter(opened_at__isnull=False).order_by("account"))


def _changed(account: str, change: Callable[[Circuit], Circuit]) -> tuple[Circuit, Circuit] | None:
    """What it was and what it is now. None: nothing had to be changed, or it could not be written."""
    for _ in range(TRIES):
        before, version = _read(account)
        after = change(before)
        if after == before:
            return None
        if _wrote(account, after, version):
            return before, after
    return None


def _read(account: str) -> tuple[Circuit, int]:
    """The state and its version; 0 when there is no row yet, or none can be read."""
    try:
        row = VendorHealth.objects.filter(account=account).first()
    except DatabaseProblem:
        return circuit.CLOSED, 0
    if row is None:
        return circuit.CLOSED, 0
    state = Circuit(tuple(row.failures), _seconds(row.opened_at), row.why, _seconds(row.probe_at) or 0.0)
    return state, row.version


def _wrote(account: str, state: Circuit, version: int) -> bool:
    """True when nobody was faster."""
    fields = {
        "failures": list(state.failures),
        "opened_at": _moment(state.opened_at),
        "why": state.why,
        "probe_at": _moment(state.probe_at or None),
    }
    try:
        with transaction.atomic():
            if version:
                return VendorHealth.objects.filter(account=account, version=version).update(version=version + 1, **fields) == 1
            return VendorHealth.objects.get_or_create(account=account, defaults={"version": 1, **fields})[1]
    except DatabaseProblem:
        log.warning("how Vapi takes our calls could not be written down", extra={"account": account})
        return False


def _seconds(at: datetime | None) -> float | None:
    return at.timestamp() if at else None


def _moment(seconds: float | None) -> datetime | None:
    return moment(seconds) if seconds is not None else None
