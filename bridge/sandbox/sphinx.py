"""Another ear: speech recognition by words (extra `voice`) instead of comparing waveforms with the clips.

It needs no identical audio, so it also understands a codec in between, or a person reading the lines. Its grammar is the
texts of the clips: it picks the likeliest of them, or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bridge.sandbox import sound
from bridge.sandbox.clips import Clip, spoken_by
from bridge.sandbox.ear import Ear, Final, Recogniser, Utterance

try:
    from pocketsphinx import Decoder
except ImportError:  # the extra `voice` is only needed to use this ear
    Decoder = None

SAID_AS = {"techflow": "T EH K F L OW"}  # words its dictionary lacks


class SphinxEar(Ear):
    """An Ear that hears words. It gives no Partial; unknown speech is what fits no text of the grammar."""

    def __init__(self, clips: Mapping[str, Clip]) -> None:
        """Raises RuntimeError without the extra `voice`."""
        if Decoder is None:
            raise RuntimeError("Recognising words needs the extra `voice`: pip install -r requirements/voice.lock.")
        super().__init__({})
        self._by_words = {_words(clip.text): clip for clip in clips.values()}
        self._decoder: Any = Decoder(samprate=16_000, loglevel="FATAL", jsgf=None, lm=None)
        for word, sounds in SAID_AS.items():
            self._decoder.add_word(word, sounds, False)
        known = [words for words in self._by_words if all(self._decoder.lookup_word(word) for word in words.split())]
        grammar = "#JSGF V1.0;\ngrammar lines;\npublic <line> = " + " | ".join(known) + ";\n"
        self._decoder.add_jsgf_string("lines", grammar)
        self._decoder.activate_search("lines")

    def _patience_ms(self) -> int:
        return 700

    def _recognise(self, at: float, found: list[Utterance]) -> None:
        """Nothing before the end: the words are found in the whole utterance."""

    def _last_look(self, at: float) -> None:
        return

    def _final(self, at: float) -> Final:
        spoken = sound.decode(bytes(self._audio)).astype(np.float64)
        twice = np.interp(np.arange(0, len(spoken), 0.5), np.arange(len(spoken)), spoken).astype(np.int16)
        self._decoder.start_utt()
        self._decoder.process_raw(twice.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        clip = self._by_words.get(hypothesis.hypstr) if hypothesis else None
        if clip is None:
            return Final(None, "", at, self._started_at, self._last_sound_at, 0.0)
        return Final(clip.name, clip.text, at, self._started_at, self._last_sound_at, 1.0, 0, clip.ms, complete=True)


def _words(text: str) -> str:
    """Lower case, letters and apostrophes, as the dictionary spells them."""
    return " ".join(re.findall(r"[a-z']+", text.lower().replace("e-mail", "email").replace("mm-hm", "hmm")))


EARS: Mapping[str, Callable[[], Recogniser]] = {
    "clips": lambda: Ear(spoken_by("caller")),
    "words": lambda: SphinxEar(spoken_by("caller")),
}
