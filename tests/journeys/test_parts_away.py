"""Each part of the real house is away, alone and with each other: before it, while it lasts and after it nobody who calls notices.

The database is not to be written, Valkey stands still, worker and beat are killed. `make outages SECONDS=600` keeps every one of
them, and every two, away for ten minutes, with one call after the other; `PARTS="database valkey"` those two.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import combinations

import pytest

from bridge.sandbox.script import PLAIN
from supportvoice.laboratory.ground import valkey_at
from tests.journeys.house import LONGEST_S, House
from tests.journeys.outage import nobody_can_write
from tests.journeys.test_demo import database as database
from tests.journeys.test_outages import BACK_WITHIN_S, spooled, whole_and_once
from tests.journeys.test_outages import lonely as lonely

AWAY_S = float(os.environ.get("OUTAGE_SECONDS", "20"))

pytestmark = [pytest.mark.journey, pytest.mark.load, pytest.mark.timeout(300 + 2 * AWAY_S)]


@contextmanager
def valkey_stands_still(house: House) -> Iterator[None]:
    stopped = valkey_at(house.stack.valkey_socket)
    assert stopped
    os.kill(stopped, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stopped, signal.SIGCONT)


@contextmanager
def killed(house: House, name: str) -> Iterator[None]:
    house.wait(house.stack.kill(name))
    try:
        yield
    finally:
        house.wait(house.stack.begin(name))


PARTS: Mapping[str, Callable[[House], AbstractContextManager[None]]] = {
    "database": lambda house: nobody_can_write(house.directory / "db.sqlite3"),
    "valkey": valkey_stands_still,
    "worker": lambda house: killed(house, "worker"),
    "beat": lambda house: killed(house, "beat"),
}
EVERY = [*((part,) for part in PARTS), *combinations(PARTS, 2)]
WANTED = [tuple(os.environ["PARTS"].split())] if os.environ.get("PARTS") else EVERY


@pytest.mark.parametrize("parts", WANTED, ids=" and ".join)
def test_calls_before_during_and_after_an_outage_are_whole_and_nobody_notices(lonely: House, parts: tuple[str, ...]) -> None:
    _, before = lonely.talk(PLAIN)
    with ExitStack() as away:
        for part in parts:
            away.enter_context(PARTS[part](lonely))
        began = time.monotonic()
        phones = [lonely.place(PLAIN).result(LONGEST_S)]
        while time.monotonic() - began < AWAY_S:
            phones.append(lonely.place(PLAIN).result(LONGEST_S))
        phones.append(before.result(LONGEST_S))
    phones.append(lonely.place(PLAIN).result(LONGEST_S))
    lonely.eventually(lambda: not spooled(lonely), within=BACK_WITHIN_S)
    print(f"{' and '.join(parts)} away for {AWAY_S:.0f} s: {len(phones)} calls")  # noqa: T201
    for phone in phones:
        whole_and_once(lonely, phone)
