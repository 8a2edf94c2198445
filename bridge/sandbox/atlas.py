"""Where a piece of audio is in a set of clips: normalised correlation, fast by Fourier transforms. Lengths are samples, 8 to the ms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bridge.sandbox import sound
from bridge.sandbox.clips import Clip

GAP = 1000  # zeros around each clip
HEAD = 4096  # of a clip, with its GAP: where an utterance that just began can be

Wave = NDArray[np.float32]
Sums = NDArray[np.float64]


class Atlas:
    """All clips as waves, ready to be searched. Built once per set of clips."""

    def __init__(self, clips: tuple[Clip, ...]) -> None:
        self.clips = clips
        quiet = np.zeros(GAP, dtype=np.float32)
        self.waves = [np.concatenate([quiet, sound.decode(clip.ulaw).astype(np.float32), quiet]) for clip in clips]
        self._heads = np.zeros((len(clips), HEAD), dtype=np.float32)
        for head, wave in zip(self._heads, self.waves, strict=True):
            head[: min(HEAD, len(wave))] = wave[:HEAD]
        self._head_spectra = np.fft.rfft(self._heads)
        self._head_power = power_of(self._heads)
        self._powers = [power_of(wave) for wave in self.waves]

    def by_start(self, piece: Wave) -> tuple[int, int, float]:
        """(clip, place in it, correlation) of the best fit of a piece among the clips' beginnings."""
        products = np.fft.irfft(self._head_spectra * np.fft.rfft(piece, HEAD).conj())[:, : HEAD - len(piece)]
        scores = products / _norms(self._head_power, piece)
        clip, place = np.unravel_index(int(scores.argmax()), scores.shape)
        return int(clip), int(place) - GAP, float(scores[clip, place])

    def anywhere(self, piece: Wave) -> tuple[int, int, float]:
        """The same among all of every clip; some milliseconds of work, so only for speech that stayed unknown."""
        found = [(index, *best_fit(wave, power, piece)) for index, (wave, power) in enumerate(zip(self.waves, self._powers, strict=True))]
        clip, place, score = max(found, key=lambda fit: fit[2])
        return clip, place - GAP, score

    def piece(self, clip: int, start: int, length: int) -> Wave:
        """Audio of a clip from byte `start` on; zeros outside it."""
        wave = self.waves[clip]
        begin = start + GAP
        if begin < 0 or begin + length > len(wave):
            padded = np.zeros(length, dtype=np.float32)
            inside = wave[max(begin, 0) : max(begin + length, 0)]
            offset = max(-begin, 0)
            padded[offset : offset + len(inside)] = inside
            return padded
        return wave[begin : begin + length]


def power_of(waves: Wave) -> Sums:
    """Running sums of squares along the last axis, from 0: the power of any stretch is one subtraction."""
    total = np.cumsum(np.square(waves, dtype=np.float64), axis=-1)
    return np.concatenate([np.zeros((*total.shape[:-1], 1)), total], axis=-1)


def _norms(power: Sums, piece: Wave) -> Sums:
    """|wave[k : k + len(piece)]| * |piece| for each k but the last; never near zero."""
    around = power[..., len(piece) : -1] - power[..., : -len(piece) - 1]
    own = float(np.square(piece, dtype=np.float64).sum())
    norms: Sums = np.sqrt(np.maximum(around, own * 0.05 + 1.0) * (own + 1.0))
    return norms


def best_fit(wave: Wave, power: Sums, piece: Wave) -> tuple[int, float]:
    """(place, correlation) where `piece` fits best into a longer `wave`, whose running power is given."""
    size = _fast_size(len(wave))  # what wraps around lies beyond the places asked for
    products = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(piece, size).conj(), size)[: len(wave) - len(piece)]
    scores = products / _norms(power, piece)
    place = int(scores.argmax())
    return place, float(scores[place])


def _fast_size(length: int) -> int:
    """The next length that transforms fast: a power of two, or three quarters of one."""
    size = 1 << (length - 1).bit_length()
    return size * 3 // 4 if size * 3 // 4 >= length else size


def likeness(one: Wave, other: Wave) -> float:
    """Correlation of two equally long pieces, -1 to 1; 0 when one of them is silent."""
    norm = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(one @ other) / norm if norm > 1.0 else 0.0
