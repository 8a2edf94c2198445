"""The caller's voice on its way to the agent: relayed as it comes, kept until the agent is there, never a hole in it.

Vapi wants a frame every 20 ms for ever, so gaps longer than 60 ms are filled with silence until the caller is back. Where gaps
are made up for, because the network is uneven, a longer one is waited for first (`bridge.lateness`).
Pure: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

from bridge.actions import Action, ToAgent
from bridge.audio import BYTES_PER_S, FRAME_BYTES, FRAME_S, SILENT_FRAME, seconds
from bridge.doubt import Doubt
from bridge.figures import Figures
from bridge.lateness import Lateness
from bridge.moments import NEVER
from bridge.rules import Rules


class CallerVoice:
    """`fill_at` is when `fill` wants to be called; never while no agent listens. `heard_at`: when there was sound last."""

    __slots__ = ("_backlog", "_doubt", "_figures", "_fill_gap_after", "_gap_at", "_lateness", "_look_at", "_rules", "fill_at", "heard_at")

    def __init__(self, rules: Rules, figures: Figures, lateness: Lateness, doubt: Doubt, now: float) -> None:
        self._rules, self._figures, self._lateness, self._doubt = rules, figures, lateness, doubt
        self._fill_gap_after = rules.fill_gap_after
        self._backlog = bytearray()
        self._gap_at = NEVER  # when the last one began
        self._look_at = NEVER  # what `fill_at` was set to while it lasted: no frame has put it off since
        self.fill_at, self.heard_at = NEVER, now

    def relays(self, ulaw: bytes, now: float) -> bool:
        """True, and counted, when this sound goes to the agent as it is."""
        if self.fill_at == NEVER:
            return False
        figures, n_bytes = self._figures, len(ulaw)
        figures.relayed_frames += 1
        if n_bytes != FRAME_BYTES:
            figures.relayed_odd_bytes += n_bytes - FRAME_BYTES
        if figures.relayed_frames & 1:
            self._doubt.caller_sound(ulaw, now)
        self.heard_at, self.fill_at = now, now + self._fill_gap_after
        return True

    def add(self, ulaw: bytes, now: float) -> list[Action]:
        """Before the agent is there the newest 5 s are kept, the oldest dropped and counted."""
        if self.relays(ulaw, now):
            return [ToAgent(ulaw)]
        self.heard_at, figures = now, self._figures
        figures.uplink_bytes += len(ulaw)
        figures.uplink_frames += 1
        if figures.uplink_frames & 1:
            self._doubt.caller_sound(ulaw, now)
        self._backlog += ulaw
        excess = len(self._backlog) - self._rules.backlog_limit
        if excess > 0:
            del self._backlog[:excess]
            figures.uplink_dropped += excess
        figures.uplink_held = len(self._backlog)
        figures.uplink_held_most = max(figures.uplink_held_most, figures.uplink_held)
        return []

    @property
    def has_agent(self) -> bool:
        """Somebody is to hear what the caller says."""
        return self.fill_at != NEVER

    def connected(self, now: float) -> list[Action]:
        """The agent listens from now on: first what the caller said so far, a second in a message."""
        backlog, self._backlog, self._figures.uplink_held = bytes(self._backlog), bytearray(), 0
        self.fill_at = now + FRAME_S if backlog else now
        seconds = [backlog[start : start + BYTES_PER_S] for start in range(0, len(backlog), BYTES_PER_S)]
        return [self._to_agent(second) for second in seconds] or self.fill(now)

    def disconnected(self) -> None:
        self.fill_at = NEVER

    def fill(self, now: float) -> list[Action]:
        """Nothing has come for 60 ms or more: a frame of silence for each that fell due, or nothing yet when sound may still come."""
        if self.fill_at != self._look_at:
            self._gap_at = self.fill_at - self._fill_gap_after
        self._lateness.hole(self._gap_at, now, sound_s=seconds(self._figures.uplink_bytes + self._figures.relayed_bytes))
        frames = self._fall_due(now)
        if now - self._gap_at < self._lateness.patience(now):
            self._figures.uplink_waited += frames * len(SILENT_FRAME)
            return []
        self._figures.uplink_filled += frames * len(SILENT_FRAME)
        return [self._to_agent(SILENT_FRAME) for _ in range(frames)]

    def _fall_due(self, now: float) -> int:
        """How many frames have since the last look, which comes late by up to a slot. After a longer sleep the caller's own sound waits."""
        if now - self.fill_at >= self._fill_gap_after:
            self.fill_at = now
        frames = 0
        while self.fill_at <= now:
            self.fill_at += FRAME_S
            frames += 1
        self._look_at = self.fill_at
        return frames

    def _to_agent(self, ulaw: bytes) -> ToAgent:
        self._figures.uplink_sent += len(ulaw)
        self._figures.uplink_sent_frames += 1
        return ToAgent(ulaw)
