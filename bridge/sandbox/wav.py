"""A call on tape: 8 kHz, 16 bit, two channels. Left is what the caller said, right what the caller heard."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np

from bridge.sandbox.sound import decode

RATE = 8000


def stereo(left: bytes, right: bytes) -> bytes:
    """A WAV file of two mu-law tracks that began at the same moment; the shorter one ends in silence."""
    frames = np.zeros((max(len(left), len(right)), 2), dtype="<i2")
    frames[: len(left), 0] = decode(left)
    frames[: len(right), 1] = decode(right)
    return _wav(frames.tobytes(), channels=2)


def mono(*tracks: bytes) -> bytes:
    """A WAV file of mu-law tracks that began at the same moment, mixed into one."""
    mixed = np.zeros(max(map(len, tracks)), dtype="<i4")
    for track in tracks:
        mixed[: len(track)] += decode(track)
    return _wav(np.clip(mixed, -32768, 32767).astype("<i2").tobytes(), channels=1)


def write(path: Path, content: bytes) -> Path:
    """Store a WAV file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _wav(pcm: bytes, *, channels: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes(pcm)
    return file.getvalue()
