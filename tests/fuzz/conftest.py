"""How many bad cases a door gets, and which: FUZZ_CASES of them from FUZZ_SEED (`make fuzz CASES=100000 SEED=7`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from bridge.sandbox.hostile import Hostile

CASES = int(os.environ.get("FUZZ_CASES") or 300)
SEED = int(os.environ.get("FUZZ_SEED") or 1)
Cases = Callable[..., Iterator[Hostile]]


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> Iterator[Cases]:
    """The cases of a door. `share` is the part of CASES a dear one gets. A failure says how to have its case again."""
    at: list[str] = []

    def of(door: str, *, share: float = 1.0) -> Iterator[Hostile]:
        for number in range(max(1, round(CASES * share))):
            at[:] = [f"door {door}, case {number}, FUZZ_SEED={SEED}"]
            yield Hostile(SEED, door, number)
        at.clear()

    yield of
    if at:
        print(f"stopped at {at[0]}")  # noqa: T201
