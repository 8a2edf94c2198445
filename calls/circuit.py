"""Whether an account at Vapi is asked for calls, by how it has taken the last ones. Pure.

    CLOSED --5 failures in 10 s, or one that says why all will fail--> OPEN --a call that works--> CLOSED

While it is open one call in five seconds tries it all the same (the probe), the others go elsewhere at once. Times are seconds
of the wall clock, for processes share them: one that jumped back far counts as time that has passed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

FAILURES = 5
WITHIN_S = 10.0
PROBE_EVERY_S = 5.0
KEY, CREDIT, LINES, BUSY, TROUBLE = "key", "credit", "lines", "busy", "trouble"
KINDS = (KEY, CREDIT, LINES, BUSY, TROUBLE)
AT_ONCE = frozenset({KEY, CREDIT, LINES})  # the next call would fare no better


@dataclass(frozen=True, slots=True)
class Circuit:
    """`opened_at` is None while it is closed; `why` is the kind of the newest failure that matters, `probe_at` when a call may try it."""

    failures: tuple[float, ...] = ()
    opened_at: float | None = None
    why: str = ""
    probe_at: float = 0.0

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None


CLOSED = Circuit()


def after_failure(circuit: Circuit, kind: str, *, at: float) -> Circuit:
    """A call was not taken. What opens it starts the wait for the first probe; so does a probe that fails."""
    if circuit.is_open:
        return replace(circuit, why=kind, probe_at=at + PROBE_EVERY_S)
    failures = (*_lately(circuit.failures, at), at)
    if kind in AT_ONCE or len(failures) >= FAILURES:
        return Circuit((), opened_at=at, why=kind, probe_at=at + PROBE_EVERY_S)
    return Circuit(failures, why=kind)


def may_probe(circuit: Circuit, *, at: float) -> bool:
    """True when an open one may be tried now."""
    return circuit.is_open and not 0 < circuit.probe_at - at < 2 * PROBE_EVERY_S


def probed(circuit: Circuit, *, at: float) -> Circuit:
    """Somebody tries it now; the next one may in five seconds."""
    return replace(circuit, probe_at=at + PROBE_EVERY_S)


def _lately(failures: Iterable[float], at: float) -> tuple[float, ...]:
    return tuple(failed for failed in failures if 0 <= at - failed < WITHIN_S)[-(FAILURES - 1) :]
