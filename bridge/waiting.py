"""A thread that waits for somebody else's server gives back what it was lent, and what others of its process cannot do without.

What that is the bridge does not know. Whoever lends something to threads says at the start of the process how it is given back.
"""

from __future__ import annotations

from collections.abc import Callable


def _nothing_is_lent() -> None:
    pass


give_back: Callable[[], None] = _nothing_is_lent  # called in the thread, right before it waits
