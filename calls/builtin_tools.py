"""The two tools every agent has from us: hand the caller to a person, and hang up.

Neither happens here. Each becomes a command to the live call, which first plays the agent's last words to their end;
the answer tells the model to say them. People are chosen by the slug of a row, never by a number the model may invent.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from agents.tools import ToolAnswer
from calls import history, services
from calls.history import NewEvent
from calls.models import CallSession, Rung, Source

LONGEST_REASON = 200
LONGEST_SUMMARY = 600  # read to the person who picks up, so half a minute at most


def run(*, call: CallSession, name: str, arguments: dict[str, Any], at: datetime) -> ToolAnswer:
    """Do what one of `BUILT_IN` asks; a wish that cannot be granted is an answer with a problem."""
    return BUILT_IN[name](call, arguments, at)


def transfer_to_human(call: CallSession, arguments: dict[str, Any], at: datetime) -> ToolAnswer:
    """Ask for the hand-over, once per stream: the person asked for if the line knows them, else its first one."""
    if call.version is None or not call.version.may_transfer:
        return ToolAnswer(text="", problem="This agent may not hand callers to a person.")
    people = list(call.line.handoff.all()) if call.line else []
    if not people:
        return ToolAnswer(text="", problem="Nobody is there to take over right now. Tell the caller so and offer your own help.")
    person = next((person for person in people if person.slug == arguments.get("target")), people[0])
    detail = {
        "target": person.slug,
        "reason": _words(arguments.get("reason"), LONGEST_REASON),
        "summary": _words(arguments.get("summary"), LONGEST_SUMMARY),
    }
    services.ask(call=call, key=f"hand-over:{call.call_sid}:{call.epoch}", verb="hand-over", detail=detail, at=at)
    services.lower_rung(call_sid=call.call_sid, rung=Rung.HUMAN, why="the agent asked for a person", at=at)
    event = NewEvent("handover-requested", Source.VAPI, at, {"target": person.slug, "reason": detail["reason"]})
    history.record_events(call_sid=call.call_sid, events=[event])
    return ToolAnswer(
        text=f"{person.name} takes over when you stop speaking. Say in one short sentence that you are connecting the caller.", problem=""
    )


def end_call(call: CallSession, arguments: dict[str, Any], at: datetime) -> ToolAnswer:
    """Ask for the hang-up, once per stream."""
    if call.version is None or not call.version.may_end_call:
        return ToolAnswer(text="", problem="This agent may not end the call.")
    services.ask(call=call, key=f"end-call:{call.call_sid}:{call.epoch}", verb="end-call", detail={}, at=at)
    return ToolAnswer(text="The call ends when you stop speaking. Say goodbye now.", problem="")


BUILT_IN: dict[str, Callable[[CallSession, dict[str, Any], datetime], ToolAnswer]] = {
    "transfer_to_human": transfer_to_human,
    "end_call": end_call,
}


def _words(given: Any, longest: int) -> str:
    return " ".join(given.split())[:longest] if isinstance(given, str) else ""
