"""The judge of the fault laboratory, with evidence written by hand: each rule can fail, and none fails a good call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from supportvoice.laboratory.judge import AtVapi, Greeting, Verdict, Witnessed, judge

LINES = [{"role": "assistant", "text": "Thanks for calling."}, {"role": "user", "text": "Hi, I can't log in."}]
ROW: dict[str, Any] = {"status": "ended", "end_reason": "agent_ended", "rung": "R0", "lines": LINES}
SESSION = AtVapi("CA1.0", made_at=1.0, connected_at=1.5, over_at=20.0, finals=(("user", "Hi, I can't log in."),))
GOOD = Witnessed(
    up_at=0.5,
    over_at=20.0,
    ended_by="agent",
    healthy="R0",
    lowest="R0",
    looked_at=30.0,
    audible=[(0.6, 4.0), (7.0, 12.0), (16.0, 19.9)],
    vapi=[SESSION],
    rows=[ROW],
)


def verdicts(**changed: Any) -> list[Verdict]:
    return judge(replace(GOOD, **changed))


def rules(**changed: Any) -> list[str]:
    return [verdict.rule for verdict in verdicts(**changed)]


def test_nothing_is_held_against_a_good_call() -> None:
    assert judge(GOOD) == []


def test_more_than_five_seconds_of_nothing_are_a_loss_and_it_is_told_when_they_began() -> None:
    assert rules(audible=[(0.6, 4.0), (9.0, 19.0)]) == []
    assert verdicts(audible=[(0.6, 4.0), (9.1, 19.0)]) == [Verdict("silence", 4.0, "nothing for the caller during 5.1 s")]


@pytest.mark.parametrize(("audible", "began"), [([(6.0, 20.0)], 0.5), ([(0.6, 14.0)], 14.0)])
def test_silence_counts_from_the_answer_and_to_the_end(audible: list[tuple[float, float]], began: float) -> None:
    assert [(each.rule, each.at) for each in verdicts(audible=audible)] == [("silence", began)]


def test_ringing_a_colleague_and_a_turn_of_the_callers_fill_the_time() -> None:
    assert rules(audible=[(0.6, 4.0), (16.0, 19.9)]) == ["silence"]
    assert rules(audible=[(0.6, 4.0), (16.0, 19.9)], excused=[(5.0, 15.5)]) == []


def test_sounds_that_overlap_are_one_sound() -> None:
    assert rules(audible=[(0.6, 12.0), (1.0, 2.0), (16.5, 19.0)]) == []


@pytest.mark.parametrize("reason", ["agent", "caller", "human", "voicemail", "callback", "max-duration"])
def test_a_leg_may_end_for_a_good_reason(reason: str) -> None:
    assert rules(ended_by=reason) == []


def test_a_leg_that_twilio_ended_for_another_reason_is_a_loss() -> None:
    assert verdicts(ended_by="no document") == [Verdict("ending", 20.0, "the leg ended: no document")]


@pytest.mark.parametrize(("healthy", "used", "lost"), [("R0", "R1", True), ("R1", "R1", False), ("R1", "R3", True), ("R3", "R1", False)])
def test_a_lower_rung_than_the_highest_healthy_one_is_a_loss(healthy: str, used: str, *, lost: bool) -> None:
    assert rules(healthy=healthy, lowest=used) == (["rung"] if lost else [])


def test_the_rung_of_the_export_counts_when_nobody_saw_a_lower_one() -> None:
    assert rules(rows=[{**ROW, "rung": "R4"}]) == ["rung"]


@pytest.mark.parametrize(("seen", "told", "lost"), [("R2", "R2", 0), ("R1", "R2", 1), ("R2", "R1", 1), ("R1", "R1", 1), ("R0", "R1", 2)])
def test_where_a_fault_leads_to_one_rung_a_higher_one_is_a_loss_whoever_tells_of_it(seen: str, told: str, lost: int) -> None:
    used = {"healthy": "R2", "lowest": seen, "rows": [{**ROW, "rung": told}]}
    assert rules(**used, leads_there=True) == ["rung"] * lost
    assert rules(**used) == []


def test_a_stream_that_breaks_off_is_a_loss_where_its_process_had_time_to_leave() -> None:
    assert rules(broken=[9.0]) == []
    assert rules(in_good_order=True) == []
    assert [(each.rule, each.at) for each in verdicts(broken=[9.0], in_good_order=True)] == [("process", 9.0)]


def test_what_the_strike_saw_is_held_against_the_house() -> None:
    assert verdicts(unkept=["it did not leave"]) == [Verdict("process", 20.0, "it did not leave")]


WHOLE, AGAIN, BROKEN_OFF = Greeting(1.6), Greeting(9.0, 0.0, 0.3), Greeting(1.6, 0.0, 0.7)


def test_who_was_greeted_and_is_greeted_again_is_lost() -> None:
    assert rules(greetings=[WHOLE]) == []
    assert verdicts(greetings=[WHOLE, AGAIN], healthy="R1") == [Verdict("memory", 9.0, "greeted as a new caller, once more")]
    assert rules(greetings=[WHOLE, AGAIN]) == ["memory"]


def test_a_greeting_that_broke_off_may_be_said_anew_or_go_on() -> None:
    assert rules(greetings=[BROKEN_OFF, WHOLE]) == []
    assert rules(greetings=[BROKEN_OFF, Greeting(4.0, 0.6, 1.0)]) == []
    assert rules(greetings=[Greeting(1.6, 0.0, 0.95), Greeting(5.0, 0.9, 1.0)]) == []


def resumed(*, told_at: float | None) -> dict[str, Any]:
    """An agent that was lost, told so much before, and the next one, which remembers nothing."""
    first = replace(SESSION, over_at=9.0, told_at=told_at)
    return {"vapi": [first, AtVapi("CA1.1", made_at=9.0, connected_at=9.5, over_at=20.0)], "forgot": [14.0], "healthy": "R1"}


def test_an_agent_that_does_not_know_what_the_one_before_was_told_is_a_loss() -> None:
    assert verdicts(**resumed(told_at=6.0)) == [Verdict("memory", 14.0, "CA1.1 did not know what the caller had said before it was made")]


@pytest.mark.parametrize("told_at", [None, 8.5, 15.0])
def test_nobody_need_remember_what_the_house_was_not_told_in_time(told_at: float | None) -> None:
    assert rules(**resumed(told_at=told_at)) == []


def test_an_agent_need_not_have_been_given_what_it_heard_itself() -> None:
    assert rules(vapi=[replace(SESSION, told_at=5.0)], forgot=[14.0]) == []


def test_the_agent_at_the_backup_remembers_too() -> None:
    assert rules(**{**resumed(told_at=6.0), "healthy": "R2"}) == ["memory"]


@pytest.mark.parametrize("healthy", ["R3", "R4", "R5"])
def test_a_rung_below_every_agent_promises_no_memory(healthy: str) -> None:
    assert rules(**{**resumed(told_at=6.0), "healthy": healthy}, greetings=[WHOLE, AGAIN]) == []


@pytest.mark.parametrize("row", [{**ROW, "status": "streaming"}, {**ROW, "end_reason": None}])
def test_a_row_without_an_end_or_a_reason_is_a_loss_after_two_minutes(row: dict[str, Any]) -> None:
    assert rules(rows=[row], looked_at=139.0) == []
    assert [(each.rule, each.at) for each in verdicts(rows=[row], looked_at=140.0)] == [("row", 140.0)]


def test_no_row_at_all_is_a_loss_and_so_are_its_lines() -> None:
    assert rules(rows=[], looked_at=141.0) == ["row", "line"]


def test_a_final_line_that_was_accepted_and_is_missing_is_a_loss() -> None:
    assert verdicts(rows=[{**ROW, "lines": LINES[:1]}]) == [
        Verdict("line", 30.0, "1 final of user that CA1.0 got 200 for: not in the export")
    ]


def test_a_line_of_the_other_role_is_not_the_line() -> None:
    assert rules(rows=[{**ROW, "lines": [{"role": "assistant", "text": "Hi, I can't log in."}]}]) == ["line"]


def test_lines_may_be_cut_elsewhere_and_written_otherwise() -> None:
    cut = [{"role": "user", "text": "hi"}, {"role": "user", "text": "I can't log in!"}]
    assert rules(rows=[{**ROW, "lines": cut}]) == []


def test_a_vapi_call_alive_a_minute_after_the_caller_left_is_an_orphan() -> None:
    assert rules(vapi=[replace(SESSION, over_at=80.0)]) == []
    assert rules(vapi=[replace(SESSION, over_at=80.1)]) == ["orphan"]
    assert rules(vapi=[replace(SESSION, over_at=None)], looked_at=81.0) == ["orphan"]


def test_a_vapi_call_made_late_has_its_minute_from_then_on() -> None:
    late = AtVapi("CA1.1", made_at=100.0, over_at=150.0)
    assert rules(vapi=[SESSION, late], looked_at=160.0) == []


def test_two_rows_of_one_phone_call_are_one_too_many() -> None:
    assert rules(rows=[ROW, ROW]) == ["twice"]


def created(*made_at: float, **more: Any) -> list[str]:
    """Of one session that was made so often."""
    return rules(vapi=[replace(SESSION, connected_at=1.5 if at == made_at[0] else None, made_at=at) for at in made_at], **more)


def test_a_session_created_twice_is_one_too_many() -> None:
    assert created(1.0) == []
    assert created(1.0, 4.0) == ["twice"]
    assert [each.at for each in verdicts(vapi=[SESSION, replace(SESSION, connected_at=None, made_at=4.0)])] == [4.0]


@pytest.mark.parametrize(
    ("lost", "is_excused"),
    [
        ((2.0, 2.1), True),
        ((6.0, 14.0), False),  # the second one was made, and only then was anything in the way
        ((0.0, 5.0), True),
        ((-8.0, -1.9), True),  # asked for while it was in the way, made when it was gone
        ((-8.0, -2.1), False),
    ],
)
def test_it_may_be_created_again_only_when_a_fault_may_have_kept_the_first_answer(lost: tuple[float, float], *, is_excused: bool) -> None:
    assert created(1.0, 5.0, answers_lost=[lost]) == ([] if is_excused else ["twice"])


def test_a_fault_that_comes_when_the_answer_has_long_been_stored_is_no_excuse() -> None:
    assert created(1.0, 40.0, answers_lost=[(10.9, 11.0)]) == []
    assert created(1.0, 40.0, answers_lost=[(11.1, 39.0)]) == ["twice"]


def test_each_repetition_needs_a_fault_of_its_own() -> None:
    assert created(1.0, 5.0, 30.0, answers_lost=[(1.0, 1.1)]) == ["twice"]
    assert created(1.0, 5.0, 30.0, answers_lost=[(1.0, 1.1), (5.0, 5.1)]) == []


def test_two_agents_for_one_caller_may_overlap_only_for_a_moment() -> None:
    second = AtVapi("CA1.1", made_at=8.0, connected_at=9.0, over_at=20.0)
    assert rules(vapi=[replace(SESSION, over_at=19.0), second], healthy="R1") == []
    assert rules(vapi=[SESSION, second], healthy="R1") == ["twice"]
