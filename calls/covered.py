"""Which words of a second telling the first one does not have. Pure.

Two tellings of one speaker's words, cut and timed differently, are laid side by side in their order: as many equal words
as possible meet, no line of the first telling is torn apart without need, and of what is left to choose the times decide.
A word written otherwise in both ("five", "5") meets the one in its place. Words of the second telling that meet nothing
are missing in the first. A line of the first telling that has not one word of the second is another telling of what was said at
its time, and of nothing else: what was said before or after it is no less missing for that.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SKIP = 10**11  # a word that meets nothing
OTHERWISE = SKIP * 6 // 5  # two words that differ meet: dearer than one such word, cheaper than two
TEAR = 10**7  # a word between two words of one line of the first telling
NEAR_MS = 100_000  # beyond this, farther apart makes no difference
SAME_PLACE_MS = 10_000  # words that differ must be as near as this to stand for each other
TOLD_WITHIN_MS = 2_000  # after its words were over, a line that has none of the second telling's
NEVER = 1 << 60
CELLS = 4_000_000  # of one table, eight bytes each
BLOCKS = (150, 1000)  # words of the first telling in one table of a long one, tried in turn
WIDTH = 4  # times as many of the second
SURE = 0.6  # of a table's words met: what it says can be believed
BACK = 30  # words gone over again where two long tellings part

Pair = tuple[int, int, bool]  # index in the first telling, index in the second, equal


class Told(NamedTuple):
    """One word: of which line or turn it is, and when it was spoken, in ms."""

    word: str
    line: int
    ms: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Words `begin` to `end` (not included) of the second telling, all of one turn, are missing in the first.

    `before` and `after`: the words of the first telling that they stood between, as indices; None at its ends.
    """

    begin: int
    end: int
    before: int | None
    after: int | None


def gaps(first: Sequence[Told], second: Sequence[Told]) -> list[Gap]:
    """The words of `second` that `first` does not have, in their order."""
    if [told.word for told in first] == [told.word for told in second]:
        return []
    pairs = _align_block(first, second) if len(first) * len(second) <= CELLS else _align_long(first, second)
    pairs = _of_one_time(pairs, first, second)
    equal = [(other, one) for one, other, same in pairs if same]
    places = [other for other, _ in equal]
    found = {other: same for _, other, same in pairs}
    out: list[Gap] = []
    for _, group in groupby(range(len(second)), key=lambda index: (second[index].line, found.get(index, False))):
        stretch = list(group)
        left = [index for index in stretch if index not in found]
        after = bisect(places, stretch[-1])
        before_one = equal[after - 1][1] if after > 0 else None
        after_one = equal[after][1] if after < len(equal) else None
        otherwise_told = len(left) <= len(stretch) - len(left)
        torn = before_one is not None and after_one is not None and first[before_one].line == first[after_one].line
        if left and not otherwise_told and not torn:
            out += [Gap(begin, end, before_one, after_one) for begin, end in _runs(left)]
    return out


def _of_one_time(pairs: Sequence[Pair], first: Sequence[Told], second: Sequence[Told]) -> list[Pair]:
    """Without words that are taken for other ones of another time: those of a line that has no word of the second telling."""
    known = {first[one].line for one, _, same in pairs if same}
    lines, turns = _spans(first), _spans(second)

    def may_be_one(one: int, other: int) -> bool:
        (line_began, line_told), (turn_began, turn_over) = lines[first[one].line], turns[second[other].line]
        return turn_began <= line_told and line_began <= turn_over + TOLD_WITHIN_MS

    return [pair for pair in pairs if pair[2] or first[pair[0]].line in known or may_be_one(pair[0], pair[1])]


def _spans(telling: Sequence[Told]) -> dict[int, tuple[int, int]]:
    """When the first and the last word of each line were over."""
    spans: dict[int, tuple[int, int]] = {}
    for told in telling:
        spans[told.line] = (spans.get(told.line, (told.ms, 0))[0], told.ms)
    return spans


def _runs(indices: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbours in a row as (first, one past the last)."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        begin = runs.pop()[0] if runs and runs[-1][1] == index else index
        runs.append((begin, index + 1))
    return runs


def _align_block(first: Sequence[Told], second: Sequence[Told]) -> list[Pair]:
    """The cheapest way through the table of both, by dynamic programming, a row at a time."""
    ids = {word: number for number, word in enumerate({told.word for told in (*first, *second)})}
    theirs = np.array([ids[told.word] for told in second], dtype=np.int64)
    times = np.array([told.ms for told in second], dtype=np.int64)
    steps = np.arange(len(second) + 1, dtype=np.int64)
    costs = np.empty((len(first) + 1, len(second) + 1), dtype=np.int64)
    costs[0] = steps * SKIP
    meets = []
    for row, told in enumerate(first, start=1):
        meets.append(_meeting(ids[told.word], told.ms, theirs, times))
        best = costs[row - 1] + SKIP
        best[1:] = np.minimum(best[1:], costs[row - 1, :-1] + meets[-1])
        inside = row < len(first) and first[row].line == told.line
        skip = SKIP + (TEAR if inside else 0)
        costs[row] = np.minimum.accumulate(best - steps * skip) + steps * skip
    return _way_back(costs, meets, first, second)


def _meeting(word: int, ms: int, theirs: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """What it costs a word to meet each of the others."""
    apart = np.minimum(np.abs(times - ms), NEAR_MS)
    otherwise = np.where(apart <= SAME_PLACE_MS, OTHERWISE, NEVER)
    cost: NDArray[np.int64] = np.where(theirs == word, 0, otherwise) + apart // 100
    return cost


def _way_back(costs: NDArray[np.int64], meets: list[NDArray[np.int64]], first: Sequence[Told], second: Sequence[Told]) -> list[Pair]:
    pairs: list[Pair] = []
    row, column = len(first), len(second)
    while row and column:
        here = costs[row, column]
        if costs[row - 1, column - 1] + meets[row - 1][column - 1] == here:
            row, column = row - 1, column - 1
            pairs.append((row, column, first[row].word == second[column].word))
        elif costs[row - 1, column] + SKIP == here:
            row -= 1
        else:
            column -= 1
    return pairs[::-1]


def _align_long(first: Sequence[Told], second: Sequence[Told]) -> list[Pair]:
    """Too long for one table: equal words are taken as they come, and a table made only where the tellings part."""
    pairs: list[Pair] = []
    one = other = 0
    while one < len(first) and other < len(second):
        began = one
        while one < len(first) and other < len(second) and first[one].word == second[other].word:
            pairs.append((one, other, True))
            one, other = one + 1, other + 1
        if one == len(first) or other == len(second):
            break
        back = min(BACK, one - began)
        del pairs[len(pairs) - back :]
        one, other = one - back, other - back
        sure = _align_some(first, second, one, other)
        pairs += sure
        one, other = (sure[-1][0] + 1, sure[-1][1] + 1) if sure else (one, other + BLOCKS[-1])
    return pairs


def _align_some(first: Sequence[Told], second: Sequence[Told], one: int, other: int) -> list[Pair]:
    """The beginning of an alignment from here on; its far end is left to the next table, which sees more."""
    found: list[Pair] = []
    for block in BLOCKS:
        table = _align_block(first[one : one + block], second[other : other + block * WIDTH])
        found = [(one + left, other + right, equal) for left, right, equal in table if left < block * 3 // 4]
        if sum(equal for _, _, equal in found) >= SURE * min(block * 3 // 4, len(first) - one):
            break
    return found
