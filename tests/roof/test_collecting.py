"""How often everything is looked at for what nobody uses any more."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from supportvoice import server
from supportvoice.collecting import FEW
from supportvoice.duty import Duty

THINGS = 400_000  # enough for Python to look at everything several times, left to itself


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


async def looks_at_everything(calls: int) -> int:
    """While so much that stays is made in a process that carries so many calls."""
    duty = Duty(streams=calls)
    await server.CallServer(server.configured(print), duty=duty, drain_s=1.0).on_tick(1)
    before = gc.get_stats()[2]["collections"]
    kept = [[each] for each in range(THINGS)]
    return gc.get_stats()[2]["collections"] - before if kept else 0


async def test_with_many_calls_on_the_line_nothing_looks_at_everything_and_with_few_it_does_again() -> None:
    gc.collect()
    assert await looks_at_everything(FEW + 1) == 0
    assert await looks_at_everything(FEW) > 0
