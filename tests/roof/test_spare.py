"""Who has no descriptors to spare steps aside, and for how long."""

from __future__ import annotations

import os
import resource

from supportvoice.spare import LONGEST_S, Spare, can_open


def test_nobody_steps_aside_who_has_enough() -> None:
    spare = Spare(lambda: True)
    assert all(spare.accepts(now) for now in (0.0, 100.0, 1000.0))


def test_who_has_too_few_steps_aside_and_looks_for_those_nobody_took_once_in_a_while() -> None:
    spare = Spare(lambda: False)
    seen = [spare.accepts(tenth / 10) for tenth in range(121)]
    assert [tenth for tenth, accepts in enumerate(seen) if accepts] == [LONGEST_S * 10, LONGEST_S * 20 + 1]


def test_who_has_enough_again_is_back_at_once() -> None:
    few = [True]
    spare = Spare(lambda: not few)
    assert not spare.accepts(1.0)
    few.clear()
    assert spare.accepts(1.1)
    few.append(True)
    assert not spare.accepts(1.2)


def test_what_was_opened_to_look_is_closed_again() -> None:
    like = os.open(os.devnull, os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(like)  # a limit is one of numbers: those below this one are all taken
    os.close(lowest_free)
    try:
        assert can_open(16, like=like)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
        assert not can_open(16, like=like)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(like)
