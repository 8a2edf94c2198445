"""What a further agent is told of a conversation that another one had: its end, word for word, as far as it was heard."""

from __future__ import annotations

from agents.payload import Said
from calls.models import CallSession, Heard, Role, TranscriptLine, VapiSession

LONGEST_MEMORY = 40  # lines ...
LONGEST_TOLD = 8000  # ... and characters, the newest first
HANDED_ON = "conversation-handed-on"  # the event of a call whose process left in good order
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


def was_handed_on(session: VapiSession) -> bool:
    """The agent before this one had said its say, and its caller has nothing to be sorry for."""
    return session.n > 0 and session.call.events.filter(kind=HANDED_ON, detail__n=session.n - 1).exists()
