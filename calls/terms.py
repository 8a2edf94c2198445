"""On what terms a stream is carried: the manners of the version that answers the call, and of its line."""

from __future__ import annotations

from typing import Any

from agents.models import AtLongest, FirstMessageMode, Sound
from bridge.ports import Admission, CallRef


def terms(ref: CallRef, words: Any, *, zero_for_person: bool) -> Admission:
    """`words` is a version, a row or remembered. An agent that goes on with a conversation speaks first and may be interrupted."""
    resumed = ref.epoch > 0
    return Admission(
        ref=ref,
        barge_in=words.barge_in,
        greeting_interruptible=resumed or words.first_message_interruptible,
        agent_speaks_first=resumed or words.first_message_mode != FirstMessageMode.CALLER_FIRST,
        tell_heard=words.tell_heard,
        wideband=words.sound == Sound.WIDEBAND,
        zero_for_person=zero_for_person,
        keypad_digits=words.keypad_digits if words.keypad else 0,
        keypad_end=words.keypad_end,
        longest_s=words.max_duration_s,
        goes_on=words.at_longest == AtLongest.GO_ON,
        time_is_up=words.time_is_up,
    )
