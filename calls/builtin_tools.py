"""The tools agents have from us: hand the caller to a person, to the voicemail or to a call back, hang up, keep nothing of what is said.

The first two do not happen here. Each becomes a command to the live call, which first plays the agent's last words to their end;
the answer tells the model to say them. People are chosen by the slug of a row, never by a number the model may invent.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.db import transaction

from agents import hours
from agents.tools import ToolAnswer, one_line
from calls import callbacks, consent, handover, services, taking_back, tool_runs
from calls.history import NewEvent, record_events
from calls.masking import masked_text
from calls.models import CallSession, Rung, Source

LONGEST_REASON = 200
LONGEST_SUMMARY = 600  # read to the person who picks up, so half a minute at most


def run(*, call: CallSession, name: str, arguments: dict[str, Any], at: datetime) -> ToolAnswer | None:
    """Do what one of `BUILT_IN` asks; a wish that cannot be granted is an answer with a problem.

    None: the agent is not on the call any more. That cannot change while the command is written down.
    """
    with transaction.atomic():
        return BUILT_IN[name](call, arguments, at) if tool_runs.agent_is_on(call=call) else None


def transfer_to_human(call: CallSession, arguments: dict[str, Any], at: datetime) -> ToolAnswer:
    """Ask for the hand-over, once per stream: the person asked for if the line knows them, else its first one.

    With nobody to ring, the way of a hand-over still leads to the line's voicemail, if it has one.
    """
    if call.version is None or not call.version.may_transfer:
        return ToolAnswer(text="", problem="This agent may not hand callers to a person.")
    people = list(call.line.handoff.all()) if call.line else []
    if not people and not (call.line and call.line.voicemail):
        return ToolAnswer(text="", problem="Nobody can take over, and no message can be left. Tell the caller so and offer your own help.")
    if people and (refusal := _nobody_comes(call, [person.slug for person in people], at)):
        return ToolAnswer(f"{refusal} Tell the caller so. {taking_back.to_offer(call, at)}", "")
    people = [person for person in people if person.slug not in handover.tried(call)]
    wanted = next((person for person in people if person.slug == arguments.get("target")), people[0] if people else None)
    detail = {
        "target": wanted.slug if wanted else "",
        "reason": _words(arguments.get("reason"), LONGEST_REASON),
        "summary": _words(arguments.get("summary"), LONGEST_SUMMARY),
    }
    command = services.ask(call=call, key=services.hand_over_key(call.call_sid, call.epoch), verb="hand-over", detail=detail, at=at)
    asked_for = command.detail["target"]
    if command.asked_at == at:  # else an earlier wish of this stream stands
        if wanted:
            services.lower_rung(call_sid=call.call_sid, rung=Rung.HUMAN, why="the agent asked for a person", at=at)
        event = NewEvent("handover-requested", Source.VAPI, at, {"target": asked_for, "reason": detail["reason"]})
        record_events(call_sid=call.call_sid, events=[event])
    name = next((person.name for person in people if person.slug == asked_for), "")
    if name:
        return ToolAnswer(f"{name} takes over when you stop speaking. Say in one short sentence that you are connecting the caller.", "")
    return ToolAnswer("Nobody is free, so the caller can leave a message when you stop speaking. Say so in one short sentence.", "")


def _nobody_comes(call: CallSession, slugs: list[str], at: datetime) -> str:
    """Why it is of no use to ring anybody; empty when it may be of some."""
    at_work = hours.of(call.line)
    if not hours.is_open(at_work, at):
        handover.note_closed(call, at)
        opening = hours.next_opening(at_work, at)
        return f"Nobody is at work now{f'; they are back at {hours.said(opening, at, at_work.zone)}' if opening else ''}."
    return "Everybody was rung on this call already, and nobody is free." if set(slugs) <= handover.tried(call) else ""


def take_message(call: CallSession, arguments: dict[str, Any], at: datetime) -> ToolAnswer:
    """Ask for the voicemail, once per stream: a hand-over that rings nobody."""
    if call.version is None or not call.version.may_transfer or not (call.line and call.line.voicemail):
        return ToolAnswer(text="", problem="No message can be left here. Tell the caller so.")
    detail = {"target": "", "to": "voicemail", "reason": "", "summary": ""}
    command = services.ask(call=call, key=services.hand_over_key(call.call_sid, call.epoch), verb="hand-over", detail=detail, at=at)
    if command.asked_at == at:
        event = NewEvent("handover-requested", Source.VAPI, at, {"target": "voicemail"})
        record_events(call_sid=call.call_sid, events=[event])
    return ToolAnswer("The caller can speak after a tone, when you stop speaking. Say so in one short sentence.", "")


def promise_callback(call: CallSession, arguments: dict[str, Any], at: datetime) -> ToolAnswer:
    """Have the caller called back at the number they call from. Asked again, the first promise stands."""
    if call.version is None or not call.version.may_transfer:
        return ToolAnswer(text="", problem="This agent may not promise that anybody calls back.")
    if not callbacks.may_be_called(call):
        return ToolAnswer(text="", problem="The caller's number is withheld, so nobody can call back. Offer to take a message.")
    asked = callbacks.promise(call=call, at=at)
    when = callbacks.when(call, asked.due_at, at=asked.asked_at)
    return ToolAnswer(f"Promised: somebody calls back {when}. Tell the caller exactly that.", "")


def end_call(call: CallSession, arguments: dict[str, Any], at: datetime) -> ToolAnswer:
    """Ask for the hang-up, once per stream."""
    if call.version is None or not call.version.may_end_call:
        return ToolAnswer(text="", problem="This agent may not end the call.")
    services.ask(call=call, key=f"end-call:{call.call_sid}:{call.epoch}", verb="end-call", detail={}, at=at)
    return ToolAnswer(text="The call ends when you stop speaking. Say goodbye now.", problem="")


def do_not_record(call: CallSession, arguments: dict[str, Any], at: datetime) -> ToolAnswer:
    """The caller does not want to be recorded. It may be said twice."""
    consent.refuse_recording(call=call, at=at)
    return ToolAnswer(text="Recording is off, and nothing of this call is written down. Say so in one short sentence.", problem="")


BUILT_IN: dict[str, Callable[[CallSession, dict[str, Any], datetime], ToolAnswer]] = {
    "transfer_to_human": transfer_to_human,
    "end_call": end_call,
    "do_not_record": do_not_record,
    "take_message": take_message,
    "promise_callback": promise_callback,
}


def _words(given: Any, longest: int) -> str:
    return one_line(masked_text(one_line(given)), longest) if isinstance(given, str) else ""
