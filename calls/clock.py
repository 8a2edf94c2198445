"""The call's own clock: milliseconds since we answered, which no jump of the wall clock can turn back.

Every process of one machine reads the same monotonic clock as long as that machine stays up, so a call remembers the
boot it was answered in. A writer on another machine, or after a reboot, falls back to the wall clock's difference.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def this_boot() -> str:
    """Names this machine's boot; empty where the system does not tell, which makes every origin a foreign one."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def moment(seconds: float) -> datetime:
    """Seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(seconds, tz=UTC)


@dataclass(frozen=True, slots=True)
class CallClock:
    """`boot` and `origin_ms` say when the call was answered on the monotonic clock, `answered_at` on the wall's."""

    boot: str
    origin_ms: int
    answered_at: datetime

    def ms(self, *, at: datetime, now: float | None = None) -> int:
        """Milliseconds since the answer of a moment at wall time `at`, measured as `now` in monotonic seconds if it was.

        Never negative. On another boot than the call's the wall clock's word is taken.
        """
        if self.boot and self.boot == this_boot():
            return max(0, int((monotonic(at) if now is None else now) * 1000) - self.origin_ms)
        return max(0, int((at - self.answered_at).total_seconds() * 1000))


def monotonic(at: datetime) -> float:
    """The moment `at` of the wall clock in monotonic seconds, by how long ago it was."""
    return time.monotonic() - (time.time() - at.timestamp())


def origin(at: datetime) -> tuple[str, int]:
    """The boot and monotonic milliseconds of a call answered at wall time `at`."""
    return this_boot(), int(monotonic(at) * 1000)
