"""Answers what a model asks of its tools while it waits: built-in tools here, all others through the HTTP door.

Vapi sends the same call in several shapes and may send it twice. The tool-call id is unique in the database, so a tool
runs once and a repeat gets the first answer. Every id that was asked gets an answer of one line; a problem is an answer
too, never an HTTP error. A model may be talked into anything, so what it asks is granted here and nowhere else: a tool of
the version that answers this call, arguments that fit its schema, an agent who is still on the call, and a budget.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
from django.db import Error as DatabaseError
from django.utils import timezone

from agents import schema, tools
from agents.tools import MAX_PROBLEM_CHARS, ToolAnswer, one_line
from bridge import waiting
from bridge.errors import BadMessage
from bridge.untrusted import parse_untrusted
from calls import builtin_tools, tool_runs
from calls.models import CallSession, ToolRun

log = logging.getLogger(__name__)

LEGACY = "function-call"  # one call without an id, as Vapi sent it before `tool-calls`
DEADLINE_S = 5.0  # Vapi waits 10 (agents.payload), but a caller does not
WRITING_S = 0.3  # of it are left to write the answers down
MOST_AT_ONCE = 16
ARGUMENT_BYTES = 64 * 1024
LOOK_AGAIN_S = 0.05
ID_CHARACTERS, NAME_CHARACTERS = 100, 64
TOO_LATE = "The tool did not answer in time."
UNREADABLE = "The arguments could not be read. Send them again as one JSON object."
NO_SUCH_TOOL = "There is no tool of this name."
TOO_MANY_AT_ONCE = f"Nothing was done: ask for at most {MOST_AT_ONCE} things at once."
BUDGET_SPENT = "Nothing was done: this call has used its tools as often as it may. Go on without them, or hand the caller to a person."
CALL_OVER = "Nothing was done: you are not on this call any more."
NOT_YOURS = "This tool call belongs to another call."
NOT_NOW = "The tool is not available right now."


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One thing the model wants done. `problem` is set when it cannot even be tried."""

    id: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def asked(message: dict[str, Any]) -> list[ToolCall]:
    """The tool calls of a message in any of the vendor's shapes, in order, each id once: the first word of it counts."""
    calls: dict[str, ToolCall] = {}
    for item in _listed(message):
        tool_call = _tool_call(item)
        if tool_call is not None:
            calls.setdefault(tool_call.id, tool_call)
    return list(calls.values())


def _listed(message: dict[str, Any]) -> list[Any]:
    for listing in ("toolCallList", "toolCalls", "toolWithToolCallList"):
        items = message.get(listing)
        if isinstance(items, list) and items:
            return items
    function = message.get("functionCall")
    if not isinstance(function, dict):
        return []
    told = orjson.dumps([message.get("timestamp"), function], option=orjson.OPT_SORT_KEYS)
    whose = message.get("call")
    vapi_call_id = whose.get("id") if isinstance(whose, dict) else ""
    return [{"id": f"legacy-{hashlib.sha256(f'{vapi_call_id}|'.encode() + told).hexdigest()}", **function}]


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
    if not isinstance(call_id, str) or not call_id:
        return None  # there is nothing to answer it by
    shown = one_line(name, NAME_CHARACTERS) if isinstance(name, str) else ""
    if len(call_id) > ID_CHARACTERS or not shown or shown != name:
        return ToolCall(call_id, shown, problem=NO_SUCH_TOOL)
    try:
        return ToolCall(call_id, shown, _arguments(named.get("arguments", named.get("parameters", {}))))
    except BadMessage:
        return ToolCall(call_id, shown, problem=UNREADABLE)


