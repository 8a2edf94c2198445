"""Calls that share a timer are woken in time, each when it asked, and none because of another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from bridge.moments import NEVER
from bridge.sandbox import virtual
from bridge.wakeups import SLOT_S, Sleeper, Wakeups, of_this_loop


@dataclass
class Gap:
    fill_at: float = NEVER


def asks(wakeups: Wakeups, at: float, wake: Callable[[], None]) -> Sleeper:
    """To be woken once."""

    def once() -> None:
        sleeper.at = NEVER
        wake()

    sleeper = Sleeper(Gap(), once)
    sleeper.at = at
    wakeups.add(sleeper)
    return sleeper


async def test_everybody_is_woken_within_a_slot_of_the_asked_moment_and_never_before_it() -> None:
    wakeups, late = Wakeups(asyncio.get_running_loop(), time.monotonic), []
    done, now = asyncio.Event(), time.monotonic()
    for n in range(100):
        when = now + n * 0.0017
        asks(wakeups, when, lambda when=when: late.append(time.monotonic() - when))  # type: ignore[misc]
    asks(wakeups, now + 0.2, done.set)
    await done.wait()
    assert len(late) == 100
    assert min(late) >= 0
    assert sorted(late)[50] < 2 * SLOT_S


async def test_an_earlier_wish_goes_first_and_a_removed_one_never() -> None:
    wakeups, woken = Wakeups(asyncio.get_running_loop(), time.monotonic), []
    done, now = asyncio.Event(), time.monotonic()

    def late() -> None:
        woken.append("late")
        done.set()

    asks(wakeups, now + 0.08, late)
    removed = asks(wakeups, now + 0.05, lambda: woken.append("removed"))
    wakeups.remove(removed)
    wakeups.remove(removed)
    asks(wakeups, now + 0.02, lambda: woken.append("early"))
    await done.wait()
    assert woken == ["early", "late"]


async def test_one_call_that_breaks_takes_no_other_with_it() -> None:
    loop = asyncio.get_running_loop()
    told: list[str] = []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))
    wakeups, done, when = Wakeups(loop, time.monotonic), asyncio.Event(), time.monotonic() + 0.01

    def breaks() -> None:
        raise ZeroDivisionError

    asks(wakeups, when, breaks)
    asks(wakeups, when, done.set)
    await asyncio.wait_for(done.wait(), 2)
    assert told == ["a call could not be woken"]


def test_one_who_asks_for_the_moment_that_is_now_comes_round_again_and_time_goes_on() -> None:
    async def ask() -> int:
        loop, times = asyncio.get_running_loop(), 0
        began, over = loop.time(), asyncio.Event()

        def again() -> None:
            nonlocal times
            times += 1
            sleeper.at = loop.time()
            if loop.time() >= began + 1:
                over.set()

        sleeper = Sleeper(Gap(), again)
        sleeper.at = loop.time()
        of_this_loop(loop.time).add(sleeper)
        await over.wait()
        return times

    assert 98 <= virtual.run(ask()) <= 102


def test_a_moment_that_is_put_off_again_and_again_wakes_nobody_and_one_that_comes_does() -> None:
    async def speak() -> tuple[list[float], float]:
        loop, gap = asyncio.get_running_loop(), Gap()
        woken: list[float] = []

        def wake() -> None:
            woken.append(loop.time())
            gap.fill_at = NEVER

        sleeper = Sleeper(gap, wake)
        wakeups = of_this_loop(loop.time)
        wakeups.add(sleeper)
        for _ in range(50):
            gap.fill_at = loop.time() + 0.06
            wakeups.look_again(sleeper)
            await asyncio.sleep(0.02)
        last = loop.time() + 0.04
        await asyncio.sleep(1)
        return woken, last

    woken, last = virtual.run(speak())
    assert len(woken) == 1
    assert last <= woken[0] <= last + 1.1 * SLOT_S
