"""What each choice of where callers call from costs until the agent is silent: whole calls in virtual time, with nobody else there.

Not what the load measures: that one tells Vapi's word of an interruption, and this begins with the caller's first sound.
"""

from __future__ import annotations

from collections.abc import Callable

from agents.presets import PRESETS
from supportvoice.rehearsal import time_to_silence_ms


def by_preset(say: Callable[[str], None]) -> dict[str, dict[str, int]]:
    say("time to silence with each preset, in virtual time")
    return {name: {"silence_ms": time_to_silence_ms(name)} for name in PRESETS}
