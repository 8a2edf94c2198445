"""From the agent to people: each is rung in turn, and whatever Twilio tells of it leads where it should."""

from __future__ import annotations

import pytest
from django.utils import timezone

from agents.models import HandoffTarget, PhoneLine
from bridge.ports import Closing
from calls import endings, evidence, handover, ladder, services
from calls.models import CallSession, EndReason, Outcome, Rung, Status, VapiState
from tests.builders import a_call, a_line

pytestmark = pytest.mark.django_db


def fresh(call: CallSession) -> CallSession:
    return CallSession.objects.get(pk=call.pk)


def lost_call(*targets: str) -> CallSession:
    """A call whose agent is gone, on a line with these people behind it."""
    a_line(targets=targets)
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("no-agent"), at=timezone.now())
    return call


def asked(call: CallSession, epoch: int = 0) -> ladder.Step | handover.AskAnew:
    return handover.next_step(call_sid=call.call_sid, epoch=epoch, at=timezone.now())


def dialled(call: CallSession, target: str, status: str, *, bridged: bool = True) -> ladder.Step | handover.AskAnew:
    handover.dial_result(call_sid=call.call_sid, epoch=0, target=target, status=status, bridged=bridged, at=timezone.now())
    return asked(call)


def leg(call: CallSession, target: str, status: str) -> bool:
    return handover.leg_told(call_sid=call.call_sid, target=target, status=status, at=timezone.now())


def results(call: CallSession) -> list[tuple[str, str]]:
    told = call.events.filter(kind="dial-result").values_list("detail", flat=True)
    return [(detail["target"], detail["status"]) for detail in told]


def test_a_lost_agent_leads_to_each_person_in_turn_and_then_to_voicemail() -> None:
    call = lost_call("tier2", "tier3")
    assert asked(call) == asked(call) == ladder.DialHuman(ladder.Target("tier2"))
    assert (fresh(call).status, fresh(call).rung) == (Status.TRANSFERRING, Rung.HUMAN)
    assert dialled(call, "tier2", "no-answer") == dialled(call, "tier2", "no-answer") == ladder.DialHuman(ladder.Target("tier3"))
    assert dialled(call, "tier3", "busy") == ladder.Voicemail()
    assert (fresh(call).status, fresh(call).rung) == (Status.VOICEMAIL, Rung.VOICEMAIL)
    assert results(call) == [("tier2", "no-answer"), ("tier3", "busy")]


@pytest.mark.parametrize("raw", ["", "assistant-ended-call"])
def test_a_person_who_was_asked_for_is_rung_although_the_agent_said_goodbye_in_the_same_moment(raw: str) -> None:
    a_line(targets=("tier2",))
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    key = services.hand_over_key(call.call_sid, 0)
    services.ask(call=call, key=key, verb="hand-over", detail={"target": "tier2"}, at=timezone.now())
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("agent-ended", raw), at=timezone.now())
    assert (fresh(call).status, fresh(call).end_reason) == (Status.TRANSFERRING, "")
    assert asked(call) == ladder.DialHuman(ladder.Target("tier2"))


@pytest.mark.parametrize("status", ["busy", "no-answer", "failed", "canceled", "", "a status of next year"])
def test_whoever_does_not_come_leads_to_the_next_and_the_last_to_the_voicemail(status: str) -> None:
    call = lost_call("tier2", "tier3")
    asked(call)
    assert dialled(call, "tier2", status) == ladder.DialHuman(ladder.Target("tier3"))
    assert dialled(call, "tier3", status) == ladder.Voicemail()


@pytest.mark.parametrize("status", ["completed", "answered"])
def test_a_talk_with_a_person_ends_the_call_as_handed_over(status: str) -> None:
    call = lost_call("tier2", "tier3")
    asked(call)
    assert dialled(call, "tier2", status) == ladder.HangUp()
    assert (fresh(call).end_reason, fresh(call).outcome) == (EndReason.HUMAN_ENDED, Outcome.HANDED_OVER)


