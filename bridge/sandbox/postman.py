"""Webhooks on their way: the envelope, the server's headers, time limit and back-off plan, and what goes wrong with deliveries."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import Callable

import aiohttp

from bridge.sandbox.evidence import Message, Posted
from bridge.sandbox.faults import EVERY
from bridge.sandbox.report import artifact
from bridge.sandbox.vapi_call import SandboxCall

MAX_ANSWER = 1 << 20
TIMEOUT_S = 20


class Postman:
    """Delivers for all calls of a sandbox."""

    def __init__(self, http: aiohttp.ClientSession, *, wall: Callable[[], float], rng: random.Random) -> None:
        self._http = http
        self._wall = wall
        self._rng = rng

    async def deliver(self, call: SandboxCall, message: Message) -> Message | None:
        """Deliver one message to the server that is to get it; its answer, when it was JSON."""
        server = _server(call.assistant, message)
        if not server:
            return None
        kind, faults = message["type"], call.faults
        body = self.enveloped(call, message)
        shuffled = 0.0 if kind == "tool-calls" else self._rng.uniform(0, faults.shuffle_s)
        await asyncio.sleep(faults.among(kind, faults.late_s, 0.0) + shuffled)
        if kind in faults.lost or EVERY in faults.lost:
            await asyncio.sleep(server.get("timeoutSeconds", TIMEOUT_S) if kind == "tool-calls" else 0)
            return None
        copies = faults.among(kind, faults.copies, 1)
        answer, *_ = await asyncio.gather(*(self._until_taken(call, server, body) for _ in range(copies)))
        return answer

    async def _until_taken(self, call: SandboxCall, server: Message, body: Message) -> Message | None:
        plan = server.get("backoffPlan") or {}
        for attempt in range(1, plan.get("maxRetries", 0) + 2):
            status, answer = await self._once(call, server, body, attempt)
            if status is not None and (status < 300 or status in plan.get("excludedStatusCodes", [])):
                return answer if status < 300 else None
            base = plan.get("baseDelaySeconds", 1)
            await asyncio.sleep(base * 2 ** (attempt - 1) if plan.get("type") == "exponential" else base)
        return None

    async def _once(self, call: SandboxCall, server: Message, body: Message, attempt: int) -> tuple[int | None, Message | None]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        status: int | None = None
        answer: Message | None = None
        try:
            timeout = aiohttp.ClientTimeout(total=server.get("timeoutSeconds", TIMEOUT_S))
            async with self._http.post(
                server["url"], json=body, headers=server.get("headers"), timeout=timeout, allow_redirects=False
            ) as response:
                raw = await response.content.read(MAX_ANSWER)
                status = response.status
                answer = json.loads(raw) if raw and status < 300 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            answer = None
        call.posted.append(Posted(started, body["message"]["type"], body, status, attempt, loop.time() - started))
        return status, answer

    def enveloped(self, call: SandboxCall, message: Message) -> Message:
        """The webhook form: wrapped, with the call, the assistant (as the vendor does, with its server's headers) and the words."""
        fields = dict(message)
        if message["type"] == "assistant.started":
            fields["newAssistant"] = call.assistant
        if message["type"] == "end-of-call-report":
            fields.update(call.report)
        messages = list(call.turns.conversation.messages) if call.turns is not None else []
        context = {
            "timestamp": int(self._wall() * 1000),
            "call": copy.copy(call.public),
            "assistant": call.assistant,
            "artifact": artifact(call.assistant, call.variables, messages),
        }
        return {"message": {**context, **fields}}


def _server(assistant: Message, message: Message) -> Message:
    """A tool's own server before the assistant's."""
    own = [tool["server"] for tool in message.get("toolWithToolCallList", []) if "server" in tool]
    found: Message = own[0] if own else assistant.get("server") or {}
    return found
