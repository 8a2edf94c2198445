"""Calls that share a timer are woken in time, each when it asked, and none because of another."""

from __future__ import annotations

import asyncio

from bridge.sandbox import virtual
from bridge.wakeups import SLOT_S, Wakeups, of_this_loop


async def test_everybody_is_woken_within_a_slot_of_the_asked_moment_and_never_before_it() -> None:
    loop = asyncio.get_running_loop()
    wakeups, late = Wakeups(loop), []
    done = asyncio.Event()
    for n in range(100):
        when = loop.time() + n * 0.0017
        wakeups.at(when, lambda when=when: late.append(loop.time() - when))  # type: ignore[misc]
    wakeups.at(loop.time() + 0.2, done.set)
    await done.wait()
    assert len(late) == 100
    assert min(late) > -SLOT_S / 2
    assert sorted(late)[50] < 2 * SLOT_S


async def test_an_earlier_wish_goes_first_and_a_forgotten_one_never() -> None:
    loop = asyncio.get_running_loop()
    wakeups, woken = Wakeups(loop), []
    done = asyncio.Event()

    def late() -> None:
        woken.append("late")
        done.set()

    wakeups.at(loop.time() + 0.08, late)

    def forgotten() -> None:
        woken.append("forgotten")

    wakeups.forget(wakeups.at(loop.time() + 0.05, forgotten), forgotten)
    wakeups.at(loop.time() + 0.02, lambda: woken.append("early"))
    await done.wait()
    assert woken == ["early", "late"]


async def test_one_call_that_breaks_takes_no_other_with_it() -> None:
    loop = asyncio.get_running_loop()
    told: list[str] = []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))
    wakeups, done, when = Wakeups(loop), asyncio.Event(), loop.time() + 0.01

    def breaks() -> None:
        raise ZeroDivisionError

    wakeups.at(when, breaks)
    wakeups.at(when, done.set)
    await asyncio.wait_for(done.wait(), 2)
    assert told == ["a call could not be woken"]


def test_one_who_asks_for_the_moment_that_is_now_comes_round_again_and_time_goes_on() -> None:
    async def ask() -> int:
        loop, times = asyncio.get_running_loop(), 0
        began, over = loop.time(), asyncio.Event()

        def again() -> None:
            nonlocal times
            times += 1
            if loop.time() >= began + 1:
                over.set()
            else:
                of_this_loop().at(loop.time(), again)

        again()
        await over.wait()
        return times

    assert virtual.run(ask()) <= 102
