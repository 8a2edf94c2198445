"""What the AI says and knows when it has a caller back whom it sent to people, because nobody came."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from calls import callbacks
from calls.models import CallSession, VapiSession

TAKEN_BACK = "taken-back"  # the event
NOBODY = {"nobody-answered": "nobody is free right now", "closed-hours": "nobody is at work right now"}
TOLD = (
    "You wanted to hand the caller to a person, but {nobody}. You have told the caller so. Do not try to connect them again. {offer} "
    "Whatever time a tool answers with, say it to the caller exactly. If they want neither, help as well as you can."
)


class News(NamedTuple):
    """That nobody came: what the model must know of it, and the first words that say so ("": they were said before)."""

    told: str
    opening: str


def news(session: VapiSession) -> News | None:
    """For a session of a call that was taken back; only the first one after it opens with it."""
    happened = session.call.events.filter(kind=TAKEN_BACK, detail__n__lte=session.n).order_by("seq").last()
    if happened is None:
        return None
    nobody = NOBODY[happened.detail["why"]]
    told = TOLD.format(nobody=nobody, offer=to_offer(session.call, session.asked_at))
    is_news = happened.detail["n"] == session.n
    return News(told, f"I'm sorry, {nobody}. {_question(session.call, session.asked_at)}" if is_news else "")


def to_offer(call: CallSession, at: datetime) -> str:
    """What the model can do for a caller nobody comes for, in words to it."""
    ways = []
    if call.line is not None and call.line.voicemail:
        ways.append("to take a message (take_message)")
    if callbacks.may_be_called(call):
        ways.append(f"a call back {_when(call, at)} (promise_callback)")
    return f"Offer {' or '.join(ways)}." if ways else "Neither a message nor a call back is possible."


def _question(call: CallSession, at: datetime) -> str:
    """The same, asked of the caller."""
    message, callback = call.line is not None and call.line.voicemail, callbacks.may_be_called(call)
    if message and callback:
        return f"I can take a message, or have somebody call you back {_when(call, at)}. Which would you like?"
    if callback:
        return f"Shall somebody call you back {_when(call, at)}?"
    return "Would you like to leave a message?" if message else "What else can I do for you?"


def _when(call: CallSession, at: datetime) -> str:
    return callbacks.when(call, callbacks.due(call, at=at), at=at)
