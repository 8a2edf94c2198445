"""Which state of a call may follow which, and what an ending means. Pure: rows are changed in `calls.services`.

A call moves along these edges only. `ended` and `finalised` never go back.
"""

from __future__ import annotations

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

#: what a bridge says when the call ended along with its stream (`bridge.ports.Closing.why`); after any other word it goes on elsewhere
STREAM_ENDS = {"agent-ended": EndReason.AGENT_ENDED, "hung-up": EndReason.AGENT_ENDED, "caller-left": EndReason.CALLER_HUNG_UP}

OUTCOMES: dict[EndReason, Outcome] = {
    EndReason.AGENT_ENDED: Outcome.RESOLVED,
    EndReason.HUMAN_ENDED: Outcome.HANDED_OVER,
    EndReason.VOICEMAIL_LEFT: Outcome.VOICEMAIL,
    EndReason.CALLBACK_PROMISED: Outcome.CALLBACK,
    EndReason.REFUSED: Outcome.FAILED,
    EndReason.FAILED: Outcome.FAILED,
}

FAILED_PARTS = ("error", "fault", "worker-", "not-found", "not-valid", "assistant-request", "timed-out", "closed-websocket")


def may(status: Status, to: Status) -> bool:
    return to in EDGES[status]


def sources(to: Status) -> frozenset[Status]:
    """The states a call may come from to be in `to`."""
    return frozenset(status for status, following in EDGES.items() if to in following)


def outcome_of(reason: EndReason) -> Outcome:
    """What an ending says about the call when nobody knows more."""
    return OUTCOMES.get(reason, Outcome.UNKNOWN)


def vapi_reason(raw: str) -> EndReason:
    """Our word for the vendor's `endedReason`: 600 values and growing, so matched by their parts. The raw one is kept too.

    Vapi's "customer" is the audio socket, which is ours: that value means an ordinary end, whoever wanted it.
    """
    if raw == "silence-timed-out":
        return EndReason.SILENCE
    if raw == "exceeded-max-duration":
        return EndReason.MAX_DURATION
    if any(part in raw for part in FAILED_PARTS):
        return EndReason.FAILED
    return EndReason.AGENT_ENDED
