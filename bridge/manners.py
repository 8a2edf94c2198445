"""How much bad traffic a peer may send before it is not the peer it claims to be.

A bad message is dropped and counted by its kind; more than 20 within 10 s and there is no use in going on. Too many good
ones are bad too: each wire has its usual pace, with room for a burst after a stall. Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

BAD_LIMIT = 20
BAD_WITHIN_S = 10.0
# Messages a second in the long run, and at once.
TWILIO = {"sound": (60, 500), "other": (10, 100)}  # 50 frames a second are normal; a stall of 10 s may be made up for
VAPI = {"text": (100, 500)}  # some ten a second are normal, and each may become a row of history


class OutOfPatience(Exception):
    """A peer has sent more bad messages than anybody would by accident."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """What stands for a message that was thrown away unread; `kind` is a word to count it under."""

    kind: str


class Manners:
    """One peer's behaviour on one socket: `counts` of bad messages by kind, and how many good ones were of no use (`ignored`)."""

    def __init__(self, paces: Mapping[str, tuple[float, float]]) -> None:
        self.ignored = 0
        self.counts: Counter[str] = Counter()
        self._recent: deque[float] = deque(maxlen=BAD_LIMIT + 1)
        self._buckets = {what: _Bucket(*pace) for what, pace in paces.items()}

    def bad(self, kind: str, now: float) -> None:
        """Count one bad message. Raises OutOfPatience when it was one too many."""
        self.counts[kind] += 1
        self._recent.append(now)
        if len(self._recent) > BAD_LIMIT and now - self._recent[0] < BAD_WITHIN_S:
            raise OutOfPatience

    def keeps_pace(self, what: str, now: float) -> bool:
        """False when there is no room for one more message of this sort: a bad one then. Raises OutOfPatience."""
        if self._buckets[what].take(now):
            return True
        self.bad("flood", now)
        return False

    def pace(self, what: str) -> Callable[[float], bool]:
        """The part of `keeps_pace` that nearly every message passes: False when `keeps_pace` has to be asked."""
        return self._buckets[what].take

    def as_figures(self, wire: str) -> dict[str, int]:
        """Flat, to be added up over the streams of a call: `<wire>.<kind>`."""
        figures = {f"{wire}.{kind}": count for kind, count in self.counts.items()}
        return figures | ({f"{wire}.ignored": self.ignored} if self.ignored else {})


class _Bucket:
    """`_full_at`: when there will be room for a whole burst again."""

    __slots__ = ("_each", "_full_at", "_longest")

    def __init__(self, per_s: float, burst: float) -> None:
        self._each, self._longest = 1 / per_s, (burst - 0.999) / per_s
        self._full_at = 0.0

    def take(self, now: float) -> bool:
        full_at = self._full_at
        if full_at < now:
            full_at = now
        elif full_at - now > self._longest:
            return False
        self._full_at = full_at + self._each
        return True
