"""Where a text tells an e-mail address, written or said: "alex dot smith at example dot com". Pure, and linear."""

from __future__ import annotations

import re
from collections.abc import Iterator

from calls.spoken_numbers import VALUES

AT = {"@", "at", "arroba", "klammeraffe"}
DOT = {".", "dot", "point", "punkt", "punto", "ponto"}
JOINS = DOT | {"underscore", "dash", "hyphen", "minus", "plus", "_", "-", "+"}
TOKEN = re.compile(r"[@._+-]|[^\W_]+(?:['’._+-][^\W_]+)*")
ENDING = re.compile(r"[^\W\d_]{2,24}(?:\.[^\W\d_]{2,24})*")  # com, co.uk
HOST = re.compile(r"[^\W_][\w-]*(?:\.[\w-]+)*\.[^\W\d_]{2,24}")
MAY_TELL = re.compile(r"@|\bat\b|\barroba\b|\bklammeraffe\b", re.IGNORECASE)
MOST_BEFORE = 40  # tokens of the part before the @
NAME_WORDS = 2  # "my company dot com"


def tells_any(text: str) -> bool:
    return MAY_TELL.search(text) is not None


def addresses(text: str) -> Iterator[tuple[int, int]]:
    """Where each address begins and ends."""
    tokens = list(TOKEN.finditer(text))
    words = [token[0].casefold() for token in tokens]
    free_from = 0
    for place, word in enumerate(words):
        if word in AT and place > free_from:
            last = _end_of_host(words, place + 1)
            if last:
                first = _beginning(words, place - 1, free_from)
                yield tokens[first].start(), tokens[last].end()
                free_from = last + 1


def _end_of_host(words: list[str], place: int) -> int:
    """The last token of a host that begins here; 0 when none does."""
    if words[place : place + 1] == ["sign"]:
        place += 1
    last = 0
    for start in range(place, min(place + NAME_WORDS, len(words))):
        if HOST.fullmatch(words[start]):
            last = start
        elif words[start] in JOINS or words[start] in AT:
            return 0
        elif not _goes_on(words, start):
            continue
        else:
            last = start + 2
        while _goes_on(words, last):
            last += 2
        return last
    return 0


def _goes_on(words: list[str], place: int) -> bool:
    return place + 2 < len(words) and words[place + 1] in DOT and ENDING.fullmatch(words[place + 2]) is not None


def _beginning(words: list[str], place: int, free_from: int) -> int:
    """The first token of the part before the @, whose last one is at `place`: joined by dots and dashes, or spelled."""
    least = max(free_from, place - MOST_BEFORE)
    while place > least:
        if words[place - 1] in JOINS and place - 2 >= least:
            place -= 2
        elif _is_spelled(words[place]) and (_is_spelled(words[place - 1]) or _is_number(words[place])):
            place -= 1
        else:
            break
    return place


def _is_spelled(word: str) -> bool:
    return len(word) == 1 or _is_number(word) or word in JOINS


def _is_number(word: str) -> bool:
    return word.isdigit() or (word in VALUES and len(word) > 1)
