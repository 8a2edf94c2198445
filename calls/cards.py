"""Which groups of a told number are a card's. Pure, and linear.

A card number has 13 to 19 digits and Luhn's check. A number that is all of one is taken for a card whoever issued it;
among other digits, or told over several lines, only one that begins like an issuer's and has its length: a tenth of all
numbers passes the check by chance. Nobody counts on a card ("one, two, three, …"), and none begins with a 0 or a +.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from calls.spoken_numbers import Number, Run

SHORTEST, LONGEST = 13, 19
MOST_BESIDE = 10  # digits told right after a card number: when it ends, and its code
DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)  # the sum of the digits of twice a digit
ISSUERS = (
    (re.compile(r"4"), (16, 19)),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720|9792"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"30[0-5]|3095|36|3[89]"), (14, 16)),
    (re.compile(r"352[89]|35[3-8]|220[0-4]"), (16, 17, 18, 19)),
    (re.compile(r"5[0678]|6"), (16, 17, 18, 19)),
)
LENGTHS = {
    first: max((lengths for issuer, lengths in ISSUERS if issuer.match(first)), key=len, default=())
    for first in (f"{number:04}" for number in range(10_000))
}
A_MOMENT = re.compile(r"1[0-9]{12}")  # milliseconds since 1970
LONGEST_PHONE = 15


def of(run: Run, *, alone: bool) -> Iterator[tuple[int, int]]:
    """Where the run's card numbers are, as (first group, one past the last). `alone`: nothing but this run may be the number."""
    numbers = run.numbers
    begin = 0
    for first, last in _issued(run):
        if alone and begin < first and _is_card(numbers[begin:first], run, at_start=begin == 0):
            yield begin, first
        yield first, last
        begin = last
    if begin < len(numbers) and alone and _is_card(numbers[begin:], run, at_start=begin == 0):
        yield begin, len(numbers)


def is_card(digits: str) -> bool:
    """Of a number without a text around it, which may be a moment or an amount: only what an issuer would give out."""
    return len(digits) in LENGTHS.get(digits[:4], ()) and _passes(digits)


def _is_card(numbers: Sequence[Number], run: Run, *, at_start: bool) -> bool:
    """Whether all of these groups are one card number."""
    if len(numbers) > LONGEST or not run.plain:
        return False
    digits = "".join(number.digits for number in numbers)
    if not SHORTEST <= len(digits) <= LONGEST or digits.startswith("0") or A_MOMENT.fullmatch(digits):
        return False
    if at_start and run.plus and len(digits) <= LONGEST_PHONE:
        return False
    return _passes(digits) and not counts(numbers)


def _issued(run: Run) -> Iterator[tuple[int, int]]:
    """What belongs to card numbers of known issuers. Where two may be meant, both are left out: one of them is by chance."""
    begins = [0, *accumulate(len(number.digits) for number in run.numbers)]
    found: list[list[int]] = []
    for start, end in _candidates(run, begins):
        if found and start < found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([start, end])
    for (start, end), (following, _) in pairwise([*found, [len(run.numbers), 0]]):
        yield start, following if begins[following] - begins[end] <= MOST_BESIDE else end


def _candidates(run: Run, begins: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Each stretch of whole groups that is a card number, from one group to another's end."""
    digits = run.digits
    if len(digits) < SHORTEST:
        return
    ends = {offset: place for place, offset in enumerate(begins)}
    even, odd = _sums(digits)
    for place, start in enumerate(begins[:-1]):
        for length in LENGTHS.get(digits[start : start + 4], ()):
            end = start + length
            sums = even if end % 2 == 0 else odd
            if end not in ends or (sums[end] - sums[start]) % 10 or (place == 0 and run.plus and end <= LONGEST_PHONE):
                continue
            if not counts(run.numbers[place : ends[end]]):
                yield place, ends[end]


def _sums(digits: str) -> tuple[list[int], list[int]]:
    """Sums of all digits up to each place, with every other one doubled: at even places, and at odd ones."""
    plain = list(map(int, digits))
    twice = [DOUBLED[digit] for digit in plain]
    even = [*plain]
    even[::2] = twice[::2]
    odd = [*plain]
    odd[1::2] = twice[1::2]
    return [0, *accumulate(even)], [0, *accumulate(odd)]


def _passes(digits: str) -> bool:
    """Luhn's check."""
    return (sum(map(int, digits[-1::-2])) + sum(DOUBLED[int(digit)] for digit in digits[-2::-2])) % 10 == 0


def counts(numbers: Sequence[Number]) -> bool:
    """Each group is as much more than the one before: somebody counts."""
    steps = {int(then.digits) - int(number.digits) for number, then in pairwise(numbers)}
    return len(numbers) > 3 and len(steps) == 1 and steps != {0}
