"""The caller's voice on its way to the agent: relayed as it comes, kept until the agent is there, never a hole in it.

Vapi wants a frame every 20 ms for ever, so gaps longer than 60 ms are filled with silence until the caller is back.
Pure: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

from bridge.actions import Action, ToAgent
from bridge.audio import FRAME_S, SILENT_FRAME
from bridge.figures import Figures
from bridge.rules import Rules


class CallerVoice:
    """`fill_at` is when `fill` wants to be called; None while no agent listens."""

    def __init__(self, rules: Rules, figures: Figures) -> None:
        self._rules, self._figures = rules, figures
        self._backlog = bytearray()
        self.fill_at: float | None = None

    def add(self, ulaw: bytes, now: float) -> list[Action]:
        """Before the agent is there the newest 5 s are kept, the oldest dropped and counted."""
        self._figures.uplink_bytes += len(ulaw)
        if self.fill_at is not None:
            self.fill_at = now + self._rules.fill_gap_after
            return [ToAgent(ulaw)]
        self._backlog += ulaw
        excess = len(self._backlog) - self._rules.backlog_limit
        if excess > 0:
            del self._backlog[:excess]
            self._figures.uplink_dropped += excess
        return []

    def connected(self, now: float) -> list[Action]:
        """The agent listens from now on: first what the caller said so far."""
        self.fill_at = now + FRAME_S
        backlog, self._backlog = bytes(self._backlog), bytearray()
        return [ToAgent(backlog)] if backlog else self.fill(now)

    def disconnected(self) -> None:
        self.fill_at = None

    def fill(self, now: float) -> list[Action]:
        self.fill_at = now + FRAME_S
        self._figures.uplink_filled += len(SILENT_FRAME)
        return [ToAgent(SILENT_FRAME)]
