"""8 kHz mu-law, the sandbox's own reading of G.711; shares no line with the bridge's codec.

Mu-law is one byte per sample: 160 bytes are 20 ms, 8 bytes are 1 ms. Silence is 0xFF (0x00 is a full-scale pop).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

RATE = 8000  # samples, and bytes, per second
FRAME = 160  # bytes in 20 ms
FRAME_S = 0.02
SILENCE = 0xFF
SILENT_FRAME = bytes([SILENCE]) * FRAME
FLOOR_DB = -96.0

Samples = NDArray[np.int16]
Timed = tuple[float, bytes]  # sound, and the loop time at which it passed


def _expand(code: int) -> int:
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84) << ((code >> 4) & 7)
    return (0x84 - magnitude) if code & 0x80 else (magnitude - 0x84)


_LINEAR: Samples = np.array([_expand(code) for code in range(256)], dtype=np.int16)
_SQUARES = (_LINEAR.astype(np.float64) / 32768.0) ** 2


def decode(ulaw: bytes) -> Samples:
    """16-bit samples of mu-law bytes; any length, also none."""
    return _LINEAR[np.frombuffer(ulaw, dtype=np.uint8)]


def encode(samples: NDArray[np.int16] | NDArray[np.float64]) -> bytes:
    """Mu-law bytes of samples in the 16-bit range; louder ones are clipped."""
    linear = np.clip(np.asarray(samples, dtype=np.float64), -32635, 32635).astype(np.int32)
    sign = np.where(linear < 0, 0x80, 0)
    biased = np.abs(linear) + 0x84
    exponent = np.floor(np.log2(biased)).astype(np.int32) - 7
    mantissa = (biased >> (exponent + 3)) & 0x0F
    return bytes((~(sign | (exponent << 4) | mantissa) & 0xFF).astype(np.uint8).tobytes())


def energy_db(frame: bytes) -> float:
    """Mean power in dB below full scale; silence and no bytes at all give FLOOR_DB."""
    if not frame:
        return FLOOR_DB
    power = float(_SQUARES.take(np.frombuffer(frame, dtype=np.uint8)).sum()) / len(frame)
    return 10 * math.log10(power) if power > 1e-9 else FLOOR_DB


def is_silent(ulaw: bytes) -> bool:
    return ulaw.count(SILENCE) == len(ulaw)


def silence(ms: int) -> bytes:
    return bytes([SILENCE]) * (ms * 8)


def tone(ms: int, *, hertz: float = 220.0, level: float = 0.1) -> bytes:
    """A plain hum, for words that nobody recorded. `level` is a share of full scale."""
    time = np.arange(ms * 8) / RATE
    return encode(np.sin(2 * np.pi * hertz * time) * level * 32767)
