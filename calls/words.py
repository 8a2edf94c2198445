"""The words of a text as they are compared: without case, punctuation or spaces. Pure.

Two tellings of the same speech differ in all of these. A mark of what was left out is one word. Writing systems without
spaces are compared sign by sign.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from calls.marks import MARK

SPACELESS = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # Thai, Lao, Japanese, Chinese
WORD = re.compile(rf"{MARK.pattern}|[^\W_]+(?:['’][^\W_]+)*")
SIGN_OR_WORD = re.compile(rf"{MARK.pattern}|[{SPACELESS}]|(?:(?![{SPACELESS}])[^\W_])+(?:['’](?:(?![{SPACELESS}])[^\W_])+)*")


class Token(NamedTuple):
    """One word, and where it stands in its text."""

    word: str
    start: int
    end: int


def tokens(text: str) -> list[Token]:
    return [Token(_compared(found[0]), found.start(), found.end()) for found in _pattern(text).finditer(text)]


def words(text: str) -> tuple[str, ...]:
    """The same without their places, in a third of the time."""
    return tuple(map(_compared, _pattern(text).findall(text)))


def _compared(word: str) -> str:
    return word.casefold().replace("’", "'")


def _pattern(text: str) -> re.Pattern[str]:
    return WORD if text.isascii() else SIGN_OR_WORD  # the usual case is five times as fast
