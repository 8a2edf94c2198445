"""A loop that is late for good takes nobody, and says so soon."""

from __future__ import annotations

from itertools import count

from supportvoice.watchdog import LATE_S, Watchdog


async def test_whoever_waits_for_a_loop_that_stays_late_is_told_no() -> None:
    moments = count(step=2 * LATE_S)
    watchdog = Watchdog(clock=lambda: next(moments))
    watchdog.start()
    try:
        assert not await watchdog.steadied()
    finally:
        watchdog.stop()


async def test_nobody_waits_for_a_loop_that_is_on_time() -> None:
    watchdog = Watchdog(clock=lambda: 7.0)
    watchdog.start()
    try:
        assert await watchdog.steadied()
    finally:
        watchdog.stop()
