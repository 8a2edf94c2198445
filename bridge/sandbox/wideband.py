"""The audio socket in 16-bit sound at 16 kHz, for calls that ask for it; the engine behind it hears and speaks mu-law as ever.

A filter of its own by overlap and add, in floating point: whoever is at the other end must get through to an ear that shares
nothing with them. Now and then a message ends inside a sample, as nothing in the vendor's words forbids.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bridge.sandbox import sound
from bridge.sandbox.evidence import Message
from bridge.sandbox.telling import Pipe

Wave = NDArray[np.float64]

TELEPHONE = {"format": "mulaw", "sampleRate": 8000}
WIDE = {"format": "pcm_s16le", "sampleRate": 16_000}  # also what a call gets that asks for nothing
HALF = 31
UNEVEN_EVERY = 4  # messages
_PLACES = np.arange(-HALF, HALF + 1)
_LOW_PASS: Wave = np.hamming(2 * HALF + 1) * np.sinc(_PLACES * 0.46) * 0.46  # 3.7 of 8 kHz


def format_of(request: Message) -> Message | None:
    """TELEPHONE or WIDE; None for a sound the sandbox does not speak."""
    asked = request["transport"].get("audioFormat", WIDE)
    known = (each for each in (TELEPHONE, WIDE) if all(asked[key] == each[key] for key in each))
    return next(known, None)


class _Filter:
    def __init__(self, gain: float) -> None:
        self._taps = _LOW_PASS * gain
        self._tail: Wave = np.zeros(2 * HALF)

    def pass_on(self, samples: Wave) -> Wave:
        whole = np.convolve(samples, self._taps)
        whole[: 2 * HALF] += self._tail
        self._tail = whole[len(samples) :]
        return whole[: len(samples)]


class WidePipe:
    """A `telling.Pipe` around one that carries 16-bit sound."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._up, self._down = _Filter(2.0), _Filter(1.0)
        self._begun = b""  # half a sample
        self._odd = 0  # the next sample is the second of its pair
        self._sent = 0

    async def send_bytes(self, data: bytes) -> None:
        stuffed = np.zeros(2 * len(data))
        stuffed[::2] = sound.decode(data)
        pcm = np.clip(self._up.pass_on(stuffed), -32_768, 32_767).astype("<i2").tobytes()
        self._sent += 1
        cut = len(pcm) // 2 | 1 if self._sent % UNEVEN_EVERY == 0 else len(pcm)
        for part in filter(None, (pcm[:cut], pcm[cut:])):
            await self._pipe.send_bytes(part)

    async def send_text(self, text: str) -> None:
        await self._pipe.send_text(text)

    async def receive(self) -> bytes | str | None:
        """May be no bytes at all, when a message brought no whole pair of samples."""
        message = await self._pipe.receive()
        if not isinstance(message, bytes):
            return message
        data = self._begun + message
        self._begun = data[len(data) // 2 * 2 :]
        samples = np.frombuffer(data, dtype="<i2", count=len(data) // 2)
        if not len(samples):
            return b""
        clean = self._down.pass_on(samples.astype(np.float64))[self._odd :: 2]
        self._odd ^= len(samples) % 2
        return sound.encode(clean)

    async def close(self, code: int) -> None:
        await self._pipe.close(code)