def _arguments(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        given = parse_untrusted(given, max_bytes=ARGUMENT_BYTES) if given.strip() else {}
    if given is None:
        given = {}
    if not isinstance(given, dict) or len(orjson.dumps(given)) > ARGUMENT_BYTES:
        raise BadMessage("The arguments of a tool are not an object, or too many.")
    return given


def answer(
    *, call: CallSession, calls: list[ToolCall], allowed: list[str], clock: Callable[[], float] = time.monotonic
) -> list[dict[str, str]]:
    """Run what is new, wait for what is running, repeat what is done: the `results` of the response, in the order asked.

    `allowed` are the private addresses tools may reach, as host:port. Never takes much longer than DEADLINE_S.
    """
    until = clock() + DEADLINE_S
    hands = ThreadPoolExecutor(max_workers=MOST_AT_ONCE, thread_name_prefix="tool")
    try:
        begun: list[tuple[ToolCall, Begun]] = []
        for place, tool_call in enumerate(calls):
            begun.append((tool_call, _start(call, tool_call, place, hands, allowed, until - clock() - WRITING_S)))
        return [_result(tool_call, _outcome(call, tool_call, started, until, clock)) for tool_call, started in begun]
    finally:
        hands.shutdown(wait=False)


def unanswerable(calls: list[ToolCall], sentence: str) -> list[dict[str, str]]:
    """The results when the call itself is not known to us."""
    return [_result(tool_call, _problem(sentence)) for tool_call in calls]


def granted(tool_call: ToolCall, sentence: str) -> dict[str, str]:
    """The result of what was granted without asking the database."""
    return _result(tool_call, ToolAnswer(text=sentence, problem=""))


def response(results: list[dict[str, str]], *, kind: str) -> dict[str, Any]:
    """The body of our 200. A legacy message asked one thing and is answered the way it knows, beside the new one."""
    if kind != LEGACY:
        return {"results": results}
    return {"result": next((result.get("result", result.get("error", "")) for result in results), NO_SUCH_TOOL), "results": results}


Begun = Future[ToolAnswer] | ToolAnswer | None  # running, or answered without a row, or begun by somebody before


def _start(call: CallSession, tool_call: ToolCall, place: int, hands: ThreadPoolExecutor, allowed: list[str], within: float) -> Begun:
    """Begin a tool, in the background if it reaches out."""
    if place >= MOST_AT_ONCE:
        return _problem(TOO_MANY_AT_ONCE)
    if len(tool_call.id) > ID_CHARACTERS or not tool_call.name:
        return _problem(tool_call.problem)
    try:
        if tool_runs.asked_enough(call=call):
            return None if ToolRun.objects.filter(tool_call_id=tool_call.id).exists() else _problem(BUDGET_SPENT)
        return _enter(call, tool_call, hands, allowed, within)
    except Exception as problem:  # the other tools of this message have their answers still
        log.error("A tool call could not be entered", extra={"call": call.short_id, "problem": type(problem).__name__})
        return _problem(NOT_NOW)


def _enter(call: CallSession, tool_call: ToolCall, hands: ThreadPoolExecutor, allowed: list[str], within: float) -> Begun:
    at = timezone.now()
    _, first = tool_runs.begin_tool(call=call, tool_call_id=tool_call.id, name=tool_call.name, arguments=tool_call.arguments, at=at)
    if not first:
        return None
    if tool_call.problem:
        return _done(_problem(tool_call.problem))
    if tool_call.name in builtin_tools.BUILT_IN:
        return _done(builtin_tools.run(call=call, name=tool_call.name, arguments=tool_call.arguments, at=at) or _problem(CALL_OVER))
    granted = call.version.tools if call.version else []
    definition = next((tool for tool in granted if tool.get("name") == tool_call.name), None)
    if definition is None:
        return _done(_problem(NO_SUCH_TOOL))
    if refusal := _does_not_fit(definition, tool_call.arguments) or _not_granted(call):
        return _done(_problem(refusal))
    about = {"call_sid": call.call_sid, "from": call.from_number, "to": call.to_number, "tool_call_id": tool_call.id}
    arguments = schema.only_named(definition.get("parameters") or {}, tool_call.arguments)
    how: dict[str, Any] = {"call": about, "tool_call_id": tool_call.id, "timeout": max(0.0, within), "allowed": allowed}
    return hands.submit(tools.run, definition, arguments, **how)


def _does_not_fit(definition: dict[str, Any], arguments: dict[str, Any]) -> str:
    """What the caller must be asked, or why nobody can be; empty when the arguments are what the tool wants."""
    parameters = definition.get("parameters") or {}
    if problem := schema.schema_problem(parameters):  # refused when it was published; an older version may have it still
        log.error("The parameters of a tool cannot be checked", extra={"tool": definition.get("name"), "problem": problem})
        return "This tool is not set up yet, so it was not used."
    return schema.argument_problem(parameters, arguments)


def _not_granted(call: CallSession) -> str:
    if tool_runs.grant(call=call):
        return ""
    return BUDGET_SPENT if tool_runs.agent_is_on(call=call) else CALL_OVER


def _outcome(call: CallSession, tool_call: ToolCall, started: Begun, until: float, clock: Callable[[], float]) -> ToolAnswer:
    """What the tool said, as it is kept: the first answer stays the answer, and it is this call's alone."""
    if isinstance(started, ToolAnswer):
        return started
    try:
        if started is None:
            return _known(call, tool_call, until, clock)
        answered = _said(tool_call, started, max(0.0, until - clock()))
        kept: dict[str, Any] = {"result": answered.text, "problem": answered.problem, "sent": answered.sent}
        first = tool_runs.finish_tool(tool_call_id=tool_call.id, at=timezone.now(), **kept)
    except DatabaseError as problem:
        log.error("A tool's answer could not be written down", extra={"call": call.short_id, "problem": type(problem).__name__})
        return _problem(NOT_NOW) if started is None else answered
    return answered if first else _known(call, tool_call, until, clock)


def _known(call: CallSession, tool_call: ToolCall, until: float, clock: Callable[[], float]) -> ToolAnswer:
    """What somebody else was told, or is about to be."""
    while True:
        run = ToolRun.objects.filter(tool_call_id=tool_call.id, call=call).first()
        if run is None:
            return _problem(NOT_YOURS)
        if run.ended_at is not None:
            return ToolAnswer(text=run.result, problem=run.problem)
        if clock() >= until:
            return _given_up(run)
        waiting.give_back()
        time.sleep(LOOK_AGAIN_S)


def _said(tool_call: ToolCall, started: Future[ToolAnswer], wait_s: float) -> ToolAnswer:
    if not started.done():
        waiting.give_back()
    try:
        answered = started.result(timeout=wait_s)
    except TooLate:
        return _problem(TOO_LATE)
    except Exception as problem:  # whatever a tool's address can do to us, the caller hears a sentence
        log.error("A tool failed in our own code", extra={"tool": tool_call.name, "problem": type(problem).__name__})
        return _problem("The tool failed.")
    return ToolAnswer(text=one_line(answered.text), problem=one_line(answered.problem, MAX_PROBLEM_CHARS), sent=answered.sent)


def _given_up(run: ToolRun) -> ToolAnswer:
    """Another request runs this tool and is not back. If it must be dead by now, its run ends here."""
    if timezone.now() - run.started_at > timedelta(seconds=2 * DEADLINE_S):
        tool_runs.finish_tool(tool_call_id=run.tool_call_id, result="", problem=TOO_LATE, at=timezone.now())
    return _problem(TOO_LATE)


def _result(tool_call: ToolCall, answered: ToolAnswer) -> dict[str, str]:
    said = {"error": answered.problem} if answered.problem else {"result": answered.text}
    return {"toolCallId": tool_call.id, "name": tool_call.name, **said}


def _problem(sentence: str) -> ToolAnswer:
    return ToolAnswer(text="", problem=sentence)


def _done(answered: ToolAnswer) -> Future[ToolAnswer]:
    future: Future[ToolAnswer] = Future()
    future.set_result(answered)
    return future
