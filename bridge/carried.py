"""The streams that one process carries, and the word to them that it wants to leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Carried:
    """Each stream says how it is asked to go on elsewhere; it is asked once."""

    def __init__(self) -> None:
        self._not_asked: list[Callable[[], None]] = []

    @contextmanager
    def during(self, hand_on: Callable[[], None]) -> Iterator[None]:
        self._not_asked.append(hand_on)
        try:
            yield
        finally:
            with suppress(ValueError):
                self._not_asked.remove(hand_on)

    def hand_on_next(self) -> bool:
        """Ask the one that has been here longest. False when there is nobody left to ask."""
        if not self._not_asked:
            return False
        self._not_asked.pop(0)()
        return True
