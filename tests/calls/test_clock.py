"""Time since the answer: by the machine's monotonic clock where it can be, by the wall's where it must."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from calls import clock
from calls.clock import CallClock

ANSWERED = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_on_this_boot_the_monotonic_clock_counts_whatever_the_wall_says() -> None:
    call = CallClock(clock.this_boot(), 5_000, ANSWERED)
    assert call.ms(at=ANSWERED - timedelta(hours=1), now=7.25) == 2_250


def test_on_another_boot_the_wall_clock_counts() -> None:
    call = CallClock("another boot", 5_000, ANSWERED)
    assert call.ms(at=ANSWERED + timedelta(seconds=3), now=7.25) == 3_000


def test_a_machine_that_does_not_tell_its_boot_uses_the_wall_clock() -> None:
    assert CallClock("", 0, ANSWERED).ms(at=ANSWERED + timedelta(seconds=3), now=1.0) == 3_000


def test_time_is_never_negative() -> None:
    assert CallClock("another boot", 0, ANSWERED).ms(at=ANSWERED - timedelta(seconds=9)) == 0
    assert CallClock(clock.this_boot(), 5_000, ANSWERED).ms(at=ANSWERED, now=1.0) == 0


def test_a_moment_nobody_measured_is_found_on_the_monotonic_clock() -> None:
    at = datetime.fromtimestamp(time.time(), tz=UTC)
    boot, origin_ms = clock.origin(at)
    assert boot == clock.this_boot()
    assert abs(CallClock(boot, origin_ms, at).ms(at=at + timedelta(seconds=2)) - 2_000) < 50
