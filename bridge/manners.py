"""How much bad traffic a peer may send before it is not the peer it claims to be.

A bad message is dropped and counted by its kind; more than 20 within 10 s and there is no use in going on. Too many good
ones are bad too: each wire has its usual pace, with room for a burst after a stall. Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

from collections import Counter, deque

BAD_LIMIT = 20
BAD_WITHIN_S = 10.0


class OutOfPatience(Exception):
    """A peer has sent more bad messages than anybody would by accident."""


class Manners:
    """One peer's behaviour on one socket: `counts` of bad messages by kind, and how many good ones were of no use (`ignored`)."""

    def __init__(self) -> None:
        self.ignored = 0
        self.counts: Counter[str] = Counter()
        self._recent: deque[float] = deque(maxlen=BAD_LIMIT + 1)

    def bad(self, kind: str, now: float) -> None:
        """Count one bad message. Raises OutOfPatience when it was one too many."""
        self.counts[kind] += 1
        self._recent.append(now)
        if len(self._recent) > BAD_LIMIT and now - self._recent[0] < BAD_WITHIN_S:
            raise OutOfPatience

    def as_figures(self, wire: str) -> dict[str, int]:
        """Flat, to be added up over the streams of a call: `<wire>.<kind>`."""
        figures = {f"{wire}.{kind}": count for kind, count in self.counts.items()}
        return figures | ({f"{wire}.ignored": self.ignored} if self.ignored else {})


class Bucket:
    """A pace: `per_s` messages a second in the long run, `burst` at once."""

    def __init__(self, *, per_s: float, burst: float, now: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._room, self._at = burst, now

    def take(self, now: float) -> bool:
        """True when one more message is within the pace."""
        room = self._room + (now - self._at) * self._per_s
        self._at = now
        self._room = min(room, self._burst) - 1
        if self._room < 0:
            self._room += 1
            return False
        return True
