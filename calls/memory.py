"""How a further agent takes up a conversation that another one had.

It is told the end of it, word for word, as far as it was heard. Its first words depend on how the other one went.
"""

from __future__ import annotations

from agents import payload
from agents.payload import Said, TakenUp
from bridge.longest import ROLLED_OVER
from calls import ended_reasons, taking_back
from calls.models import CallSession, Heard, Role, TranscriptLine, VapiSession

LONGEST_MEMORY = 40  # lines ...
LONGEST_TOLD = 8000  # ... and characters, the newest first
HANDED_ON = "conversation-handed-on"  # the event of a call whose process left in good order
SPEAKERS = {Role.ASSISTANT: "assistant", Role.HUMAN: "assistant", Role.USER: "user"}


def taken_up(session: VapiSession) -> TakenUp | None:
    """None for a call's first agent."""
    if not _follows_another(session):
        return None
    news = taking_back.news(session)
    opening = payload.HANDED_ON if _was_handed_on(session) else payload.RESUMED
    if _rolled_over(session):
        opening = ""
    elif news is not None and news.opening:
        opening = news.opening
    return TakenUp(so_far(session.call), opening, news.told if news is not None else "")


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


def _follows_another(session: VapiSession) -> bool:
    """True when an agent has been on the line before: then nobody is greeted again."""
    before = session.call.vapi_sessions.filter(n__lt=session.n, live_at__isnull=False)
    return any(not ended_reasons.limit(each.ended_reason) for each in before)


def _rolled_over(session: VapiSession) -> bool:
    """True when this session took the place of one whose longest time was near."""
    return session.n > 0 and session.call.events.filter(kind=ROLLED_OVER, detail__n=session.n).exists()


def _was_handed_on(session: VapiSession) -> bool:
    """The agent before this one had said its say, and its caller has nothing to be sorry for."""
    return session.n > 0 and session.call.events.filter(kind=HANDED_ON, detail__n=session.n - 1).exists()
