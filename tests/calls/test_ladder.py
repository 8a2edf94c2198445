"""Which rung next: every caller ends with a person, a voicemail or a word, and the ladder is only gone down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls.ladder import NOT_RESUMED, DialHuman, Facts, HangUp, Resume, Target, Voicemail, decide
from calls.lifecycle import STREAM_ENDS

SAM, KIM = Target("sam"), Target("kim", ring_seconds=30)

some_facts = st.builds(
    Facts,
    is_over=st.booleans(),
    closed_why=st.sampled_from(["", "agent-ended", "caller-left", "hung-up", "handed-over", "no-agent", "agent-lost", "drained"]),
    targets=st.lists(st.sampled_from([SAM, KIM]), unique=True).map(tuple),
    wanted=st.sampled_from(["", "sam", "kim", "nobody"]),
    tried=st.frozensets(st.sampled_from(["sam", "kim"])),
    talked=st.booleans(),
    sent_on=st.booleans(),
    at_voicemail=st.booleans(),
    voicemail=st.booleans(),
    losses=st.integers(1, 5),
    resumable=st.booleans(),
)


@pytest.mark.parametrize("why", sorted(STREAM_ENDS))
def test_a_call_that_came_to_its_end_is_hung_up(why: str) -> None:
    assert decide(Facts(is_over=False, closed_why=why, targets=(SAM,), voicemail=True)) == HangUp()


@pytest.mark.parametrize("why", ["no-agent", "agent-lost", "handed-over", "drained", "caller-left", ""])
def test_a_caller_without_an_agent_gets_the_first_person(why: str) -> None:
    assert decide(Facts(is_over=False, closed_why=why, targets=(SAM, KIM))) == DialHuman(SAM)


@pytest.mark.parametrize("why", ["agent-lost", "stream-lost", "drained", "caller-left", ""])
def test_the_first_two_losses_lead_back_to_the_agent_and_the_third_to_a_person(why: str) -> None:
    steps = [decide(Facts(is_over=False, closed_why=why, targets=(SAM,), losses=losses, resumable=True)) for losses in (1, 2, 3)]
    assert steps == [Resume(), Resume(), DialHuman(SAM)]


@pytest.mark.parametrize("why", NOT_RESUMED)
def test_a_caller_for_whom_no_agent_can_be_had_or_a_person_is_meant_does_not_go_back(why: str) -> None:
    assert decide(Facts(is_over=False, closed_why=why, targets=(SAM,), losses=1, resumable=True)) == DialHuman(SAM)


def test_the_person_the_agent_asked_for_comes_first() -> None:
    assert decide(Facts(is_over=False, closed_why="handed-over", targets=(SAM, KIM), wanted="kim")) == DialHuman(KIM)


def test_nobody_is_rung_twice_and_then_there_is_voicemail_or_an_apology() -> None:
    busy = {"is_over": False, "closed_why": "agent-lost", "targets": (SAM, KIM), "sent_on": True}
    assert decide(Facts(**busy, tried=frozenset({"sam"}))) == DialHuman(KIM)  # type: ignore[arg-type]
    assert decide(Facts(**busy, tried=frozenset({"sam", "kim"}), voicemail=True)) == Voicemail()  # type: ignore[arg-type]
    assert decide(Facts(**busy, tried=frozenset({"sam", "kim"}))) == HangUp(sorry=True)  # type: ignore[arg-type]


def test_from_the_voicemail_nobody_is_rung_any_more() -> None:
    new_colleague = Facts(is_over=False, closed_why="agent-lost", targets=(SAM,), sent_on=True, at_voicemail=True, voicemail=True)
    assert decide(new_colleague) == Voicemail()


def test_a_caller_who_was_sent_on_is_not_hung_up_on_by_late_news_of_the_stream() -> None:
    assert decide(Facts(is_over=False, closed_why="agent-ended", targets=(SAM,), sent_on=True)) == DialHuman(SAM)


@given(some_facts)
def test_a_live_caller_is_never_hung_up_on_without_a_word(facts: Facts) -> None:
    step = decide(facts)
    assert decide(facts) == step
    if step == HangUp():
        assert facts.is_over or facts.talked or (facts.closed_why in STREAM_ENDS and not facts.sent_on)
    if isinstance(step, DialHuman):
        assert step.target in facts.targets
        assert step.target.slug not in facts.tried
        assert not facts.at_voicemail
    if step == Resume():
        assert facts.resumable
        assert not facts.sent_on
        assert facts.losses <= 2
    if step == HangUp(sorry=True):
        assert not facts.voicemail
