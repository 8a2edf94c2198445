"""Which state of a call may follow which, and what an ending means. Pure: rows are changed in `calls.services`.

A call moves along these edges only. `ended` and `finalised` never go back.
"""

from __future__ import annotations

from dataclasses import dataclass

from calls.models import EndReason, Outcome, Status

EDGES: dict[Status, frozenset[Status]] = {
    Status.RECEIVED: frozenset({Status.WAITING, Status.CONNECTING, Status.TRANSFERRING, Status.VOICEMAIL, Status.ENDED}),
    Status.WAITING: frozenset({Status.CONNECTING, Status.TRANSFERRING, Status.VOICEMAIL, Status.ENDED}),
    Status.CONNECTING: frozenset({Status.STREAMING, Status.RECOVERING, Status.TRANSFERRING, Status.VOICEMAIL, Status.ENDED}),
    Status.STREAMING: frozenset({Status.RECOVERING, Status.TRANSFERRING, Status.VOICEMAIL, Status.ENDED}),
    Status.RECOVERING: frozenset({Status.CONNECTING, Status.STREAMING, Status.TRANSFERRING, Status.VOICEMAIL, Status.ENDED}),
    Status.TRANSFERRING: frozenset({Status.CONNECTING, Status.VOICEMAIL, Status.ENDED}),
    Status.VOICEMAIL: frozenset({Status.ENDED}),
    Status.ENDED: frozenset({Status.FINALISED}),
    Status.FINALISED: frozenset(),
}

#: what a bridge says when the call ended along with its stream (`bridge.ports.Closing.why`); after any other word it goes on elsewhere.
#: `caller-left` is none of these: Twilio's `stop` ends a stream, and the caller may be there. The call's own status tells.
STREAM_ENDS = {"agent-ended": EndReason.AGENT_ENDED, "hung-up": EndReason.AGENT_ENDED}

OUTCOMES: dict[EndReason, Outcome] = {
    EndReason.AGENT_ENDED: Outcome.RESOLVED,
    EndReason.HUMAN_ENDED: Outcome.HANDED_OVER,
    EndReason.VOICEMAIL_LEFT: Outcome.VOICEMAIL,
    EndReason.CALLBACK_PROMISED: Outcome.CALLBACK,
    EndReason.REFUSED: Outcome.FAILED,
    EndReason.FAILED: Outcome.FAILED,
}


@dataclass(frozen=True, slots=True)
class Told:
    """What the rows tell of how a call went on: a message was left, a call back promised, a person talked, or the caller
    was `waiting` for any of that, or for the agent to answer."""

    message: bool = False
    callback: bool = False
    talked: bool = False
    waiting: bool = False


def may(status: Status, to: Status) -> bool:
    return to in EDGES[status]


def sources(to: Status) -> frozenset[Status]:
    """The states a call may come from to be in `to`."""
    return frozenset(status for status, following in EDGES.items() if to in following)


def outcome_of(reason: EndReason) -> Outcome:
    """What an ending says about the call when nobody knows more."""
    return OUTCOMES.get(reason, Outcome.UNKNOWN)


def ending(said: EndReason, told: Told) -> tuple[EndReason, Outcome]:
    """How a call ended, from the word of who ended it and from what else is told of it.

    Twilio's word of a hang-up may overtake the news of what came before it. So this is asked again with every news, and
    gives the same answer in whatever order they came.
    """
    if told.message:
        said = EndReason.VOICEMAIL_LEFT
    elif told.callback:
        said = EndReason.CALLBACK_PROMISED
    elif told.talked:
        said = EndReason.HUMAN_ENDED
    elif said in (EndReason.CALLER_HUNG_UP, EndReason.HUMAN_ENDED):
        return EndReason.CALLER_HUNG_UP, Outcome.ABANDONED if told.waiting else Outcome.UNKNOWN
    return said, outcome_of(said)
