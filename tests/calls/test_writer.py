"""The writer never lets its caller wait, whatever the database does, and counts what became of everything."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from calls import no_room
from calls.writer import BoundedWriter


class Away(Exception):
    """The database is not there."""


class Store:
    """Rows in memory; `open` lets writes through, `problem` makes them fail."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.batches: list[int] = []
        self.spilled: list[int] = []
        self.refused: list[int] = []
        self.idled = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.problem: Callable[[Sequence[int]], Exception | None] = lambda batch: None

    def write(self, batch: Sequence[int]) -> None:
        self.open.wait(10)
        if (problem := self.problem(batch)) is not None:
            raise problem
        self.rows += batch
        self.batches.append(len(batch))

    def spill(self, batch: Sequence[int]) -> None:
        self.spilled += batch

    def refuse(self, batch: Sequence[int]) -> None:
        self.refused += batch


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def writer(store: Store) -> Iterator[BoundedWriter[int]]:
    bounded = BoundedWriter(
        write=store.write,
        spill=store.spill,
        refuse=store.refuse,
        is_away=lambda problem: isinstance(problem, Away),
        idle=store.idled.set,
        limit=100,
        batch=20,
        patience_s=0.2,
        idle_after_s=0.05,
    )
    yield bounded
    store.open.set()
    assert bounded.stop()


def test_everything_put_is_written_in_order(writer: BoundedWriter[int], store: Store) -> None:
    for number in range(90):
        assert writer.put(number)
    writer.stop()
    assert store.rows == list(range(90))
    assert writer.counts.written == 90


def test_what_waits_is_written_in_batches(writer: BoundedWriter[int], store: Store) -> None:
    store.open.clear()
    for number in range(61):
        writer.put(number)
    store.open.set()
    writer.stop()
    assert store.rows == list(range(61))
    assert max(store.batches) == 20
    assert len(store.batches) <= 5


def test_a_stuck_database_costs_the_caller_nothing_and_the_queue_its_room(writer: BoundedWriter[int], store: Store) -> None:
    store.open.clear()
    started = time.monotonic()
    taken = [writer.put(number) for number in range(1000)]
    assert time.monotonic() - started < 0.5
    assert 100 <= taken.count(True) <= 121  # the queue, and the batch in hand
    assert writer.counts.dropped == taken.count(False)
    assert writer.put(1, urgent=True)


def test_what_finds_no_room_is_said_in_the_log_at_once_and_in_all(
    writer: BoundedWriter[int], store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A crowd of them is two lines, not a thousand: the first, and the rest once the thread is at work again."""
    store.open.clear()
    taken = [writer.put(number) for number in range(1000)]
    assert [vars(record)["count"] for record in caplog.records if "no room" in record.message] == [1]
    monkeypatch.setattr(no_room, "EVERY_S", 0.0)  # a second has passed
    store.open.set()
    writer.stop()
    counts = [vars(record)["count"] for record in caplog.records if "no room" in record.message]
    assert counts == [1, taken.count(False) - 1]


def test_an_absence_shorter_than_our_patience_loses_nothing(writer: BoundedWriter[int], store: Store) -> None:
    failures = iter([Away(), Away(), None])
    store.problem = lambda batch: next(failures, None)
    writer.put(7)
    writer.stop(within_s=0)  # asked to go while it is still trying: see below
    writer.stop()
    assert store.rows + store.spilled == [7]


def test_a_database_that_stays_away_is_given_up_and_the_rows_go_to_the_spill(writer: BoundedWriter[int], store: Store) -> None:
    store.problem = lambda batch: Away()
    for number in range(30):
        writer.put(number)
    wait_for(lambda: len(store.spilled) == 30)
    assert writer.counts.spilled == 30
    store.problem = lambda batch: None
    writer.put(30)
    writer.stop()
    assert store.rows == [30]


def test_one_row_the_database_will_not_have_takes_no_other_with_it(writer: BoundedWriter[int], store: Store) -> None:
    store.open.clear()
    store.problem = lambda batch: ValueError() if 13 in batch else None
    for number in range(20):
        writer.put(number)
    store.open.set()
    writer.stop()
    assert sorted(store.rows) == [number for number in range(20) if number != 13]
    assert (writer.counts.refused, store.refused, store.spilled) == (1, [13], [])


@pytest.mark.parametrize("name", ["spill", "refuse", "idle"])
def test_what_others_do_in_the_thread_may_break_and_what_comes_after_is_written_all_the_same(store: Store, name: str) -> None:
    def breaks(*told: Any) -> None:
        broken.set()
        raise ZeroDivisionError

    broken = threading.Event()
    parts: dict[str, Any] = {"spill": store.spill, "refuse": store.refuse, "idle": store.idled.set, name: breaks}
    bounded = BoundedWriter(
        write=store.write, is_away=lambda problem: isinstance(problem, Away), patience_s=0.0, idle_after_s=0.05, gather_s=0.01, **parts
    )
    problems = {"spill": Away(), "refuse": ValueError()}
    store.problem = lambda batch: problems.get(name) if 13 in batch else None
    assert bounded.put(13)
    assert broken.wait(5)
    assert all(bounded.put(number) for number in range(3))
    wait_for(lambda: store.rows[-3:] == [0, 1, 2])
    assert bounded.stop()
    became = {"spill": bounded.counts.lost, "refuse": bounded.counts.refused, "idle": bounded.counts.written - 3}
    assert (became[name], bounded.counts.spilled) == (1, 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_is_gone_all_the_same_is_followed_by_another_one(store: Store) -> None:
    def exits(batch: Sequence[int]) -> None:
        if 13 in batch:
            raise SystemExit
        store.write(batch)

    def is_gone() -> bool:
        return bounded._thread is not None and not bounded._thread.is_alive()

    bounded = BoundedWriter(write=exits, spill=store.spill, is_away=lambda _: False, gather_s=0.01)
    bounded.put(13)
    wait_for(is_gone)
    assert bounded.put(14)
    wait_for(lambda: store.rows == [14])
    assert bounded.stop()
    assert bounded.put(15)
    assert is_gone()  # it was told to end


def test_an_idle_writer_gives_its_connection_back(writer: BoundedWriter[int], store: Store) -> None:
    writer.put(1)
    assert store.idled.wait(5)


def wait_for(truth: Callable[[], bool], within_s: float = 5.0) -> None:
    until = time.monotonic() + within_s
    while not truth():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_what_comes_within_a_moment_is_one_batch_and_an_urgent_thing_ends_the_moment(store: Store) -> None:
    gathering = BoundedWriter(
        write=store.write, spill=store.spill, is_away=lambda _: False, idle=store.idled.set, idle_after_s=0.05, gather_s=60.0
    )
    for number in range(10):
        gathering.put(number)
    assert not store.idled.wait(0.2)
    gathering.put(10, urgent=True)
    assert store.idled.wait(10)
    assert store.batches == [11]
    assert gathering.stop()
