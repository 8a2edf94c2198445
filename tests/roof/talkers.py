"""Agents and callers that are known by the millisecond: a voice whose words have lengths of their own, an ear that goes by the clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

from bridge.sandbox.alignment import Timed
from bridge.sandbox.pattern import SILENCE, Spell, TimedEar, turns_in, without_silence
from bridge.sandbox.script import End, Scenario, Speak
from supportvoice.rehearsal import Rehearsed

LONG = ("reset_steps", "another_way")
LETTER_MS = 62
BREATHS = {",": (100, 300), ".": (250, 550), "?": (250, 550)}


@dataclass
class Utterance:
    """One speech: its sound, and its words with the bytes of sound up to the middle of each, silence left out."""

    ulaw: bytes
    words: list[str]
    middles: list[int]


@dataclass
class UnevenVoice:
    """Words last as long as they are written, give or take a quarter; the voice takes breath at commas and stops, or hardly does."""

    seed: int
    spoken: list[Utterance] = field(default_factory=list)
    _times: list[Timed] = field(default_factory=list)

    def __call__(self, text: str) -> bytes:
        random = Random(f"{self.seed} {len(self.spoken)}")
        ulaw, words, middles, self._times = bytearray(), text.split(), [], []
        for word in words:
            lasts = int((len(word) + 1) * LETTER_MS * random.lognormvariate(0, 0.25))
            begin, silent = len(ulaw) // 8, ulaw.count(SILENCE)
            ulaw += random.randbytes(lasts * 8).replace(SILENCE, b"\xfe")
            middles.append(begin * 8 - silent + lasts * 4)
            self._times.append((word, begin, begin + lasts))
            ulaw += SILENCE * (8 * random.randint(*BREATHS.get(word[-1], (0, 0))))
        self.spoken.append(Utterance(bytes(ulaw), words, middles))
        return bytes(ulaw)

    def times(self, text: str) -> Sequence[Timed]:
        """Of the text that was just spoken."""
        return self._times


def twenty_interruptions(seed: int) -> tuple[Scenario, UnevenVoice]:
    """A caller who breaks in twenty times, each time somewhere else."""
    random, voice = Random(seed), UnevenVoice(seed)
    spells, at = [], 5.0 + random.uniform(0, 3)
    for n in range(20):
        spells.append(Spell(at, at + 0.7, f"breaks in {n % 2}"))
        at += 0.7 + 1.4 + random.uniform(0.3, 6.0)
    spells[-1] = replace(spells[-1], what="breaks in at last")
    answers = {f"breaks in {n}": ((Speak(LONG[n]),),) for n in range(2)} | {"breaks in at last": ((Speak(LONG[0]), End(silent=True)),)}
    return Scenario("twenty", caller=(), answers=answers, ear=lambda: TimedEar(spells), voice=voice, times=voice.times), voice


def words_heard(call: Rehearsed, voice: UnevenVoice) -> list[list[str]]:
    """What came out of the caller's telephone, word by word: for each speech of the agent's, its words that were half heard."""
    phone = call.phone
    heard = without_silence(phone.playout.heard(phone.origin, call.ended_at))
    places = turns_in(heard, [without_silence(each.ulaw) for each in voice.spoken])
    return [each.words[: sum(middle <= place for middle in each.middles)] for each, place in zip(voice.spoken, places, strict=True)]