def test_whoever_picks_up_and_leaves_before_the_caller_is_put_through_has_not_talked() -> None:
    call = lost_call("tier2", "tier3")
    asked(call)
    assert leg(call, "tier2", "in-progress")
    assert leg(call, "tier2", "completed")
    assert dialled(call, "tier2", "completed", bridged=False) == ladder.DialHuman(ladder.Target("tier3"))
    endings.leg_over(call_sid=call.call_sid, status="completed", at=timezone.now())
    assert (fresh(call).end_reason, fresh(call).outcome) == (EndReason.CALLER_HUNG_UP, Outcome.ABANDONED)


def test_what_a_persons_leg_tells_is_written_down_once() -> None:
    call = lost_call("tier2")
    asked(call)
    for status in ("ringing", "initiated", "ringing", "in-progress", "in-progress", "completed", "something new"):
        leg(call, "tier2", status)
    handover.whisper(call_sid=call.call_sid, target="tier2", at=timezone.now())
    dialled(call, "tier2", "completed")
    assert results(call) == [("tier2", "ringing"), ("tier2", "initiated"), ("tier2", "picked-up"), ("tier2", "completed")]


def test_a_leg_that_does_not_say_whose_it_is_belongs_to_whom_was_rung_last() -> None:
    call = lost_call("tier2", "tier3")
    asked(call)
    dialled(call, "tier2", "busy")
    leg(call, "", "ringing")
    assert results(call)[-1] == ("tier3", "ringing")
    assert not handover.leg_told(call_sid="CA" + "9" * 32, target="tier2", status="ringing", at=timezone.now())


def test_a_dial_nobody_told_the_end_of_was_a_talk_if_somebody_picked_up() -> None:
    talked, silent = lost_call("tier2"), lost_call()
    asked(talked), asked(silent)
    leg(talked, "tier2", "in-progress")
    for call in (talked, silent):
        handover.lost_dial(call_sid=call.call_sid, epoch=0, target="tier2", at=timezone.now())
    assert asked(talked) == ladder.HangUp()
    assert asked(silent) == ladder.Voicemail()


def test_the_person_asked_for_is_rung_first_and_hears_why() -> None:
    call = lost_call("tier2", "boss")
    detail = {"target": "boss", "reason": "locked account", "summary": "Alex cannot log in."}
    services.ask(call=call, key="k", verb="hand-over", detail=detail, at=timezone.now())
    assert asked(call) == ladder.DialHuman(ladder.Target("boss"))
    words = handover.whisper(call_sid=call.call_sid, target="boss", at=timezone.now())
    assert words == "A caller from the support line. locked account Alex cannot log in."
    assert handover.whisper(call_sid="CA" + "9" * 32, target="boss", at=timezone.now()) == "A caller from the support line."


def test_a_caller_whose_stream_twilio_stopped_and_who_is_still_there_gets_a_person_and_not_a_dead_line() -> None:
    a_line(targets=("tier2",))
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    call.vapi_sessions.update(state=VapiState.FAILED, ended_at=timezone.now())  # else the agent comes back
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("caller-left"), at=timezone.now())
    assert (fresh(call).status, fresh(call).end_reason) == (Status.RECOVERING, "")
    assert asked(call) == asked(call) == ladder.DialHuman(ladder.Target("tier2"))
    assert dialled(call, "tier2", "completed") == asked(call) == ladder.HangUp()
    assert (fresh(call).end_reason, fresh(call).outcome) == (EndReason.HUMAN_ENDED, Outcome.HANDED_OVER)


def test_a_caller_whose_stream_twilio_stopped_because_they_left_is_no_caller_who_was_waiting() -> None:
    a_line(targets=("tier2",))
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("caller-left"), at=timezone.now())
    assert endings.leg_over(call_sid=call.call_sid, status="completed", at=timezone.now())
    assert asked(call) == ladder.HangUp()
    assert (fresh(call).end_reason, fresh(call).outcome, fresh(call).rung) == (EndReason.CALLER_HUNG_UP, Outcome.UNKNOWN, Rung.AI)


