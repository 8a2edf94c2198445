"""Agents and callers that are known by the millisecond: a voice whose words have lengths of their own, an ear that goes by the clock.

And a network between Twilio and the bridge that brings marks late, and several at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

from bridge import pcm
from bridge.sandbox import ear
from bridge.sandbox.alignment import Timed
from bridge.sandbox.memory import MemoryLink
from bridge.sandbox.pattern import SILENCE, Spell, TimedEar, turns_in, without_silence
from bridge.sandbox.script import End, Scenario, Speak
from bridge.sandbox.wideband import WidePipe
from supportvoice.rehearsal import Rehearsed, StreamPipe, agent_starts

LONG = ("reset_steps", "another_way")
LETTER_MS = 62
BREATHS = {",": (100, 300), ".": (250, 550), "?": (250, 550)}


@dataclass
class Utterance:
    """One speech: its sound, and its words with the byte at which each is half spoken."""

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
            begin = len(ulaw) // 8
            ulaw += random.randbytes(lasts * 8).replace(SILENCE, b"\xfe")
            middles.append(begin * 8 + lasts * 4)
            self._times.append((word, begin, begin + lasts))
            ulaw += SILENCE * (8 * random.randint(*BREATHS.get(word[-1], (0, 0))))
        self.spoken.append(Utterance(bytes(ulaw), words, middles))
        return bytes(ulaw)

    def times(self, text: str) -> Sequence[Timed]:
        """Of the text that was just spoken."""
        return self._times


class WordyEar(TimedEar):
    """Understands as people speak: a word more every WORD_S, for agents that stop for words and not for a voice."""

    WORD_S = 0.25

    def __init__(self, spells: Sequence[Spell]) -> None:
        super().__init__(spells)
        self._saying: list[str] = []
        self._said = 0
        self._since = 0.0

    def hear(self, ulaw: bytes, at: float) -> list[ear.Utterance]:
        told = super().hear(ulaw, at)
        match told:
            case [ear.SpeechStarted()]:
                self._saying, self._said, self._since = self._spells[0].what.split(), 0, at
            case [ear.Final()]:
                self._saying = []
            case [] if self._said < len(self._saying) and at >= self._since + (self._said + 1) * self.WORD_S:
                self._said += 1
                return [ear.Partial("", " ".join(self._saying[: self._said]), at, self._since)]
        return told


class LateMarks(StreamPipe):
    """Marks come back 100 to 400 ms late, in their order; now and then one waits as long as it may, and those after it for it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = Random(f"late {seed}")
        self._last_at = 0.0
        self.late_ms: list[int] = []
        self.at_once = 0  # came back together with the one before

    async def send(self, text: str) -> None:
        if not text.startswith('{"event": "mark"'):
            await super().send(text)
            return
        loop = asyncio.get_running_loop()
        late_s = 0.4 if self._random.random() < 0.3 else self._random.uniform(0.1, 0.4)
        at = max(self._last_at, loop.time() + late_s)
        self.at_once += at == self._last_at
        self._last_at = at
        self.late_ms.append(round((at - loop.time()) * 1000))
        loop.call_at(at, self.server.arrived.put_nowait, text)


def twenty_interruptions(seed: int) -> tuple[Scenario, UnevenVoice]:
    """A caller who breaks in twenty times, each time somewhere else."""
    random, voice = Random(seed), UnevenVoice(seed)
    spells, at = [], 5.0 + random.uniform(0, 3)
    for n in range(20):
        spells.append(Spell(at, at + 0.7, f"breaks in {n % 2}"))
        at += 0.7 + 1.4 + random.uniform(0.3, 6.0)
    spells[-1] = replace(spells[-1], what="breaks in at last")
    answers = {f"breaks in {n}": ((Speak(LONG[n]),),) for n in range(2)} | {"breaks in at last": ((Speak(LONG[0]), End(silent=True)),)}
    return Scenario("twenty", caller=(), answers=answers, ear=lambda: WordyEar(spells), voice=voice, times=voice.times), voice


def words_heard(call: Rehearsed, voice: UnevenVoice, *, wideband: bool = False) -> list[list[str]]:
    """What came out of the caller's telephone, word by word: for each speech of the agent's, its words that were half heard."""
    phone = call.phone
    heard = without_silence(phone.playout.heard(phone.origin, call.ended_at))
    said = asyncio.run(narrowed(call)) if wideband else [each.ulaw for each in voice.spoken]
    places = turns_in(heard, [without_silence(each) for each in said])
    return [
        each.words[: sum(at <= len(ulaw) and len(without_silence(ulaw[:at])) <= place for at in each.middles)]
        for each, ulaw, place in zip(voice.spoken, said, places, strict=True)
    ]


async def narrowed(call: Rehearsed) -> list[bytes]:
    """What the bridge made of the agent's wide sound, speech by speech: the same messages, sent and read once more."""
    evidence, link, narrow = call.evidence, MemoryLink(), pcm.ToTelephone()
    wide, at, turns = WidePipe(link), 0, list[bytearray]()
    starts = [entry.at for entry in evidence.entries if entry.way == "out" and agent_starts(entry.detail)]
    for moment, size in evidence.chunks:
        turns += [bytearray() for start in starts[len(turns) :] if start <= moment]
        await wide.send_bytes(bytes(evidence.downlink[at : at + size]))
        for message in link.client.receive_nowait():
            turns[-1] += narrow.feed(message) if isinstance(message, bytes) else b""
        at += size
    return [bytes(turn) for turn in turns]
