"""What a further agent is told of a conversation that was lost: its end, word for word, as far as it was heard."""

from __future__ import annotations

from agents.payload import Said
from calls.models import CallSession, Heard, Role, TranscriptLine

LONGEST_MEMORY = 40  # lines ...
LONGEST_TOLD = 8000  # ... and characters, the newest first
SPEAKERS = {Role.ASSISTANT: "assistant", Role.HUMAN: "assistant", Role.USER: "user"}


def so_far(call: CallSession) -> tuple[Said, ...]:
    """Oldest first; what the caller did not hear was not said."""
    told: list[Said] = []
    room = LONGEST_TOLD
    for line in TranscriptLine.objects.filter(call=call, role__in=SPEAKERS).order_by("-n", "-vendor_ms", "-id")[:LONGEST_MEMORY]:
        words = {Heard.FULL: line.said, Heard.PART: line.heard_text, Heard.NONE: ""}[Heard(line.heard)]
        room -= len(words)
        if room < 0:
            break
        if words:
            told.append(Said(SPEAKERS[Role(line.role)], words))
    return tuple(told[::-1])
