"""Sound that says which frame it is, and an ear that checks every byte of it.

Frame `n` of a voice is 160 bytes that no other frame is: its numbers, then noise. 0xff is in none of them, so a frame of
silence that somebody filled in is known as such. Pure: times are seconds of a monotonic clock.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from random import Random

FRAME = 160
FRAMES_PER_S = 50
BYTES_PER_S = FRAME * FRAMES_PER_S
SILENCE = b"\xff" * FRAME
HEAD = 6
SEVEN_BITS = 0x7F
_random = Random(5)  # the same noise in every run
_TAILS = [bytes(_random.randrange(255) for _ in range(FRAME - HEAD)) for _ in range(64)]
_TAILS_AS_TEXT = [b64encode(tail).decode() for tail in _TAILS]


def _head(voice: int, number: int) -> bytes:
    """Two numbers, seven bits a byte."""
    high = (voice >> 7 & SEVEN_BITS, voice & SEVEN_BITS)
    return bytes((*high, number >> 21 & SEVEN_BITS, number >> 14 & SEVEN_BITS, number >> 7 & SEVEN_BITS, number & SEVEN_BITS))


def frame(voice: int, number: int) -> bytes:
    return _head(voice, number) + _TAILS[(7 * voice + number) % 64]


def frame_as_text(voice: int, number: int) -> str:
    """The same in base64: the head is six bytes, so the noise behind it is the same text every time."""
    return b64encode(_head(voice, number)).decode() + _TAILS_AS_TEXT[(7 * voice + number) % 64]


def number_of(voice: int, block: bytes) -> int | None:
    """Which frame of the voice this is; None when it is none."""
    high, low = block[0] << 7 | block[1], block[2] << 21 | block[3] << 14 | block[4] << 7 | block[5]
    return low if high == voice and block == frame(voice, low) else None


@dataclass(slots=True)
class Counts:
    """What became of the frames of one direction, or of many."""

    sent: int = 0
    arrived: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    garbled: int = 0  # blocks that are no frame of this voice
    stale: int = 0  # of an interrupted turn, after its clear
    filled: int = 0  # frames of silence that nobody sent
    cut: int = 0  # sent so shortly before an interruption that it may have stopped them

    @property
    def right(self) -> bool:
        return not (self.lost or self.doubled or self.reordered or self.garbled or self.stale)

    def add(self, other: Counts) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Ear:
    """One direction of one call: `sent` when a frame has left, `take` when bytes arrive in any chunks, `settle` at the end."""

    voice: int
    counts: Counts = field(default_factory=Counts)
    sent_at: list[float] = field(default_factory=list)  # by frame
    stale_below: int = 0  # frames before this one are of an interrupted turn
    _cut: set[int] = field(default_factory=set)
    _next: int = 0
    _missing: set[int] = field(default_factory=set)
    _rest: bytes = b""

    def sent(self, at: float) -> int:
        """One more frame is complete on the wire; returns its number."""
        self.sent_at.append(at)
        self.counts.sent += 1
        return len(self.sent_at) - 1

    def may_be_cut(self, since: float) -> None:
        """An interruption: what was sent since that moment may be dropped, and everything so far is stale once it is cleared."""
        number = len(self.sent_at)
        while number and self.sent_at[number - 1] >= since:
            number -= 1
            self._cut.add(number)

    def cleared(self, turn_began: int) -> None:
        """The peer was told to forget everything before frame `turn_began`."""
        self.stale_below = turn_began

    def take(self, sound: bytes, at: float) -> list[tuple[int, float]]:
        """The frames that are complete now, each with its delay in seconds."""
        if self._rest:
            sound = self._rest + sound
        whole = len(sound) - len(sound) % FRAME
        self._rest = sound[whole:]
        found = []
        for place in range(0, whole, FRAME):
            number = self._judge(sound[place : place + FRAME])
            if number is not None:
                found.append((number, at - self.sent_at[number]))
        return found

    def settle(self) -> Counts:
        """Whatever has not arrived by now never will."""
        self._missing |= set(range(self._next, len(self.sent_at)))
        self._next = len(self.sent_at)
        self.counts.cut += len(self._missing & self._cut)
        self.counts.lost += len(self._missing - self._cut)
        self.counts.garbled += bool(self._rest)
        self._missing.clear()
        return self.counts

    def _judge(self, block: bytes) -> int | None:
        number = self._next
        if block != frame(self.voice, number) or number >= len(self.sent_at):
            return self._judge_unexpected(block)
        self._next += 1
        return self._arrived(number)

    def _judge_unexpected(self, block: bytes) -> int | None:
        if block == SILENCE:
            self.counts.filled += 1
            return None
        number = number_of(self.voice, block)
        if number is None or number >= len(self.sent_at):
            self.counts.garbled += 1
            return None
        if number in self._missing:
            self._missing.remove(number)
            self.counts.reordered += 1
        elif number < self._next:
            self.counts.doubled += 1
            return None
        else:
            self._missing |= set(range(self._next, number))
            self._next = number + 1
        return self._arrived(number)

    def _arrived(self, number: int) -> int:
        self.counts.arrived += 1
        self.counts.stale += number < self.stale_below
        return number


WIDER = 4  # bytes of PCM16 at 16 kHz for one of the telephone's
WIDE_FRAME = bytes(_random.randrange(256) for _ in range(WIDER * FRAME))


@dataclass(slots=True)
class Meter(Ear):
    """An ear for sound that was converted on its way: it can only count. `block` is the bytes a frame has when it arrives."""

    block: int = FRAME

    def take(self, sound: bytes, at: float) -> list[tuple[int, float]]:
        sound = self._rest + sound
        whole = min(len(sound) // self.block, len(self.sent_at) - self._next)
        self._rest = sound[whole * self.block :]
        found = [(self._arrived(number), at - self.sent_at[number]) for number in range(self._next, self._next + whole)]
        self._next += whole
        return found

    def cleared(self, turn_began: int) -> None:
        """What was cut will not come: the next bytes are the next turn's."""
        self._missing |= set(range(self._next, turn_began))
        self._next, self._rest = turn_began, b""

    def settle(self) -> Counts:
        self._rest = b""  # a filter keeps a few samples
        return Ear.settle(self)
