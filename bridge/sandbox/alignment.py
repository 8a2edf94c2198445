"""When each word of a speech is spoken, and how Vapi tells it for the voices that know: in pieces, at the pace of the sound.

The pieces are those of `assistant.speechStarted` for 11labs' voices (`timing.type` "word-alignment"): spaces are entries of
their own, and times begin anew with each piece.
"""

from __future__ import annotations

from collections.abc import Sequence

from bridge.sandbox.evidence import Message

Timed = tuple[str, int, int]  # a word, its begin and its end in ms of the speech
TELLING_VOICES = frozenset({"11labs"})
AHEAD_MS = 46  # words are told with the message that holds their beginning


def even_times(text: str, ms: int) -> list[Timed]:
    """The words of a text that lasts `ms`, each as long as it is written."""
    times: list[Timed] = []
    letters = 0
    for word in text.split():
        begin = letters * ms // (len(text) + 1)
        letters += len(word) + 1
        times.append((word, begin, letters * ms // (len(text) + 1)))
    return times


class Alignment:
    """One speech's words, each told once."""

    def __init__(self, times: Sequence[Timed]) -> None:
        self._left = list(times)
        self._told_until = 0

    def upto(self, ms: int) -> Message | None:
        """The timing of the words that begin by then; None when all of them were told."""
        piece = [word for word in self._left if word[1] <= ms + AHEAD_MS]
        if not piece:
            return None
        del self._left[: len(piece)]
        following = self._left[0][1] if self._left else piece[-1][2]
        words: list[str] = []
        begins: list[int] = []
        ends: list[int] = []
        until = self._told_until
        for place, (word, begin, end) in enumerate(piece):
            space_until = piece[place + 1][1] if place + 1 < len(piece) else following
            words += [word, " "]
            begins += [begin - until, end - until]
            ends += [end - until, space_until - until]
        self._told_until = following
        return {"type": "word-alignment", "words": words, "wordsStartTimesMs": begins, "wordsEndTimesMs": ends}
