"""What is to happen by when, unless something happens before that. Pure: times are seconds of a monotonic clock."""

from __future__ import annotations

from bridge.moments import NEVER


class Agenda:
    """Each thing is on it once; what is put again is moved. `at` is when the first is due."""

    def __init__(self, **when: float) -> None:
        self._when = when
        self._settle()

    def __contains__(self, what: str) -> bool:
        return what in self._when

    def put(self, what: str, at: float) -> None:
        self._when[what] = at
        self._settle()

    def put_off(self, what: str, at: float) -> None:
        """Not before `at`."""
        self.put(what, max(at, self._when.get(what, 0.0)))

    def strike(self, what: str) -> bool:
        """True when it was on it."""
        if self._when.pop(what, None) is None:
            return False
        self._settle()
        return True

    def clear(self) -> None:
        self._when.clear()
        self.at = NEVER

    def due(self, now: float) -> list[str]:
        """In the order in which they were put."""
        return [what for what, at in self._when.items() if at <= now]

    def _settle(self) -> None:
        self.at = min(self._when.values(), default=NEVER)
