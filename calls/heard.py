"""How much of what the agent said reached the caller's ear, word by word. Pure.

The bridge knows the heard share of a turn in milliseconds, and in words when the voice tells their times.
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.heard import even_words
from calls.models import Heard


def share_out(lines: Sequence[str], *, said_ms: int, heard_ms: int, heard_words: int | None = None) -> list[tuple[Heard, str]]:
    """For each line of one turn, in the order spoken: how it was heard, and the words heard when it was in part.

    `heard_words`: how many were heard, if that is known; else it is judged by the share of the time.
    """
    words = [line.split() for line in lines]
    left = even_words([word for line in words for word in line], said_ms=said_ms, heard_ms=heard_ms) if heard_words is None else heard_words
    out: list[tuple[Heard, str]] = []
    for line in words:
        if left >= len(line):
            out.append((Heard.FULL, ""))
        elif left > 0:
            out.append((Heard.PART, " ".join(line[:left])))
        else:
            out.append((Heard.NONE, ""))
        left = max(0, left - len(line))
    return out
