"""Threads that write in the same moment write together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from calls.together import Together
from tests.builders import at_once

MOST, ROOM = 5, 8


class Shelf:
    """What was written, batch by batch. The first write takes until `open` is set."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun, self.open = threading.Event(), threading.Event()

    def write(self, batch: Sequence[str]) -> None:
        self.begun.set()
        assert self.open.wait(10)
        for item in batch:
            if item.startswith("poison"):
                raise ValueError(item)
            if item == "exit":
                raise SystemExit
            if item == "away":
                raise OSError(item)
        self.batches.append(list(batch))


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def together(shelf: Shelf) -> Together[str]:
    return Together(write=shelf.write, is_away=lambda problem: isinstance(problem, OSError), most=MOST, room=ROOM)


def crowd(together: Together[str], shelf: Shelf, items: Sequence[str]) -> dict[str, BaseException | None]:
    """What became of each item of a crowd that came while the first was being written."""
    became: dict[str, BaseException | None] = {}

    def write(item: str) -> None:
        assert shelf.begun.wait(10)
        try:
            together.write(item, within_s=10)
            became[item] = None
        except BaseException as problem:
            became[item] = problem

    def open_when_all_wait() -> None:
        until = time.monotonic() + 10
        while together.waiting < len(items) and time.monotonic() < until:
            time.sleep(0.001)
        shelf.open.set()

    jobs: list[Callable[[], None]] = [partial(together.write, "first", within_s=10), open_when_all_wait]
    at_once(jobs + [partial(write, item) for item in items])
    return became


def test_a_crowd_is_written_in_a_few_batches_in_its_order_each_thing_once(together: Together[str], shelf: Shelf) -> None:
    items = [f"item {number}" for number in range(8)]
    assert crowd(together, shelf, items) == dict.fromkeys(items)
    assert shelf.batches[0] == ["first"]
    assert [len(batch) for batch in shelf.batches[1:]] == [MOST, 3]
    assert sorted(item for batch in shelf.batches[1:] for item in batch) == sorted(items)


def test_what_cannot_be_written_spoils_nothing_of_the_others(together: Together[str], shelf: Shelf) -> None:
    became = crowd(together, shelf, ["one", "poison", "two"])
    assert {item for item, problem in became.items() if problem} == {"poison"}
    assert isinstance(became["poison"], ValueError)
    assert sorted(item for batch in shelf.batches for item in batch) == ["first", "one", "two"]


def test_a_database_that_is_away_is_asked_once_for_all_and_everybody_is_told(together: Together[str], shelf: Shelf) -> None:
    became = crowd(together, shelf, ["one", "away", "two"])
    assert all(isinstance(problem, OSError) for problem in became.values())
    assert shelf.batches == [["first"]]


def test_who_waits_too_long_is_told_and_what_it_brought_waits_no_more(together: Together[str], shelf: Shelf) -> None:
    def impatient() -> None:
        shelf.begun.wait(10)
        with pytest.raises(TimeoutError):
            together.write("late", within_s=0.01)
        assert together.waiting == 0
        shelf.open.set()

    jobs: list[Callable[[], None]] = [partial(together.write, "first", within_s=10), impatient]
    at_once(jobs)
    together.write("next", within_s=10)
    assert shelf.batches == [["first"], ["next"]]


def test_what_finds_no_room_is_refused_at_once_and_counted(together: Together[str], shelf: Shelf) -> None:
    def one_too_many() -> None:
        until = time.monotonic() + 10
        while together.waiting < ROOM and time.monotonic() < until:
            time.sleep(0.001)
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="Too many"):
            together.write("one too many", within_s=10)
        assert time.monotonic() - began < 5
        shelf.open.set()

    def after_the_first(item: str) -> None:
        shelf.begun.wait(10)
        together.write(item, within_s=10)

    items = [f"item {number}" for number in range(ROOM)]
    jobs: list[Callable[[], None]] = [partial(together.write, "first", within_s=10), one_too_many]
    at_once(jobs + [partial(after_the_first, item) for item in items])
    assert sorted(item for batch in shelf.batches for item in batch) == sorted(["first", *items])
    assert together.refused == 1


def test_a_thread_that_is_ended_while_it_writes_for_all_leaves_nobody_waiting(together: Together[str], shelf: Shelf) -> None:
    became = crowd(together, shelf, ["one", "exit"])
    assert sorted(type(problem).__name__ for problem in became.values()) == ["SystemExit", "TimeoutError"]
