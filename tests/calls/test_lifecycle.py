"""The table of states and what endings mean."""

from __future__ import annotations

import itertools

import pytest

from calls import lifecycle
from calls.lifecycle import Told
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


def test_every_ending_has_an_outcome() -> None:
    outcomes = {reason: lifecycle.outcome_of(reason) for reason in EndReason}
    assert outcomes[EndReason.AGENT_ENDED] is Outcome.RESOLVED
    assert outcomes[EndReason.CALLER_HUNG_UP] is Outcome.UNKNOWN
    assert outcomes[EndReason.FAILED] is Outcome.FAILED


@pytest.mark.parametrize(
    ("said", "told", "ending"),
    [
        (EndReason.CALLER_HUNG_UP, Told(), (EndReason.CALLER_HUNG_UP, Outcome.UNKNOWN)),
        (EndReason.CALLER_HUNG_UP, Told(waiting=True), (EndReason.CALLER_HUNG_UP, Outcome.ABANDONED)),
        (EndReason.CALLER_HUNG_UP, Told(talked=True, waiting=True), (EndReason.HUMAN_ENDED, Outcome.HANDED_OVER)),
        (EndReason.HUMAN_ENDED, Told(waiting=True), (EndReason.CALLER_HUNG_UP, Outcome.ABANDONED)),
        (EndReason.CALLER_HUNG_UP, Told(message=True, callback=True, waiting=True), (EndReason.VOICEMAIL_LEFT, Outcome.VOICEMAIL)),
        (EndReason.TTL, Told(callback=True, waiting=True), (EndReason.CALLBACK_PROMISED, Outcome.CALLBACK)),
        (EndReason.FAILED, Told(waiting=True), (EndReason.FAILED, Outcome.FAILED)),
        (EndReason.AGENT_ENDED, Told(waiting=True), (EndReason.AGENT_ENDED, Outcome.RESOLVED)),
    ],
)
def test_how_a_call_ended_is_read_from_all_that_is_told(said: EndReason, told: Told, ending: tuple[EndReason, Outcome]) -> None:
    assert lifecycle.ending(said, told) == ending


@pytest.mark.parametrize("told", [Told(*flags) for flags in itertools.product([False, True], repeat=4)])
@pytest.mark.parametrize("said", EndReason)
def test_an_ending_that_is_read_again_stays(said: EndReason, told: Told) -> None:
    reason, outcome = lifecycle.ending(said, told)
    assert lifecycle.ending(reason, told) == (reason, outcome)
