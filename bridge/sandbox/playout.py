"""What Twilio plays into the caller's ear: a first-in-first-out buffer emptied at 8000 bytes a second, computed and not timed.

Audio is 8 kHz mu-law, one byte a sample. Inside, time is a whole number of samples since `origin`, so nothing drifts; outside it is
seconds of the clock that `origin` was read from. Nothing runs here: whoever asks says what time it is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

RATE = 8000
SILENCE = 0xFF
SOUND_FROM = 250  # of 32124: above line noise and padding, below the softest speech


def _amplitude(code: int) -> int:
    """G.711: sign, three bits of exponent, four of mantissa, all inverted."""
    code = ~code & 0x7F
    return ((((code & 0x0F) << 3) + 132) << (code >> 4)) - 132


_IS_SOUND = bytes(_amplitude(code) >= SOUND_FROM for code in range(256))


def sound_samples(ulaw: bytes) -> int:
    """How many samples are loud enough to be heard."""
    return ulaw.translate(_IS_SOUND).count(1)


@dataclass(frozen=True, slots=True)
class Clear:
    """One `clear` as it arrived: when, how much unplayed audio it threw away, which marks it sent back."""

    at: float
    dropped: int  # bytes
    marks: tuple[str, ...]

    @property
    def dropped_ms(self) -> int:
        return round(self.dropped * 1000 / RATE)


@dataclass(slots=True)
class _Run:
    """Audio played without a gap, from sample `start` on. The last one may reach into the future."""

    start: int
    ulaw: bytearray = field(default_factory=bytearray)

    @property
    def end(self) -> int:
        return self.start + len(self.ulaw)


class Playout:
    """The buffer of one call, and the memory of all it played."""

    def __init__(self, origin: float) -> None:
        self.origin = origin
        self.clears: list[Clear] = []
        self._runs: list[_Run] = []
        self._marks: deque[tuple[int, str]] = deque()

    def play(self, ulaw: bytes, now: float) -> float:
        """Queue audio behind what is there. Returns the moment its last sample will have been played."""
        run, at = self._run(now)
        if at > run.end or not self._runs:
            run = _Run(at)
            self._runs.append(run)
        run.ulaw += ulaw
        return self._seconds(run.end)

    def mark(self, name: str, now: float) -> None:
        """Queue a mark behind the audio; `due` gives it back. With an empty buffer it is due at once."""
        run, at = self._run(now)
        self._marks.append((max(at, run.end), name))

    def due(self, now: float) -> list[str]:
        """Marks whose audio has been played by `now`, in the order they came; each is given once."""
        sample, names = self._sample(now), []
        while self._marks and self._marks[0][0] <= sample:
            names.append(self._marks.popleft()[1])
        return names

    def clear(self, now: float) -> Clear:
        """Throw away what was not played yet; every outstanding mark counts as returned, in order."""
        run, at = self._run(now)
        keep = max(at - run.start, 0)
        dropped = max(len(run.ulaw) - keep, 0)
        del run.ulaw[keep:]
        cleared = Clear(now, dropped, tuple(name for _, name in self._marks))
        self._marks.clear()
        self.clears.append(cleared)
        return cleared

    def stop(self, now: float) -> None:
        """The stream is over: what was not played never will be, and no mark comes back."""
        run, at = self._run(now)
        del run.ulaw[max(at - run.start, 0) :]
        self._marks.clear()

    def heard(self, since: float, until: float) -> bytes:
        """What came out of the phone between two moments, gaps filled with silence. `until` must not be in the future."""
        first, last = self._sample(since), self._sample(until)
        newest = self._runs[-1] if self._runs else _Run(0)
        end = newest.start + len(newest.ulaw)
        if end <= first:  # most of a call is silence
            return b"\xff" * (last - first)
        if newest.start <= first and last <= end:  # and most of the rest the middle of a sentence
            return bytes(newest.ulaw[first - newest.start : last - newest.start])
        parts: list[bytes] = []
        for run in reversed(self._runs):  # newest first: listeners ask about the last moments
            if run.end <= first:
                break
            if run.start >= last:
                continue
            end = min(run.end, last)
            parts.append(b"\xff" * (last - end))
            parts.append(bytes(run.ulaw[max(first - run.start, 0) : end - run.start]))
            last = max(run.start, first)
        parts.append(b"\xff" * (last - first))
        return b"".join(reversed(parts))

    def played_ms(self, since: float, until: float) -> int:
        """Milliseconds of audio, loud or silent, that came out between two moments."""
        return round(self.played(since, until) * 1000 / RATE)

    def played(self, since: float, until: float) -> int:
        """Bytes of audio, loud or silent, that came out between two moments."""
        first, last = self._sample(since), self._sample(until)
        return sum(max(min(run.end, last) - max(run.start, first), 0) for run in self._runs)

    def sound_ms(self, since: float, until: float) -> int:
        """Milliseconds between two moments in which something could be heard, in steps of 10 ms."""
        heard = self.heard(since, until)
        return sum(10 for i in range(0, len(heard), 80) if sound_samples(heard[i : i + 80]))

    def first_sound(self, after: float) -> float | None:
        """When the first audible sample since `after` was or will be played."""
        first = self._sample(after)
        for run in self._runs:
            if run.end > first:
                skip = max(first - run.start, 0)
                found = run.ulaw[skip:].translate(_IS_SOUND).find(1)
                if found >= 0:
                    return self._seconds(run.start + skip + found)
        return None

    def _run(self, now: float) -> tuple[_Run, int]:
        """The newest run (an empty one before any sound) and `now` in samples."""
        return (self._runs[-1] if self._runs else _Run(0)), self._sample(now)

    def _sample(self, now: float) -> int:
        return round((now - self.origin) * RATE)

    def _seconds(self, sample: int) -> float:
        return self.origin + sample / RATE
