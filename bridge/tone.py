"""A short, soft tone: the sign that somebody is there, for the moment before anybody has said a word."""

from __future__ import annotations

import numpy as np

from bridge import pcm
from bridge.audio import Clip

RATE = 8000
HERTZ = 440
LOUDNESS = 340  # of 32,767: 20 dB below speech, so that nobody takes it for a word, and well above the noise of a line
LASTS_S = 0.2
EDGE_S = 0.04  # it comes and goes gently: a hard edge is a click


def _tone() -> bytes:
    time = np.arange(int(LASTS_S * RATE)) / RATE
    edge = np.clip(np.minimum(time, LASTS_S - time) / EDGE_S, 0, 1)
    return pcm.encoded(np.rint(np.sin(2 * np.pi * HERTZ * time) * edge * LOUDNESS).astype(np.int16))


TONE = Clip("", _tone())
