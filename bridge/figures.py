"""The figures of one stream, as the history keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bridge.voice import AgentVoice


@dataclass(slots=True)
class Figures:
    """Counters of one stream, in bytes unless the name says otherwise."""

    first_audio_ms: int | None = None
    interruptions: int = 0
    time_to_silence_ms: list[int] = field(default_factory=list)
    turn_latency_ms: list[int] = field(default_factory=list)
    uplink_bytes: int = 0
    uplink_dropped: int = 0
    uplink_filled: int = 0
    downlink_bytes: int = 0
    downlink_flushed: int = 0
    downlink_late: int = 0  # among the flushed: came when its turn was over
    clip_bytes: int = 0
    keys: int = 0
    stuck: int = 0  # times that sound waited and nothing was sent
    dead_air: int = 0  # times that the caller was asked for patience

    def as_metrics(self, voice: AgentVoice) -> dict[str, Any]:
        """As CallMetrics names them; `audio` is flat, so that the streams of a call can be added up.

        `from_agent_flushed` is what the caller did not hear, as far as marks and clock tell. The others are exact: what came from
        the agent, of clips and back from Twilio is what went to Twilio, was dropped or let go.
        """
        return {
            "first_audio_ms": self.first_audio_ms,
            "interruptions": self.interruptions,
            "time_to_silence_ms": list(self.time_to_silence_ms),
            "turn_latency_ms": list(self.turn_latency_ms),
            "audio": {
                "from_caller": self.uplink_bytes,
                "from_caller_dropped": self.uplink_dropped,
                "silence_to_agent": self.uplink_filled,
                "from_agent": self.downlink_bytes,
                "from_agent_flushed": self.downlink_flushed,
                "from_agent_dropped": voice.dropped_bytes,
                "from_agent_let_go": voice.let_go_bytes + self.downlink_late,
                "clips": self.clip_bytes,
                "to_caller": voice.sent_bytes,
                "to_caller_taken_back": voice.taken_back_bytes,
                "keys": self.keys,
                "stuck": self.stuck,
                "dead_air": self.dead_air,
            },
        }
