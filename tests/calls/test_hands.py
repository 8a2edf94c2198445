"""Work that nobody waits for has so much room, and what finds none is not lost unseen."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from calls.hands import Hands

AT_ONCE, ROOM = 2, 3


@pytest.fixture
def hands() -> Iterator[Hands]:
    made = Hands(AT_ONCE, room=ROOM, name="hands")
    yield made
    made.close()


def test_what_finds_no_room_is_refused_and_counted_and_taken_when_others_are_done(hands: Hands) -> None:
    gate, done = threading.Event(), list[str]()
    taken = [hands.take(gate.wait, 10) for _ in range(AT_ONCE + ROOM)]
    assert None not in taken
    assert hands.take(done.append, "too many") is None
    assert hands.refused == 1
    gate.set()
    assert [each.result(10) for each in taken if each is not None] == [True] * (AT_ONCE + ROOM)
    again = hands.take(done.append, "again")
    assert again is not None
    again.result(10)
    assert (done, hands.refused) == (["again"], 1)


def test_work_that_breaks_gives_its_place_back(hands: Hands) -> None:
    for _ in range(2 * (AT_ONCE + ROOM)):
        broken = hands.take(int, "no number")
        assert broken is not None
        assert isinstance(broken.exception(10), ValueError)
    assert hands.refused == 0
