"""Telephone sound as bytes: 8 kHz mu-law, one byte a sample, 160 bytes every 20 ms, so 8 bytes are one millisecond.

Silence is 0xFF. 0x00 is full scale and clicks loudly (Twilio media streams; facts gathered for this project).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

BYTES_PER_S = 8000
BYTES_PER_MS = 8
FRAME_BYTES = 160
FRAME_S = 0.020
SILENT_FRAME = b"\xff" * FRAME_BYTES


def ms(n_bytes: int) -> int:
    """Whole milliseconds that `n_bytes` last."""
    return n_bytes // BYTES_PER_MS


def seconds(n_bytes: int) -> float:
    return n_bytes / BYTES_PER_S


def whole_frames(n_bytes: int) -> int:
    """The largest part of `n_bytes` that is whole 20 ms frames, in bytes."""
    return n_bytes - n_bytes % FRAME_BYTES


@dataclass(frozen=True, slots=True)
class Clip:
    """A sentence of the bridge's own, ready to be played within 20 ms of any trouble."""

    text: str
    ulaw: bytes


def load_clips(folder: Path) -> dict[str, Clip]:
    """The clips of a folder by name: `texts.json` says what each `<name>.ulaw` says."""
    texts = orjson.loads((folder / "texts.json").read_bytes())
    return {name: Clip(text, (folder / f"{name}.ulaw").read_bytes()) for name, text in texts.items()}