@pytest.mark.parametrize("why", ["agent-ended", "hung-up"])
def test_after_the_agents_goodbye_nobody_is_rung_however_often_twilio_asks(why: str) -> None:
    a_line(targets=("tier2",))
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing(why), at=timezone.now())
    assert asked(call) == asked(call) == ladder.HangUp()
    assert (fresh(call).end_reason, fresh(call).rung) == (EndReason.AGENT_ENDED, Rung.AI)


COSTLY = ["+19005551234", "+12129765555", "+449098790000", "+88212345678", "911", "sip:boss@example.com", "+1555010011,,1", ""]


@pytest.mark.parametrize("number", COSTLY)
def test_a_number_that_the_desk_would_refuse_is_not_rung_however_it_came_into_the_row(number: str) -> None:
    call = lost_call("tier2", "tier3")
    HandoffTarget.objects.filter(slug="tier2").update(number=number)
    assert asked(call) == asked(call) == ladder.DialHuman(ladder.Target("tier3"))
    assert [event.detail for event in call.events.filter(kind="dial-refused")] == [{"target": "tier2"}]
    HandoffTarget.objects.update(number=number)
    assert asked(call) == ladder.Voicemail()
    assert call.commands.filter(verb="dial").count() == 1


def test_not_even_the_person_asked_for_is_rung_at_a_refused_number() -> None:
    call = lost_call("tier2", "boss")
    services.ask(call=call, key="k", verb="hand-over", detail={"target": "boss", "reason": "r", "summary": "s"}, at=timezone.now())
    HandoffTarget.objects.filter(slug="boss").update(number="+19005551234")
    assert asked(call) == ladder.DialHuman(ladder.Target("tier2"))


def test_nobody_and_no_voicemail_is_an_apology_and_a_failed_call() -> None:
    call = lost_call()
    PhoneLine.objects.update(voicemail=False)
    assert asked(call) == ladder.HangUp(sorry=True)
    assert fresh(call).end_reason == EndReason.FAILED
    assert asked(call) == ladder.HangUp()


def test_a_colleague_who_is_new_on_the_line_does_not_fetch_a_caller_back_from_the_voicemail() -> None:
    call = lost_call()
    assert asked(call) == ladder.Voicemail()
    HandoffTarget.objects.create(slug="new", name="New", number="+15550100119").lines.add(PhoneLine.objects.get())
    assert asked(call) == ladder.Voicemail()


def test_late_news_of_a_stream_neither_ends_a_call_that_went_on_to_a_person_nor_stops_the_ladder() -> None:
    a_line(targets=("tier2", "tier3"))
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    call.vapi_sessions.update(state=VapiState.FAILED, ended_at=timezone.now())
    assert isinstance(asked(call), ladder.DialHuman)
    assert services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("agent-ended"), at=timezone.now())
    assert fresh(call).status == Status.TRANSFERRING
    assert dialled(call, "tier2", "busy") == ladder.DialHuman(ladder.Target("tier3"))


def test_a_stale_epoch_and_an_unknown_call_are_hung_up_and_nothing_is_written() -> None:
    call = lost_call("tier2")
    before = fresh(call).__dict__ | {"_state": None}
    assert asked(call, epoch=7) == ladder.HangUp()
    assert not handover.dial_result(call_sid=call.call_sid, epoch=7, target="tier2", status="busy", at=timezone.now())
    assert handover.next_step(call_sid="CA" + "9" * 32, epoch=0, at=timezone.now()) == ladder.HangUp()
    assert evidence.hold(call_sid="CA" + "9" * 32, at=timezone.now()) is None
    assert fresh(call).__dict__ | {"_state": None} == before
