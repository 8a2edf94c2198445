"""The phone keeps time, and says when the machine did not let it."""

from __future__ import annotations

import asyncio
import time

import pytest

from bridge.sandbox.clips import spoken_by
from bridge.sandbox.ear import Ear
from bridge.sandbox.phone import Phone
from bridge.sandbox.script import PLAIN, Caller
from bridge.sandbox.twilio import STALLED_MS


async def test_a_machine_that_stood_still_is_noticed() -> None:
    phone = Phone(Caller(PLAIN.caller), Ear(spoken_by("agent")))
    ticking = asyncio.create_task(phone.run())
    async with asyncio.timeout(5):
        while len(phone.said) < 160 * 5:
            await asyncio.sleep(0.01)
        time.sleep(2 * STALLED_MS / 1000)  # noqa: ASYNC251 - everything on this machine stands still
        slept_until = phone.now()
        while phone.late_s < STALLED_MS / 1000:
            await asyncio.sleep(0.01)
    ticking.cancel()
    slept_from = slept_until - 2 * STALLED_MS / 1000
    stood_still_s = phone.stood_still_s(slept_from, slept_until)
    assert stood_still_s == pytest.approx(2 * STALLED_MS / 1000, abs=0.03)  # a tick was due a frame later at most
    assert phone.stood_still_s(slept_from, slept_from + 0.3) == pytest.approx(0.3, abs=0.03)
