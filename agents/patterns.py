"""Which `pattern` of a tool's parameters may be run against what a model made up. Pure.

A regular expression can take longer than the universe ("(a+)+$"), and while Python looks, nothing else in the process runs.
So a pattern is run only if the number of ways to match a text of `LONGEST_TEXT` characters is small whatever the text:
no repeated group, no look-around, no back-reference, and few repetitions of one character. Whoever needs more leaves the
question to the tool.
"""

from __future__ import annotations

import math
import re

LONGEST_PATTERN = 200
LONGEST_TEXT = 128  # characters; a longer one does not match
MOST_WAYS = LONGEST_TEXT**3  # some 20 ms at worst
PART = re.compile(
    r"(?P<escape>\\.)|(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<group>\((?:\?:)?(?!\?))|(?P<special>\(\?)|(?P<end>\))|(?P<or>\|)"
    r"|(?P<repeat>[*+?]|\{(?:[0-9]+(?:,[0-9]*)?|,[0-9]*)\})|(?P<one>.)",
    re.DOTALL,
)


def pattern_problem(pattern: str) -> str:
    """Why this pattern is not run, as one sentence; empty when it is."""
    if len(pattern) > LONGEST_PATTERN:
        return f"Keep a pattern within {LONGEST_PATTERN} characters."
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return "This pattern is not a regular expression."
    if _ways(pattern) > MOST_WAYS:
        return "This pattern could take too long: repeat no group, look neither ahead nor back, and use at most three of * and +."
    return ""


def _ways(pattern: str) -> float:
    """An upper bound of the ways to match; infinite for what is not looked into."""
    ways, before = 1.0 if pattern.startswith("^") else float(LONGEST_TEXT), ""
    for found in PART.finditer(pattern):
        kind, text = found.lastgroup or "", found[0]
        if kind == "special" or (kind == "escape" and text[1].isdigit() and text[1] != "0"):
            return math.inf
        if kind == "or":
            ways *= 2
        if kind == "repeat" and before != "repeat":  # a second one makes the first lazy or possessive: no more ways
            if before == "end" and text != "?":
                return math.inf
            ways *= _times(text)
        before = kind
    return ways


def _times(repeat: str) -> float:
    """How many lengths a repetition of one character can have."""
    if repeat in ("*", "+"):
        return LONGEST_TEXT
    if repeat == "?":
        return 2
    least, comma, most = repeat[1:-1].partition(",")
    if not comma:
        return 1
    return max(1, min(int(most or LONGEST_TEXT), LONGEST_TEXT) - min(int(least or 0), LONGEST_TEXT) + 1)
