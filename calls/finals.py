"""Which final lines say nothing new. Pure, and decided by the set of lines: the order they came in plays no part.

One transcriber tells a turn in pieces ("I already" + "tried that"): each piece is a line. Another tells the whole turn so
far again ("I already", "I already tried that"): the longest stands for all, as long as nobody answered in between. A
vendor that repeats itself tells the same words at nearly the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from calls.marks import MARK
from calls.models import Role
from calls.spoken_numbers import tells_any

NEARLY_MS = 300  # nobody says the same words twice in less
SAME_TURN_MS = 20_000  # a transcriber may wait 10 s for the end of a turn, and begin again


@dataclass(frozen=True, slots=True)
class Final:
    """A line as it is compared; `ms` is the vendor's time."""

    pk: int
    role: str
    ms: int
    words: tuple[str, ...]


def retold(finals: Sequence[Final]) -> set[int]:
    """Keys of the lines another one has the words of. `finals`: lines of one Vapi session in their order, (ms, pk)."""
    echoes = _echoes(finals)
    spoken = [final for final in finals if final.pk not in echoes]
    return echoes | {first.pk for first, then in pairwise(spoken) if _grew_into(first, then)}


def _echoes(finals: Sequence[Final]) -> set[int]:
    """The same words of the same speaker a moment after the first time."""
    echoes: set[int] = set()
    said: dict[tuple[str, tuple[str, ...]], int] = {}
    for final in finals:
        key = final.role, final.words
        if key in said and final.ms - said[key] <= NEARLY_MS:
            echoes.add(final.pk)
        else:
            said[key] = final.ms
    return echoes


def _grew_into(first: Final, then: Final) -> bool:
    """Only callers are transcribed; the agent's words are known."""
    return first.role == then.role == Role.USER and then.ms - first.ms <= SAME_TURN_MS and _begins(first.words, then.words)


def _begins(words: tuple[str, ...], grown: tuple[str, ...]) -> bool:
    """Whether a line goes on where another one ended; of a number that was left out, the beginning may stand there still."""
    same = next((place for place, (one, other) in enumerate(zip(words, grown, strict=False)) if one != other), len(words))
    if same == len(words) <= len(grown):
        return 0 < same < len(grown) or (same > 0 and MARK.fullmatch(words[-1]) is not None)
    return same < len(grown) and MARK.fullmatch(grown[same]) is not None and all(map(tells_any, words[same:]))
