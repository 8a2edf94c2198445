"""Answers a `tool-calls` message while the model waits: built-in tools here, all others through the HTTP door.

Vapi sends the same call in three shapes and may send it twice. The tool-call id is unique in the database, so a tool
runs once and a repeat gets the first answer. Every answer is one line; a problem is an answer too, never an HTTP error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.utils import timezone

from agents import tools
from agents.tools import ToolAnswer
from bridge.errors import BadMessage
from bridge.untrusted import parse_untrusted
from calls import builtin_tools, history
from calls.models import CallSession, ToolRun

log = logging.getLogger(__name__)

DEADLINE_S = 5.0  # Vapi waits 20, but a caller does not
MOST_AT_ONCE = 16
ARGUMENT_BYTES = 64 * 1024
LONGEST_ANSWER = 4000  # characters; more than a model should read out
LOOK_AGAIN_S = 0.05
TOO_LATE = "The tool did not answer in time."
ID_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One thing the model wants done. `problem` is set when its arguments could not be read."""

    id: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def asked(message: dict[str, Any]) -> list[ToolCall]:
    """The tool calls of a message in any of the vendor's shapes, in order, each id once."""
    for listing in ("toolCallList", "toolCalls", "toolWithToolCallList"):
        items = message.get(listing)
        if isinstance(items, list) and items:
            calls = {call.id: call for item in items[:MOST_AT_ONCE] if (call := _tool_call(item)) is not None}
            return list(calls.values())
    return []


def _tool_call(item: Any) -> ToolCall | None:
    """`{id, function: {name, arguments}}`, `{id, name, parameters}`, or either one inside `{name, toolCall}`."""
    if not isinstance(item, dict):
        return None
    inner = item.get("toolCall")
    if isinstance(inner, dict):
        item = {"name": item.get("name"), **inner}
    function = item.get("function")
    named = function if isinstance(function, dict) else item
    call_id, name = item.get("id"), named.get("name") or item.get("name")
    if not isinstance(call_id, str) or not 0 < len(call_id) <= ID_CHARACTERS or not isinstance(name, str):
        return None
    given = named.get("arguments", named.get("parameters", {}))
    try:
        return ToolCall(call_id, name[:64], _arguments(given))
    except BadMessage:
        return ToolCall(call_id, name[:64], problem="The arguments could not be read.")


def _arguments(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        given = parse_untrusted(given, max_bytes=ARGUMENT_BYTES) if given.strip() else {}
    if not isinstance(given, dict):
        raise BadMessage("The arguments of a tool are not an object.")
    return given


def answer(
    *, call: CallSession, calls: list[ToolCall], allowed: list[str], clock: Callable[[], float] = time.monotonic
) -> list[dict[str, str]]:
    """Run what is new, wait for what is running, repeat what is done: the `results` of the response, in the order asked.

    `allowed` are the private addresses tools may reach, as host:port. Never takes much longer than DEADLINE_S.
    """
    until = clock() + DEADLINE_S
    hands = ThreadPoolExecutor(max_workers=max(1, len(calls)), thread_name_prefix="tool")
    try:
        pending = [(tool_call, _start(call, tool_call, hands, allowed)) for tool_call in calls]
        return [_result(tool_call, _outcome(call, tool_call, started, until, clock)) for tool_call, started in pending]
    finally:
        hands.shutdown(wait=False)


def unanswerable(calls: list[ToolCall], sentence: str) -> list[dict[str, str]]:
    """The results when the call itself is not known to us."""
    return [_result(tool_call, ToolAnswer(text="", problem=sentence)) for tool_call in calls]


def _start(call: CallSession, tool_call: ToolCall, hands: ThreadPoolExecutor, allowed: list[str]) -> Future[ToolAnswer] | None:
    """Begin the tool, in the background if it reaches out. None: it was begun before."""
    at = timezone.now()
    _, first = history.begin_tool(call=call, tool_call_id=tool_call.id, name=tool_call.name, arguments=tool_call.arguments, at=at)
    if not first:
        return None
    if tool_call.problem:
        return _done(ToolAnswer(text="", problem=tool_call.problem))
    if tool_call.name in builtin_tools.BUILT_IN:
        return _done(builtin_tools.run(call=call, name=tool_call.name, arguments=tool_call.arguments, at=at))
    definition = next((tool for tool in (call.version.tools if call.version else []) if tool.get("name") == tool_call.name), None)
    if definition is None:
        return _done(ToolAnswer(text="", problem="There is no tool of this name."))
    return hands.submit(tools.run, definition, tool_call.arguments, call=_about(call), timeout=DEADLINE_S, allowed=allowed)


def _outcome(
    call: CallSession, tool_call: ToolCall, started: Future[ToolAnswer] | None, until: float, clock: Callable[[], float]
) -> ToolAnswer:
    """What the tool said, as it is kept: the first answer stays the answer, and it is this call's alone."""
    if started is not None:
        answered = _said(tool_call, started, max(0.0, until - clock()))
        if history.finish_tool(tool_call_id=tool_call.id, result=answered.text, problem=answered.problem, at=timezone.now()):
            return answered
    while True:
        run = ToolRun.objects.filter(tool_call_id=tool_call.id, call=call).first()
        if run is None:
            return ToolAnswer(text="", problem="This tool call belongs to another call.")
        if run.ended_at is not None:
            return ToolAnswer(text=run.result, problem=run.problem)
        if clock() >= until:
            return _given_up(run)
        time.sleep(LOOK_AGAIN_S)


def _said(tool_call: ToolCall, started: Future[ToolAnswer], wait_s: float) -> ToolAnswer:
    try:
        answered = started.result(timeout=wait_s)
    except TooLate:
        return ToolAnswer(text="", problem=TOO_LATE)
    except Exception as problem:  # whatever a tool's address can do to us, the caller hears a sentence
        log.error("A tool failed in our own code", extra={"tool": tool_call.name, "problem": type(problem).__name__})
        return ToolAnswer(text="", problem="The tool failed.")
    return ToolAnswer(text=_one_line(answered.text), problem=_one_line(answered.problem))


def _given_up(run: ToolRun) -> ToolAnswer:
    """Another request runs this tool and is not back. If it must be dead by now, its run ends here."""
    if timezone.now() - run.started_at > timedelta(seconds=2 * DEADLINE_S):
        history.finish_tool(tool_call_id=run.tool_call_id, result="", problem=TOO_LATE, at=timezone.now())
    return ToolAnswer(text="", problem=TOO_LATE)


def _result(tool_call: ToolCall, answered: ToolAnswer) -> dict[str, str]:
    said = {"error": answered.problem} if answered.problem else {"result": answered.text}
    return {"toolCallId": tool_call.id, "name": tool_call.name, **said}


def _done(answered: ToolAnswer) -> Future[ToolAnswer]:
    future: Future[ToolAnswer] = Future()
    future.set_result(answered)
    return future


def _about(call: CallSession) -> dict[str, str]:
    """What a tool is told of the call."""
    return {"call_sid": call.call_sid, "from": call.from_number, "to": call.to_number}


def _one_line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_ANSWER]
