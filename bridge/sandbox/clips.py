"""Everything that is ever said in the sandbox: short recordings, 8 kHz mu-law, kept in `clips/` beside an index.

A clip is its file: what is spoken, and what an ear recognises, are the same bytes. `manage.py sandbox clips` makes the
files again (extra `voice`); importing this module needs no voice. Every clip starts and ends within 40 ms of speech.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bridge.sandbox import sound

try:
    from hibari import Hibari
except ImportError:  # the extra `voice` is only needed to make clips
    Hibari = None

HERE = Path(__file__).parent / "clips"
PITCH = {"agent": 1.0, "caller": 0.84, "human": 0.91}  # one voice exists; the others are the same one, played slower
LEVEL_DB = -20.0
VOICE_RATE = 24_000
PAUSE_FRAMES = 20  # 400 ms: the voice likes to wait twice as long


@dataclass(frozen=True, slots=True)
class Clip:
    """Recorded words. `voice`: agent (Vapi, Twilio's Say, the bridge's own), caller, or human (who picks up a Dial)."""

    name: str
    text: str
    voice: str
    ulaw: bytes = field(repr=False)

    @property
    def ms(self) -> int:
        return len(self.ulaw) // 8


def load(folder: Path = HERE) -> dict[str, Clip]:
    """All clips of a folder, by name, in the order of its index."""
    index = json.loads((folder / "index.json").read_text())
    return {name: Clip(name, row["text"], row["voice"], (folder / f"{name}.ulaw").read_bytes()) for name, row in index.items()}


CLIPS: dict[str, Clip] = load()
_BY_TEXT = {clip.text: clip for clip in CLIPS.values()}


def spoken_by(*voices: str) -> dict[str, Clip]:
    """The clips of these voices: what an ear on that side of the call should know."""
    return {name: clip for name, clip in CLIPS.items() if clip.voice in voices}


def by_text(text: str) -> Clip | None:
    """The clip whose words are exactly these, or None."""
    return _BY_TEXT.get(text)


def synthesise(folder: Path = HERE, names: Iterable[str] = ()) -> list[Path]:
    """Speak the clips of the folder's index again (all, or only `names`) and return the files written.

    Raises RuntimeError without the extra `voice`.
    """
    if Hibari is None:
        raise RuntimeError("Making clips needs the extra `voice`: make clips.")
    engine = Hibari()
    index: Mapping[str, Mapping[str, str]] = json.loads((folder / "index.json").read_text())
    wanted = list(names) or list(index)
    written = []
    for name in wanted:
        pitch = PITCH[index[name]["voice"]]
        speech = engine(index[name]["text"], seed=0, speed=1 / pitch)
        path = folder / f"{name}.ulaw"
        path.write_bytes(sound.encode(_level(_trim(_resample(np.asarray(speech, dtype=np.float64), pitch)))))
        written.append(path)
    return written


def copy_to(folder: Path, source: Path = HERE) -> list[Path]:
    """Bring the clips another folder holds up to date with ours, by name; returns the files written."""
    kept = [path for path in sorted(folder.glob("*.ulaw")) if (source / path.name).exists()]
    for path in kept:
        path.write_bytes((source / path.name).read_bytes())
    return kept


def _resample(speech: NDArray[np.float64], pitch: float) -> NDArray[np.float64]:
    """24 kHz to 8 kHz in the frequency domain: nothing above 3.7 kHz survives; `pitch` < 1 deepens and lengthens."""
    samples = round(len(speech) * sound.RATE / VOICE_RATE / pitch)
    spectrum = np.fft.rfft(speech)[: samples // 2 + 1]
    hertz = np.linspace(0, sound.RATE / 2, len(spectrum))
    spectrum *= np.clip((3700 - hertz) / 300, 0, 1) * np.clip(hertz / 80, 0, 1)
    narrow: NDArray[np.float64] = np.fft.irfft(spectrum, samples)
    return narrow


def _trim(speech: NDArray[np.float64]) -> NDArray[np.float64]:
    """Whole frames of 20 ms without the silence around them, and no pause longer than PAUSE_FRAMES."""
    frames: NDArray[np.float64] = speech[: len(speech) // sound.FRAME * sound.FRAME].reshape(-1, sound.FRAME)
    power = np.sqrt((frames**2).mean(axis=1))
    loud = np.flatnonzero(power > power.max() * 0.03)
    kept: list[int] = []
    for last, this in pairwise([loud[0], *loud]):
        pause = range(last + 1, this)
        half = PAUSE_FRAMES // 2
        kept += [*pause[:half], *pause[-half:]] if len(pause) > PAUSE_FRAMES else [*pause]
        kept.append(this)
    chosen = np.array([max(loud[0] - 1, 0), *kept, min(loud[-1] + 1, len(frames) - 1)])
    trimmed: NDArray[np.float64] = frames[chosen].reshape(-1)
    return trimmed


def _level(speech: NDArray[np.float64]) -> NDArray[np.float64]:
    """At LEVEL_DB while speaking, peaks below full scale, as 16-bit values."""
    frames = (speech**2).reshape(-1, sound.FRAME).mean(axis=1)
    spoken = np.sqrt(frames[frames > frames.max() * 0.01].mean())
    scaled = speech * 10 ** (LEVEL_DB / 20) / spoken
    levelled: NDArray[np.float64] = scaled * min(1.0, 0.89 / np.abs(scaled).max()) * 32767
    return levelled
