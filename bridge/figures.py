"""The figures of one stream, as the history keeps them: what came in, went out, was held and was dropped at each hop, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.audio import FRAME_BYTES
from bridge.voice import AgentVoice

MOST = "_most"  # ends the names of those that are not sums


@dataclass(slots=True)
class Figures:
    """Counters of one stream, in bytes unless the name says otherwise. A frame is one message on a socket."""

    first_audio_ms: int | None = None
    interruptions: int = 0
    time_to_silence_ms: list[int] = field(default_factory=list)
    turn_latency_ms: list[int] = field(default_factory=list)
    relayed_frames: int = 0  # came from the caller and went to the agent in the same moment; the rest of both is counted apart
    relayed_odd_bytes: int = 0  # what they were longer than 20 ms each
    uplink_bytes: int = 0
    uplink_frames: int = 0
    uplink_dropped: int = 0
    uplink_held: int = 0  # now
    uplink_held_most: int = 0
    uplink_sent: int = 0
    uplink_sent_frames: int = 0
    uplink_filled: int = 0
    uplink_waited: int = 0  # not filled yet: the caller's sound may still come
    downlink_bytes: int = 0
    downlink_frames: int = 0
    downlink_flushed: int = 0
    downlink_late: int = 0  # among the flushed: came when its turn was over
    clip_bytes: int = 0
    keys: int = 0
    stuck: int = 0  # times that sound waited and nothing was sent
    dead_air: int = 0  # times that the caller was asked for patience

    @property
    def relayed_bytes(self) -> int:
        return self.relayed_frames * FRAME_BYTES + self.relayed_odd_bytes

    def as_metrics(self, voice: AgentVoice) -> dict[str, Any]:
        """As CallMetrics names them; `audio` is flat, so that the streams of a call can be added up (`together`).

        `from_agent_flushed` is what the caller did not hear, as far as marks and clock tell. The others are exact: what came from
        the caller, and the silence put into its holes, went to the agent, was dropped or is left; what came from the agent, of
        clips and back from Twilio, or was repeated, went to Twilio, was left out, dropped, let go or is left.
        """
        return {
            "first_audio_ms": self.first_audio_ms,
            "interruptions": self.interruptions,
            "time_to_silence_ms": list(self.time_to_silence_ms),
            "turn_latency_ms": list(self.turn_latency_ms),
            "audio": {
                "from_caller": self.uplink_bytes + self.relayed_bytes,
                "from_caller_frames": self.uplink_frames + self.relayed_frames,
                "from_caller_dropped": self.uplink_dropped,
                "from_caller_held_most": self.uplink_held_most,
                "from_caller_left": self.uplink_held,
                "silence_to_agent": self.uplink_filled,
                "silence_waited": self.uplink_waited,
                "to_agent": self.uplink_sent + self.relayed_bytes,
                "to_agent_frames": self.uplink_sent_frames + self.relayed_frames,
                "from_agent": self.downlink_bytes,
                "from_agent_frames": self.downlink_frames,
                "from_agent_flushed": self.downlink_flushed,
                "from_agent_dropped": voice.dropped_bytes,
                "from_agent_let_go": voice.let_go_bytes + self.downlink_late,
                "from_agent_held_most": voice.held_most,
                "from_agent_left": voice.held_bytes,
                "clips": self.clip_bytes,
                "to_caller": voice.sent_bytes,
                "to_caller_frames": voice.sent_frames,
                "to_caller_taken_back": voice.taken_back_bytes,
                "to_caller_left_out": voice.left_out_bytes,
                "to_caller_repeated": voice.repeated_bytes,
                "to_caller_held_back": voice.held_back,
                "to_caller_held_back_most": voice.held_back_most,
                "keys": self.keys,
                "stuck": self.stuck,
                "dead_air": self.dead_air,
            },
        }


def together(before: Mapping[str, int], then: Mapping[str, int]) -> dict[str, int]:
    """The counters of a call's streams in one; a most is the larger, zeros are left out."""
    names = dict.fromkeys((*before, *then))
    added = {name: (max if name.endswith(MOST) else _sum)(before.get(name, 0), then.get(name, 0)) for name in names}
    return {name: value for name, value in added.items() if value}


def _sum(one: int, other: int) -> int:
    return one + other
