"""What a telephone hears beside its caller: music while somebody is on hold elsewhere, a street, the agent's own voice coming back.

Loud enough to be taken for speech by whoever goes by loudness; there is no word in it. 8 kHz mu-law.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from bridge.sandbox import sound

ECHO_DB, ECHO_S = -15.0, 0.2
CHORDS = ((262, 330, 392), (220, 262, 330), (294, 349, 440), (196, 247, 294))
NOTE_MS = 250


def hold_music(ms: int = 2500) -> bytes:
    """A harp that never gets anywhere."""
    time = np.arange(ms * 8) / sound.RATE
    note = (time * 1000 // NOTE_MS).astype(int)
    hertz = np.array([CHORDS[each // 6 % 4][each % 3] for each in note])
    plucked = np.exp(-3 * (time % (NOTE_MS / 1000)) / (NOTE_MS / 1000))
    return _at(np.sin(2 * np.pi * hertz * time) * plucked, -26.0)


def street(ms: int = 2500) -> bytes:
    """Engines that come and go, and a horn."""
    random = np.random.default_rng(5)
    rumble = np.convolve(random.standard_normal(ms * 8), np.ones(12) / 12, mode="same")
    time = np.arange(ms * 8) / sound.RATE
    passing = 0.6 + 0.4 * np.sin(2 * np.pi * 0.7 * time)
    horn = np.where((time > 0.9) & (time < 1.3), np.sin(2 * np.pi * 415 * time), 0.0)
    return _at(rumble * passing / rumble.std() + horn, -26.0)


NOISES: Mapping[str, Callable[[], bytes]] = {"hold_music": hold_music, "street": street}


def returned(ulaw: bytes) -> bytes:
    """The agent's voice as a loudspeaker gives it back to the microphone."""
    return sound.encode(sound.decode(ulaw).astype(np.float64) * 10 ** (ECHO_DB / 20))


def together(one: bytes, other: bytes) -> bytes:
    return sound.encode(sound.decode(one).astype(np.float64) + sound.decode(other))


def _at(wave: NDArray[np.float64], level_db: float) -> bytes:
    return sound.encode(wave * 10 ** (level_db / 20) * 32767 / np.sqrt((wave**2).mean()))
