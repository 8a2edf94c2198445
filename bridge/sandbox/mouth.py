"""How Vapi's audio leaves it: an unframed stream in odd sizes and bursts, about as fast as it plays, silent between turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from bridge.sandbox import sound
from bridge.sandbox.alignment import Timed
from bridge.sandbox.clips import by_text
from bridge.sandbox.ear import words_heard
from bridge.sandbox.faults import Faults

MAX_GAP_S = 0.103
# Measured sizes of audio messages in bytes, never 160, and how often each comes: about 46 ms of audio in the mean.
CHUNKS = (170, 185, 186, 371, 372, 557, 558, 743)
CHUNK_WEIGHTS = (1, 2, 3, 5, 5, 2, 1, 1)
ODD_CHUNKS = (1, 3, 7, 11, 159, 161, 999, 1601)
MS_PER_LETTER = 60  # of words nobody recorded


def voice(words: str) -> bytes:
    """The recording of exactly these words, else a hum as long as they would take. 8 kHz mu-law."""
    clip = by_text(words)
    return clip.ulaw if clip is not None else sound.tone(MS_PER_LETTER * len(words))


@dataclass(slots=True)
class Speech:
    """Words being spoken. `sent` counts bytes put on the wire; `stopped` ends it at once. `times`: when each word is, if that is known."""

    text: str
    ulaw: bytes
    turn: int
    interruptible: bool
    started_at: float
    times: Sequence[Timed] = ()
    source: str = "model"
    sent: int = 0
    stopped: bool = False

    @property
    def said(self) -> str:
        """The words that were sent, in whole words."""
        ms, whole_ms = self.sent // 8, len(self.ulaw) // 8
        if ms >= whole_ms:
            return self.text
        if self.times:
            return " ".join(word for word, _, end in self.times if end <= ms + 40)
        return " ".join(self.text.split()[: words_heard(self.text, ms, of_ms=whole_ms)])


async def speak(
    speech: Speech,
    *,
    send: Callable[[bytes], Awaitable[None]],
    between: Callable[[Speech], Awaitable[None]],
    faults: Faults,
    rng: Random,
) -> None:
    """Send the audio to its end, or until the speech is stopped. Now and then a message is late and the next one catches up.

    `between` is awaited before each message; what it takes delays all that follows.
    """
    loop = asyncio.get_running_loop()
    start = last = loop.time()
    rate = sound.RATE * faults.pace
    place = 0
    while place < len(speech.ulaw):
        size = rng.choice(ODD_CHUNKS) if faults.odd_sizes else rng.choices(CHUNKS, CHUNK_WEIGHTS)[0]
        chunk = speech.ulaw[place : place + size].ljust(size, b"\xff")
        late_s = rng.uniform(0.02, 0.052) / faults.pace if rng.random() < 0.12 else 0.0
        due = min(start + place / rate + late_s, last + MAX_GAP_S)
        await asyncio.sleep(due - loop.time())
        paused_at = loop.time()
        await between(speech)
        start += loop.time() - paused_at
        if speech.stopped:
            return
        last = loop.time()
        place += size
        speech.sent = place
        await send(chunk)
    await asyncio.sleep(start + len(speech.ulaw) / rate - loop.time())
