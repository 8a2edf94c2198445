"""How much of what the agent said was heard, in words. Pure: ms of one turn's sound, and words as the caller would count them.

Some voices tell when each word is spoken (`assistant.speechStarted` with a `timing`); then a word was heard when its middle
was. For the others speech is taken to be as even as it is: a word lasts as long as it is written, and after a comma or a full
stop the voice takes breath.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

BREATHS = {",": 3, ";": 3, ":": 3, ".": 6, "?": 6, "!": 6}  # in letters, which last some 65 ms
MOST_WORDS = 5000  # of one turn


def even_words(words: Sequence[str], *, said_ms: int, heard_ms: int) -> int:
    """How many of the words that were said in `said_ms` were heard in the first `heard_ms` of it."""
    if said_ms <= 0 or heard_ms >= said_ms:
        return len(words)
    letters = [len(word) + 1 for word in words]
    lasts = [length + BREATHS.get(word[-1], 0) for length, word in zip(letters, words, strict=True)]
    lasts[-1:] = letters[-1:]  # nobody waits for the breath after the last one
    begins = accumulate(lasts, initial=0)
    until = sum(lasts) * max(0, heard_ms) / said_ms
    return sum(begin + length / 2 <= until for begin, length in zip(begins, letters, strict=False))


class TimedWords:
    """The words of the agent's present turn with the moment each is half spoken, as far as the voice tells."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._middles: list[float] = []
        self._until = 0.0  # where the newest piece of speech ends
        self._last: Mapping[str, Any] | None = None
        self._speech = ""
        self._over = False

    def __bool__(self) -> bool:
        return bool(self._words)

    def turn_over(self) -> None:
        """No more is told of this turn; but it may be cut, as long as it has not been heard."""
        self._over = True

    def next_turn(self) -> None:
        """The next turn begins: with its first words, or with the news of it, whichever comes first."""
        if self._over:
            self._words, self._middles, self._until, self._last, self._over = [], [], 0.0, None, False

    def told(self, timing: Mapping[str, Any], speech: str = "") -> None:
        """One `timing`, of either kind. What is no timing, and one that is told again, changes nothing.

        `speech` says of which one, if the vendor does: some words of a turn are told after its end, and begin no other one.
        """
        if not speech or speech != self._speech:
            self.next_turn()
        self._speech = speech
        if timing == self._last or len(self._words) >= MOST_WORDS:
            return
        self._last = timing
        pieces = _pieces(timing)
        if not pieces:
            return
        offset = self._until if pieces[0][1] < self._until else 0.0  # of its own piece, or of the whole turn
        for word, begin, end in _joined(pieces):
            self._words.append(word)
            self._middles.append(offset + (begin + end) / 2)
        self._until = offset + max(pieces[-1][2], _number(timing.get("segmentDurationMs")))

    def heard(self, heard_ms: int) -> list[str]:
        """The words of which at least half was in the first `heard_ms` of the turn."""
        return self._words[: sum(middle <= heard_ms for middle in self._middles)]


Piece = tuple[str, float, float]  # a word, a part of one or a space; its begin and its end in ms


def _pieces(timing: Mapping[str, Any]) -> list[Piece]:
    match timing:
        case {"type": "word-alignment", "words": list(texts), "wordsStartTimesMs": list(begins), "wordsEndTimesMs": list(ends)}:
            rows = zip(texts, begins, ends, strict=False)
            return [(str(text), _number(begin), _number(end)) for text, begin, end in rows]
        case {"type": "word-progress", "words": list(words)}:
            told = [word for word in words if isinstance(word, dict)]
            return [(f"{word.get('word', '')} ", _number(word.get("startMs")), _number(word.get("endMs"))) for word in told]
    return []


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Whole words: what stands between two spaces."""
    words: list[Piece] = []
    open_word = False
    for text, begin, end in pieces:
        if text.strip() and open_word and not text[0].isspace():
            before, began, _ = words.pop()
            words.append((before + text.strip(), began, end))
        elif text.strip():
            words.append((text.strip(), begin, end))
        open_word = bool(text.strip()) and not text[-1].isspace()
    return words


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
