"""Where callers call from, and what follows for how the agent listens and takes turns. One table; pure.

A preset fills fields and is no rule beside them: what a version holds are the values, and a manager may change any of them
afterwards. So the desk, the file of agents as code and this page always mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agents.limits import TRANSCRIBERS


@dataclass(frozen=True, slots=True)
class Preset:
    """`means` is what a manager reads; `values` are fields of `AgentWords`."""

    means: str
    values: Mapping[str, Any]


USUAL = "quiet"
PRESETS: Mapping[str, Preset] = {
    "quiet": Preset(
        "The agent stops at the first sound of the caller.",
        {
            "barge_in": "instant",
            "wait_seconds": 0.4,
            "stop_words": 0,
            "stop_voice_seconds": 0.2,
            "backoff_seconds": 1.0,
            "endpointing_ms": None,
        },
    ),
    "mobile": Preset(
        "Now and then a gust or a horn. The agent pauses at a sound, and stops when it is a voice.",
        {
            "barge_in": "confirm",
            "wait_seconds": 0.5,
            "stop_words": 0,
            "stop_voice_seconds": 0.4,
            "backoff_seconds": 1.0,
            "endpointing_ms": 150,
        },
    ),
    "noisy": Preset(
        "Hold music, workshops, speakerphones that send the agent's voice back. The agent stops for two words, not for sounds.",
        {
            "barge_in": "confirm",
            "wait_seconds": 0.6,
            "stop_words": 2,
            "stop_voice_seconds": 0.5,
            "backoff_seconds": 1.2,
            "endpointing_ms": 300,
        },
    ),
}
FIELDS = tuple(PRESETS[USUAL].values)


def values(name: str, *, transcriber: str) -> dict[str, Any]:
    """What a preset fills in, as far as this transcriber can be told it. An unknown name is the usual one."""
    chosen = dict(PRESETS.get(name, PRESETS[USUAL]).values)
    if transcriber not in TRANSCRIBERS or not TRANSCRIBERS[transcriber].endpointing:
        chosen["endpointing_ms"] = None
    return chosen


def changed(words: Mapping[str, Any]) -> list[str]:
    """The fields in which an agent's words are other than its preset says."""
    usual = values(words["callers_from"], transcriber=words["transcriber_provider"])
    return [name for name, value in usual.items() if words[name] != value]
