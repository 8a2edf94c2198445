"""How much of what the agent said reached the caller's ear, word by word. Pure.

The bridge knows the heard share of a turn in milliseconds; speech is even enough for the same share of its words.
"""

from __future__ import annotations

from collections.abc import Sequence

from calls.models import Heard


def share_out(lines: Sequence[str], *, said_ms: int, heard_ms: int) -> list[tuple[Heard, str]]:
    """For each line of one turn, in the order spoken: how it was heard, and the words heard when it was in part."""
    words = [line.split() for line in lines]
    left = heard_words(sum(map(len, words)), said_ms=said_ms, heard_ms=heard_ms)
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


def heard_words(total: int, *, said_ms: int, heard_ms: int) -> int:
    """Whole words only: a word of which a part was heard counts when at least half of it was."""
    if said_ms <= 0 or heard_ms >= said_ms:
        return total
    return min(total, int(total * max(0, heard_ms) / said_ms + 0.5))
