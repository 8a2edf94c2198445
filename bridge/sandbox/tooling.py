"""One tool call: only a tool the assistant was given can be called, its server is asked, and what comes back is read strictly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from bridge.sandbox.evidence import Message
from bridge.sandbox.faults import Faults
from bridge.sandbox.script import CallTool
from bridge.sandbox.telling import Post, Teller

DELAYED_MS = 10_000  # after which a tool's delay is spoken of, unless it says when
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789"


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a call. `says` are words the agent must speak now instead of its own; "" when it may choose."""

    result: str
    says: str = ""


def new_call(act: CallTool, faults: Faults, rng: Random) -> Message:
    """The call in the form the vendor sends it, or in one of the two others it has."""
    call_id = "call_" + "".join(rng.choices(LETTERS, k=8))
    arguments: Any = dict(act.arguments)
    if faults.tool_call_flat:
        return {"id": call_id, "name": act.name, "parameters": arguments}
    if faults.tool_arguments_as_text:
        arguments = json.dumps(arguments)
    return {"id": call_id, "type": "function", "function": {"name": act.name, "arguments": arguments}}


def tool_message(tool: Message, call: Message) -> Message:
    """The `tool-calls` message about one call."""
    if "function" in call:
        return {"type": "tool-calls", "toolCallList": [call], "toolCalls": [call], "toolWithToolCallList": [{**tool, "toolCall": call}]}
    flat = {"name": call["name"], "toolCall": {"id": call["id"], "parameters": call["parameters"]}}
    return {"type": "tool-calls", "toolCallList": [call], "toolWithToolCallList": [flat]}


def sentence(tool: Message, moment: str) -> Message | None:
    """The tool's own message for a moment (request-start, request-complete, request-failed), if it is to be spoken."""
    for message in tool.get("messages", []):
        if message["type"] == moment and message.get("content") and message.get("role", "assistant") == "assistant":
            found: Message = message
            return found
    return None


async def use(tool: Message, call: Message, *, teller: Teller, speak: Callable[[str], Awaitable[bool]]) -> Answered | None:
    """Ask the tool's server, with the tool's own sentences around it; None when the caller cut a sentence that had to be heard first.

    A tool that is `async` is not waited for: its result is empty.
    """
    waiting = None if tool.get("async") else sentence(tool, "request-start")
    if waiting and waiting.get("blocking") and not await speak(waiting["content"]):
        return None
    asking = teller.later(ask(tool, call, teller.post))
    if tool.get("async"):
        return Answered("")
    if waiting and not waiting.get("blocking"):
        await speak(waiting["content"])
    if late := sentence(tool, "request-response-delayed"):
        await asyncio.wait([asking], timeout=late.get("timingMilliseconds", DELAYED_MS) / 1000)
        if not asking.done():
            await speak(late["content"])
    answered: Answered = await asking
    return answered


async def ask(tool: Message, call: Message, post: Post) -> Answered:
    """Ask the server, and wait for it as long as it takes."""
    answer = await post(tool_message(tool, call))
    result = tool_result(answer, call["id"])
    own = _spoken_result(answer, call["id"])
    after = sentence(tool, "request-complete" if result else "request-failed")
    return Answered(result, own or (after["content"] if after else ""))


def _mine(answer: Message | None, call_id: str) -> Message:
    results = answer.get("results") if isinstance(answer, dict) else None
    for each in results if isinstance(results, list) else []:
        if isinstance(each, dict) and each.get("toolCallId") == call_id:
            return each
    return {}


def tool_result(answer: Message | None, call_id: str) -> str:
    """The result or error text for a tool call in a webhook's answer; "" when there is none that Vapi would read."""
    mine = _mine(answer, call_id)
    text = mine.get("result", mine.get("error"))
    return text if isinstance(text, str) and "\n" not in text else ""


def _spoken_result(answer: Message | None, call_id: str) -> str:
    """Words that the answer itself wants spoken: `results[].message`."""
    given = _mine(answer, call_id).get("message")
    messages = given if isinstance(given, list) else [given]
    return next((each["content"] for each in messages if isinstance(each, dict) and isinstance(each.get("content"), str)), "")
