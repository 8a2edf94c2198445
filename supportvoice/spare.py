"""Whether this process could open a few more files. A call needs several, and one that cannot be opened costs its caller the agent.

Who has none to spare accepts nothing new, so that those beside it do. What nobody took after a while is accepted all the same, and
refused by the system: then Twilio asks the number's fallback, and nobody waits for ever.

Pure but for `can_open`: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable

FEWEST = 16
LONGEST_S = 5.0


def can_open(count: int, *, like: int) -> bool:
    """Whether so many more descriptors are to be had; `like` is an open one, which is copied for it."""
    opened: list[int] = []
    try:
        for _ in range(count):
            opened.append(os.dup(like))
    except OSError:
        return False
    finally:
        for each in opened:
            os.close(each)
    return True


class Spare:
    """`has_enough` says whether there are `FEWEST` more."""

    def __init__(self, has_enough: Callable[[], bool]) -> None:
        self._has_enough = has_enough
        self._aside_since: float | None = None

    def accepts(self, now: float) -> bool:
        """To be asked again and again: what is new may come here."""
        if self._has_enough():
            self._aside_since = None
        elif self._aside_since is None:
            self._aside_since = now
        elif now - self._aside_since >= LONGEST_S:
            self._aside_since = None
        return self._aside_since is None
