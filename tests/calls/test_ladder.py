"""Which rung next: every caller ends with a person, the AI, a voicemail or a word, whatever is known of the call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from calls import ladder
from calls.ladder import NOT_RESUMED, DialHuman, Facts, HangUp, Resume, Step, TakeBack, Target, Voicemail, Wait, decide
from calls.lifecycle import STREAM_ENDS

SAM, KIM = Target("sam"), Target("kim", ring_seconds=30)
BOOLEANS = (
    *("is_over", "talked", "sent_on", "at_voicemail", "voicemail", "resumable"),
    *("is_open", "by_wish", "message_wanted", "agent_at_hand"),
)
PEOPLE = [((), frozenset()), ((SAM,), frozenset()), ((SAM,), frozenset({"sam"})), ((SAM, KIM), frozenset({"sam"}))]
LOSSES = [  # conversations, streams in a row that let nobody in, and processes that died in a row
    *((1, 0, 0), (3, 0, 0), (3, 1, 0), (1, ladder.TURNED_AWAY + 1, 0)),
    *((0, 0, 1), (2, 0, ladder.DEATHS), (0, 0, ladder.DEATHS + 1)),
]
NOBODY_CAME = Facts(
    is_over=False,
    closed_why="handed-over",
    targets=(SAM,),
    tried=frozenset({"sam"}),
    sent_on=True,
    by_wish=True,
    agent_at_hand=True,
)
IN_THE_QUEUE = Facts(is_over=False, closed_why="", targets=(SAM,), voicemail=True, waiting_s=0.0, has_room=False)


def all_facts() -> Iterator[Facts]:
    """Every combination: all switches, the ways a stream may end, who is there, and losses of each kind up to one too many, take-backs."""
    whys = ("", "agent-ended", "handed-over", "no-agent", "agent-lost")
    for switches in product((False, True), repeat=len(BOOLEANS)):
        named = dict(zip(BOOLEANS, switches, strict=True))
        for why, (targets, tried), (losses, empty, deaths), taken_back in product(whys, PEOPLE, LOSSES, (0, 1, 3)):
            its = {"losses": losses, "turned_away": empty, "deaths": deaths, "taken_back": taken_back}
            yield Facts(closed_why=why, targets=targets, tried=tried, **its, **named)  # type: ignore[arg-type]


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


def test_two_streams_that_let_nobody_in_lead_back_to_the_agent_that_waits_whatever_was_lost_and_the_third_to_a_person() -> None:
    lost = Facts(is_over=False, closed_why="", targets=(SAM,), losses=ladder.RESUMES + 1, resumable=True)
    assert [decide(replace(lost, turned_away=empty)) for empty in (1, 2, 3)] == [Resume(), Resume(), DialHuman(SAM)]
    assert decide(replace(lost, losses=0, turned_away=3)) == DialHuman(SAM)


def test_two_deaths_of_our_processes_lead_back_to_the_same_account_and_the_third_to_a_person() -> None:
    dead = Facts(is_over=False, closed_why="", targets=(SAM,), resumable=True, backup=True)
    for losses in range(ladder.RESUMES):
        steps = [decide(replace(dead, losses=losses, deaths=deaths)) for deaths in (1, 2, 3)]
        assert steps == [Resume(), Resume(), DialHuman(SAM)]
    assert decide(replace(dead, losses=ladder.RESUMES, deaths=2)) == Resume(backup=True), "where the agent's losses have led to"
    assert decide(replace(dead, main=False, deaths=1)) == Resume(backup=True), "where an agent is to be had"


@pytest.mark.parametrize("why", NOT_RESUMED)
def test_a_caller_for_whom_no_agent_can_be_had_or_a_person_is_meant_does_not_go_back(why: str) -> None:
    assert decide(Facts(is_over=False, closed_why=why, targets=(SAM,), losses=1, resumable=True)) == DialHuman(SAM)


def test_the_person_the_agent_asked_for_comes_first() -> None:
    assert decide(Facts(is_over=False, closed_why="handed-over", targets=(SAM, KIM), wanted="kim")) == DialHuman(KIM)


def test_when_nobody_comes_the_ai_has_the_caller_back_once_and_then_there_is_the_voicemail() -> None:
    with_voicemail = replace(NOBODY_CAME, voicemail=True)
    assert decide(with_voicemail) == TakeBack()
    assert decide(replace(with_voicemail, taken_back=1)) == Voicemail()


def test_without_a_voicemail_the_ai_has_the_caller_back_more_often_but_not_for_ever() -> None:
    steps = [decide(replace(NOBODY_CAME, taken_back=before)) for before in range(4)]
    assert steps == [TakeBack(), TakeBack(), TakeBack(), HangUp(sorry=True)]


def test_somebody_new_is_rung_before_the_ai_has_the_caller_back() -> None:
    assert decide(replace(NOBODY_CAME, targets=(SAM, KIM), taken_back=1)) == DialHuman(KIM)


def test_outside_working_hours_nobody_is_rung_and_the_ai_says_so() -> None:
    assert decide(replace(NOBODY_CAME, tried=frozenset(), is_open=False)) == TakeBack()
    for_want_of_an_agent = Facts(is_over=False, closed_why="no-agent", targets=(SAM,), voicemail=True, is_open=False)
    assert decide(for_want_of_an_agent) == Voicemail()


def test_a_caller_who_wants_to_leave_a_message_is_neither_rung_through_nor_taken_back() -> None:
    assert decide(replace(NOBODY_CAME, tried=frozenset(), voicemail=True, message_wanted=True)) == Voicemail()


def test_from_the_voicemail_nobody_is_rung_any_more() -> None:
    new_colleague = Facts(is_over=False, closed_why="agent-lost", targets=(SAM,), sent_on=True, at_voicemail=True, voicemail=True)
    assert decide(new_colleague) == Voicemail()


def test_a_caller_who_was_sent_on_is_not_hung_up_on_by_late_news_of_the_stream() -> None:
    assert decide(Facts(is_over=False, closed_why="agent-ended", targets=(SAM,), sent_on=True)) == DialHuman(SAM)


def test_a_caller_waits_half_a_minute_at_most_and_then_goes_down_the_ladder() -> None:
    still, over = ladder.LONGEST_WAIT_S - ladder.TURN_S, ladder.LONGEST_WAIT_S - ladder.TURN_S + 0.1
    assert [decide(replace(IN_THE_QUEUE, waiting_s=waited)) for waited in (0.0, still, over)] == [Wait(), Wait(), DialHuman(SAM)]
    assert decide(replace(IN_THE_QUEUE, waiting_s=over, is_open=False)) == Voicemail()
    alone = replace(IN_THE_QUEUE, targets=(), voicemail=False)
    assert [decide(replace(alone, waiting_s=waited)) for waited in (over, ladder.LONGEST_WAIT_ALONE_S)] == [Wait(), HangUp(sorry=True)]


def test_a_free_agent_ends_the_wait_and_one_that_cannot_be_had_is_not_waited_for() -> None:
    free = replace(IN_THE_QUEUE, waiting_s=500.0, has_room=True)
    assert decide(free) == Resume()
    assert decide(replace(free, main=False, backup=True)) == Resume(backup=True)
    assert decide(replace(free, main=False, waiting_s=0.0)) == DialHuman(SAM)


def test_who_wants_to_leave_a_message_does_not_wait() -> None:
    assert decide(replace(IN_THE_QUEUE, waiting_s=None, message_wanted=True)) == Voicemail()


def test_an_agent_who_is_not_free_takes_nobody_back_who_can_leave_a_message() -> None:
    busy = replace(NOBODY_CAME, has_room=False)
    assert (decide(busy), decide(replace(busy, voicemail=True))) == (TakeBack(), Voicemail())


def finished(facts: Facts) -> bool:
    return facts.is_over or facts.talked or (facts.closed_why in STREAM_ENDS and not facts.sent_on)


def goes_wrong(facts: Facts, step: Step) -> str:
    """Which promise a step breaks; empty when none."""
    untried = {target.slug for target in facts.targets} - facts.tried
    match step:
        case HangUp(sorry=False):
            return "" if finished(facts) else "hung up in silence"
        case _ if finished(facts):
            return "went on after the end"
        case DialHuman(target):
            fine = target.slug in untried and facts.is_open and not facts.at_voicemail
            return "" if fine else "rang somebody twice, out of hours, or from the voicemail"
        case Resume():
            fine = facts.resumable and not facts.sent_on and facts.turned_away <= ladder.TURNED_AWAY
            fine = fine and ((facts.losses <= ladder.RESUMES and facts.deaths <= ladder.DEATHS) or facts.turned_away > 0)
            return "" if fine else "went up"
        case TakeBack():
            fine = facts.by_wish and facts.agent_at_hand and not facts.at_voicemail
            if untried and facts.is_open and not (facts.message_wanted and facts.voicemail):
                return "left out a person"
            return "" if fine and facts.taken_back < ladder.TAKEN_BACK_AT_MOST else "took back without an agent, or without end"
        case Voicemail():
            return "" if facts.voicemail else "no voicemail there"
    return "a voicemail was there" if facts.voicemail else ""


def test_whatever_is_known_no_step_breaks_a_promise_and_the_same_facts_lead_to_the_same_step() -> None:
    seen = 0
    for facts in all_facts():
        step = decide(facts)
        assert not goes_wrong(facts, step), f"{goes_wrong(facts, step)}: {facts} -> {step}"
        assert decide(facts) == step
        seen += 1
    assert seen == 2 ** len(BOOLEANS) * 5 * len(PEOPLE) * len(LOSSES) * 3


def after(facts: Facts, step: Step) -> Facts:
    """The worst that can follow a step: nobody comes, the agent is lost at once or asks for a person again, the same goes wrong again."""
    match step:
        case DialHuman(target):
            return replace(facts, sent_on=True, tried=facts.tried | {target.slug})
        case TakeBack():
            return replace(facts, sent_on=False, closed_why="handed-over", taken_back=facts.taken_back + 1)
        case Resume() if facts.turned_away:
            return replace(facts, turned_away=facts.turned_away + 1)
        case Resume() if facts.deaths:
            return replace(facts, deaths=facts.deaths + 1)
        case Resume():
            return replace(facts, losses=facts.losses + 1)
    return facts


def test_however_badly_it_goes_every_caller_comes_to_an_end_of_the_ladder() -> None:
    for start in all_facts():
        facts = start
        for _ in range(12):
            step = decide(facts)
            if isinstance(step, HangUp | Voicemail):
                break
            facts = after(facts, step)
        assert isinstance(step, HangUp | Voicemail), start
