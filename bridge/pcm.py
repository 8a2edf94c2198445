"""Between the telephone's sound and the wide one: 8 kHz mu-law (G.711) here, 16-bit samples at 16 kHz, little endian, there.

Both ways use one half-band filter of 47 taps: at twice the telephone's rate, all but flat to 3.2 kHz, down by 75 dB from
4.8 kHz on. It is causal and its past is carried along, so nothing is held back: each sample brings what it makes at once, as
heard 23 samples of 16 kHz ago. That is all the delay there is, 1.44 ms each way.

Everything is whole numbers: sums of these are exact in any order, so cutting the sound elsewhere changes no bit of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TAPS = 47
DELAY = TAPS // 2  # samples at 16 kHz
KAISER = 7.3  # 75 dB
UNIT = 1 << 17  # what 1 is among the taps
SIDE = TAPS // 2 + 1  # taps that are not zero, beside the middle one
LOUDEST = 32_635  # in 16 bits; mu-law has no louder sample
BIAS = 0x84

Numbers = NDArray[np.float64]  # whole ones, below 2^53


def _half_band() -> Numbers:
    """The taps at odd distances from the middle, times UNIT; the others are zero, and the middle one is half of all."""
    away = np.arange(TAPS) - DELAY
    taps = np.sinc(away / 2) / 2 * np.kaiser(TAPS, KAISER)
    side = taps[0::2]
    whole: Numbers = np.rint(side / side.sum() * UNIT / 2)
    return whole


def _loudness(code: int) -> int:
    """The sample a mu-law byte stands for: sign, three bits of exponent, four of mantissa, all inverted."""
    bits = ~code
    size = (((bits & 0x0F) << 3) + BIAS << (bits >> 4 & 7)) - BIAS
    return -size if bits & 0x80 else size


def _code_of_each() -> NDArray[np.uint8]:
    """The mu-law byte of each 16-bit sample, in the order of their bits read as a positive number."""
    sample = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.int64)
    size = np.minimum(np.abs(sample), LOUDEST) + BIAS
    exponent = np.log2(size).astype(np.int64) - 7
    bits = np.where(sample < 0, 0x80, 0) | exponent << 4 | size >> exponent + 3 & 0x0F
    codes: NDArray[np.uint8] = (~bits & 0xFF).astype(np.uint8)
    return codes


SIDE_TAPS = _half_band()
SAMPLES: Numbers = np.array([_loudness(code) for code in range(256)], dtype=np.float64)
CODES = _code_of_each()


def decoded(ulaw: bytes) -> Numbers:
    """Mu-law as 16-bit samples."""
    return SAMPLES.take(np.frombuffer(ulaw, dtype=np.uint8))


def encoded(samples: NDArray[np.int16]) -> bytes:
    """16-bit samples as mu-law."""
    return CODES.take(samples.view(np.uint16)).tobytes()


def _rounded(sums: Numbers, unit: int) -> NDArray[np.int16]:
    return np.clip(np.floor(sums / unit + 0.5), -32_768, 32_767).astype(np.int16)


class Widening:
    """8 kHz samples in any pieces to 16 kHz: two for each."""

    def __init__(self) -> None:
        self._past: Numbers = np.zeros(SIDE - 1)

    def feed(self, samples: Numbers) -> NDArray[np.int16]:
        """Every other sample is an old one, the ones between are made by the filter. Its taps count double: half of its input is zeros."""
        known = np.concatenate((self._past, samples))
        self._past = known[len(samples) :]
        out = np.empty(2 * len(samples), dtype=np.int16)
        out[0::2] = _rounded(np.convolve(known, SIDE_TAPS, "valid"), UNIT // 2)
        out[1::2] = known[SIDE // 2 : SIDE // 2 + len(samples)]
        return out


class Narrowing:
    """16 kHz samples in any pieces to 8 kHz: one for every second one."""

    def __init__(self) -> None:
        self._past: Numbers = np.zeros(TAPS - 1)
        self._skips = False  # the next sample completes no pair

    def feed(self, samples: Any) -> NDArray[np.int16]:
        known = np.concatenate((self._past, samples))
        self._past = known[len(samples) :]
        first, self._skips = int(self._skips), self._skips ^ (len(samples) % 2 == 1)
        count = (len(samples) - first + 1) // 2
        if count <= 0:
            return np.empty(0, dtype=np.int16)
        side = known[first : first + 2 * (count + SIDE - 1) : 2]
        middle = known[first + DELAY : first + DELAY + 2 * count : 2]
        return _rounded(np.convolve(side, SIDE_TAPS, "valid") + middle * (UNIT / 2), UNIT)


class ToWide:
    """Mu-law in, in any pieces; 16-bit samples out, four bytes for each."""

    def __init__(self) -> None:
        self._widening = Widening()

    def feed(self, ulaw: bytes) -> bytes:
        return self._widening.feed(decoded(ulaw)).astype("<i2", copy=False).tobytes() if ulaw else b""


class ToTelephone:
    """16-bit samples in, in any pieces, also cut in the middle of a sample; mu-law out, a byte for every two samples."""

    def __init__(self) -> None:
        self._narrowing = Narrowing()
        self._odd = b""

    def feed(self, pcm: bytes) -> bytes:
        pcm = self._odd + pcm if self._odd else pcm
        whole = len(pcm) - len(pcm) % 2
        self._odd = pcm[whole:]
        return encoded(self._narrowing.feed(np.frombuffer(pcm, dtype="<i2", count=whole // 2)))
