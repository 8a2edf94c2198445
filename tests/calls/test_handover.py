"""From the agent to people: each is rung in turn, and whatever Twilio tells of it leads where it should."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from agents.models import HandoffTarget, PhoneLine
from agents.payload import RESUMED
from bridge.ports import Closing
from calls import builtin_tools, endings, evidence, handover, ladder, services, sessions
from calls.history import add_line
from calls.models import CallbackRequest, CallSession, EndReason, Outcome, Role, Rung, Status, VapiState
from calls.queue_rows import AgentPlace
from tests.builders import FakeVapi, a_call, a_line, a_target, session_of

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


def last_word(call: CallSession) -> dict[str, str]:
    event = call.events.order_by("seq").last()
    assert event is not None
    assert event.kind == "call-ended"
    return dict(event.detail)


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
    assert last_word(call) == {"reason": "failed", "raw": handover.NOBODY}
    assert asked(call) == ladder.HangUp()


@pytest.mark.parametrize(
    ("session", "raw"),
    [
        ({"ended_reason": "call.start.error-vapi-number-outbound-daily-limit"}, "call.start.error-vapi-number-outbound-daily-limit"),
        ({"failure": "Vapi refused with 402."}, "Vapi refused with 402."),
    ],
)
def test_a_failed_call_ends_with_the_vendors_word_of_why(session: dict[str, str], raw: str) -> None:
    call = lost_call()
    call.vapi_sessions.update(**session)
    PhoneLine.objects.update(voicemail=False)
    assert asked(call) == ladder.HangUp(sorry=True)
    assert last_word(call) == {"reason": "failed", "raw": raw}


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


# -- the AI has the caller back ----------------------------------------------------------------------------------------


def wished(*targets: str, at: datetime | None = None, **line: Any) -> CallSession:
    """A call whose agent asked for a person, on a line with these people behind it."""
    a_line(targets=targets, **line)
    call = a_call(status=Status.STREAMING, stream_epoch=0, at=at)
    call.vapi_sessions.update(state=VapiState.LIVE, vapi_call_id="v-0", live_at=timezone.now())
    detail = {"target": targets[0], "reason": "locked", "summary": "Alex cannot log in."}
    services.ask(call=call, key=services.hand_over_key(call.call_sid, 0), verb="hand-over", detail=detail, at=timezone.now())
    services.stream_closed(call_sid=call.call_sid, epoch=0, closing=Closing("handed-over"), at=timezone.now())
    return call


def taken_back(**line: Any) -> CallSession:
    """And nobody came."""
    call = wished("tier2", **line)
    asked(call)
    assert dialled(call, "tier2", "no-answer") == ladder.TakeBack()
    return fresh(call)


def tool(call: CallSession, name: str) -> tuple[str, str]:
    """What the model is told, and what problem."""
    CallSession.objects.filter(pk=call.pk).update(status=Status.STREAMING)
    answered = builtin_tools.run(call=fresh(call), name=name, arguments={}, at=timezone.now())
    assert answered is not None
    return answered.text, answered.problem


def request(call: CallSession) -> dict[str, Any]:
    vapi = FakeVapi()
    sessions.start_conversation(vapi_session_pk=session_of(call).pk, by="worker", client=vapi)
    return dict(vapi.created[0]["assistant"])


def test_what_was_asked_of_the_stream_that_led_to_people_is_not_asked_of_the_one_that_leads_back() -> None:
    """The process that carried it died before it could do that, or say that it did."""
    call = wished("tier2")
    call.commands.update(done_at=None, problem="")
    asked(call)
    assert dialled(call, "tier2", "no-answer") == ladder.TakeBack()
    assert not call.commands.filter(to="live", done_at=None).exists()


@pytest.mark.parametrize("status", ["busy", "no-answer", "failed", "canceled", ""])
def test_when_nobody_comes_the_ai_has_the_caller_back_on_a_stream_of_the_next_epoch(status: str) -> None:
    call = wished("tier2", "tier3")
    asked(call)
    assert dialled(call, "tier2", status) == ladder.DialHuman(ladder.Target("tier3"))
    assert dialled(call, "tier3", status) == ladder.TakeBack()
    assert (fresh(call).status, fresh(call).epoch, session_of(call).n) == (Status.CONNECTING, 1, 1)
    assert [event.detail for event in call.events.filter(kind="taken-back")] == [{"n": 1, "why": "nobody-answered"}]
    assert asked(call) == ladder.Resume()  # a retry leads onto the same stream
    assert session_of(call).n == 1


def test_its_first_words_say_that_nobody_is_free_and_what_can_be_done_and_it_knows_the_conversation() -> None:
    call = taken_back()
    add_line(call=call, vapi_call_id="v-0", role=Role.USER, text="I cannot log in", vendor_ms=1, at=timezone.now(), n=0)
    assistant = request(call)
    assert assistant["firstMessage"] == (
        "I'm sorry, nobody is free right now. I can take a message, or have somebody call you back within 4 hours. Which would you like?"
    )
    *_, said, told = assistant["model"]["messages"]
    assert said == {"role": "user", "content": "I cannot log in"}
    assert told["role"] == "system"
    assert "take_message" in told["content"]
    assert {"take_message", "promise_callback"} <= {tool["function"]["name"] for tool in assistant["model"]["tools"]}


def test_a_conversation_lost_after_that_is_resumed_and_still_knows_that_nobody_came() -> None:
    call = taken_back()
    CallSession.objects.filter(pk=call.pk).update(status=Status.STREAMING, stream_epoch=1)
    services.stream_closed(call_sid=call.call_sid, epoch=1, closing=Closing("agent-lost"), at=timezone.now())
    assert asked(call, epoch=1) == ladder.Resume()
    assistant = request(call)
    assert assistant["firstMessage"] == RESUMED
    assert "nobody is free" in assistant["model"]["messages"][-1]["content"]


def test_the_model_promises_a_call_back_by_a_time_it_is_told_to_say() -> None:
    call = taken_back()
    assert tool(call, "promise_callback") == tool(call, "promise_callback")
    assert tool(call, "promise_callback")[0] == "Promised: somebody calls back within 4 hours. Tell the caller exactly that."
    assert CallbackRequest.objects.get().call == call
    services.stream_closed(call_sid=call.call_sid, epoch=1, closing=Closing("agent-ended"), at=timezone.now())
    assert (fresh(call).end_reason, fresh(call).outcome) == (EndReason.CALLBACK_PROMISED, Outcome.CALLBACK)


def test_the_model_sends_the_caller_to_the_voicemail_without_ringing_anybody() -> None:
    call = taken_back()
    assert "tone" in tool(call, "take_message")[0]
    services.stream_closed(call_sid=call.call_sid, epoch=1, closing=Closing("handed-over"), at=timezone.now())
    assert asked(call, epoch=1) == ladder.Voicemail()


def test_a_message_or_a_call_back_is_refused_where_there_can_be_none() -> None:
    call = taken_back(voicemail=False)
    CallSession.objects.filter(pk=call.pk).update(from_number="anonymous")
    assert tool(call, "take_message")[1] == "No message can be left here. Tell the caller so."
    assert "withheld" in tool(call, "promise_callback")[1]
    assert not CallbackRequest.objects.exists()


def test_who_did_not_come_is_not_rung_again_but_somebody_new_is() -> None:
    call = taken_back()
    assert tool(call, "transfer_to_human")[0].startswith("Everybody was rung on this call already, and nobody is free.")
    a_target("new", order=9).lines.add(PhoneLine.objects.get())
    assert tool(call, "transfer_to_human")[0].startswith("New takes over")
    services.stream_closed(call_sid=call.call_sid, epoch=1, closing=Closing("handed-over"), at=timezone.now())
    assert asked(call, epoch=1) == ladder.DialHuman(ladder.Target("new"))


def test_a_caller_who_is_taken_back_counts_among_those_the_agent_has_though_another_got_their_place() -> None:
    call = wished("tier2")
    AgentPlace.objects.update(call=None)
    asked(call)
    assert dialled(call, "tier2", "no-answer") == ladder.TakeBack()
    assert AgentPlace.objects.get(call=call).given > 0


def test_nobody_is_taken_back_by_an_agent_whose_places_others_have_if_there_is_a_voicemail(settings: Settings) -> None:
    settings.MAX_CALLS = 1
    call = wished("tier2")
    asked(call)
    a_call()
    assert dialled(call, "tier2", "no-answer") == ladder.Voicemail()


def test_a_caller_who_came_for_want_of_an_agent_is_not_taken_back() -> None:
    call = lost_call("tier2")
    asked(call)
    assert dialled(call, "tier2", "no-answer") == ladder.Voicemail()


def test_a_number_twilio_cannot_ring_leads_to_the_next_person() -> None:
    call = wished("tier2", "tier3")
    asked(call)
    assert handover.dial_refused(call_sid=call.call_sid, at=timezone.now())
    assert asked(call) == ladder.DialHuman(ladder.Target("tier3"))
    assert results(call) == [("tier2", "failed")]


def test_outside_working_hours_nobody_is_rung_and_the_model_is_told_when_somebody_is_back() -> None:
    tomorrow = timezone.now() + timedelta(days=1)
    hours: dict[str, Any] = {"time_zone": "UTC", "hours": [f"{tomorrow:%A} 9:00-17:00"]}
    a_line(targets=("tier2",), **hours)
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    said = tool(call, "transfer_to_human")[0]
    assert said.startswith("Nobody is at work now; they are back at 9 am tomorrow. Tell the caller so.")
    assert "by 1 pm tomorrow (promise_callback)" in said
    assert call.events.filter(kind="closed-hours").count() == 1
    assert not call.commands.exists()
    assert "by 1 pm tomorrow" in tool(call, "promise_callback")[0]
    due = CallbackRequest.objects.get().due_at
    assert (due.date(), due.hour, due.minute) == (tomorrow.date(), 13, 0)


def test_a_caller_who_presses_0_outside_working_hours_is_told_so_by_the_ai() -> None:
    tomorrow = timezone.now() + timedelta(days=1)
    call = wished("tier2", time_zone="UTC", hours=[f"{tomorrow:%A} 9:00-17:00"])
    assert asked(call) == ladder.TakeBack()
    assert request(call)["firstMessage"].startswith("I'm sorry, nobody is at work right now.")
    assert call.events.filter(kind="closed-hours").count() == 1


def test_without_an_agent_outside_working_hours_there_is_the_voicemail() -> None:
    call = lost_call("tier2")
    PhoneLine.objects.update(time_zone="UTC", hours=[f"{timezone.now() + timedelta(days=1):%A} 9-17"])
    assert asked(call) == ladder.Voicemail()
    assert call.events.filter(kind="closed-hours").count() == 1
    assert not call.commands.filter(verb="dial").exists()
