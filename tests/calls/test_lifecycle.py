"""The table of states and what endings mean."""

from __future__ import annotations

import pytest

from calls import lifecycle
from calls.models import EndReason, Outcome, Status

CALL_MD = {
    "received": "waiting connecting transferring voicemail ended",
    "waiting": "connecting transferring voicemail ended",
    "connecting": "streaming recovering transferring voicemail ended",
    "streaming": "recovering transferring voicemail ended",
    "recovering": "connecting streaming transferring voicemail ended",
    "transferring": "connecting voicemail ended",
    "voicemail": "ended",
    "ended": "finalised",
    "finalised": "",
}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("to", Status)
def test_the_edges_are_those_we_agreed_on(status: Status, to: Status) -> None:
    assert lifecycle.may(status, to) is (to.value in CALL_MD[status.value].split())
    assert (status in lifecycle.sources(to)) is lifecycle.may(status, to)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("assistant-ended-call", EndReason.AGENT_ENDED),
        ("assistant-said-end-call-phrase", EndReason.AGENT_ENDED),
        ("customer-ended-call", EndReason.AGENT_ENDED),
        ("manually-canceled", EndReason.AGENT_ENDED),
        ("silence-timed-out", EndReason.SILENCE),
        ("exceeded-max-duration", EndReason.MAX_DURATION),
        ("pipeline-error-openai-401-unauthorized", EndReason.FAILED),
        ("call.in-progress.error-vapifault-worker-died", EndReason.FAILED),
        ("call.start.error-subscription-frozen", EndReason.FAILED),
        ("assistant-join-timed-out", EndReason.FAILED),
        ("assistant-not-found", EndReason.FAILED),
        ("worker-shutdown", EndReason.FAILED),
        ("phone-call-provider-closed-websocket", EndReason.FAILED),
        ("a value of next year", EndReason.AGENT_ENDED),
    ],
)
def test_the_vendors_reasons_become_ours(raw: str, reason: EndReason) -> None:
    assert lifecycle.vapi_reason(raw) is reason


def test_every_ending_has_an_outcome() -> None:
    outcomes = {reason: lifecycle.outcome_of(reason) for reason in EndReason}
    assert outcomes[EndReason.AGENT_ENDED] is Outcome.RESOLVED
    assert outcomes[EndReason.CALLER_HUNG_UP] is Outcome.UNKNOWN
    assert outcomes[EndReason.FAILED] is Outcome.FAILED
