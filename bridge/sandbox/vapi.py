"""A Vapi to call: REST, the audio socket and webhooks back, over real HTTP. The conversation itself is `turns.Turns`.

It takes what the vendor's schema takes and refuses the rest (`dto`), so a request that works here has no unknown field. Ids
are UUIDv7. Socket and control URLs open a call to whoever has them, as the vendor's do. `calls[id]` keeps all evidence.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp import web

from bridge.sandbox import dto
from bridge.sandbox.clips import spoken_by
from bridge.sandbox.ear import Ear, Recogniser
from bridge.sandbox.script import TECHFLOW, Scenario
from bridge.sandbox.turns import Evidence, Faults, Message, Plan, Turns

CONNECT_WITHIN_S = 20.0
MAX_BODY = 1 << 20
INVALID_KEY = "Invalid Key. Hot tip, you may be using the private key instead of the public key, or vice versa."
NEVER_CONNECTED = "call.in-progress.error-providerfault-transport-never-connected"
REASONS = {400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 404: "Not Found", 503: "Service Unavailable"}


@dataclass(frozen=True, slots=True)
class Posted:
    """One delivery of a webhook: `status` is None when nobody answered; `attempt` counts from 1."""

    at: float
    kind: str
    body: Message
    status: int | None
    attempt: int
    took_s: float


@dataclass(slots=True)
class SandboxCall:
    """A call as Vapi knows it, and everything that can be proven about it afterwards."""

    id: str
    request: Message
    assistant: Message
    public: Message  # what GET /call/{id} says
    evidence: Evidence = field(default_factory=Evidence)
    posted: list[Posted] = field(default_factory=list)
    turns: Turns | None = None
    ended_reason: str | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)  # over, its report delivered or given up
    watch: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        return self.ended_reason is None

    def webhooks(self, kind: str) -> list[Message]:
        """The messages of this type that our server accepted, in order of their answers."""
        return [each.body["message"] for each in self.posted if each.kind == kind and each.status is not None and each.status < 300]


class _SocketPipe:
    """The audio socket as the engine's Pipe."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self._socket = socket
        self._request = request
        self.gone = asyncio.Event()

    async def send_bytes(self, data: bytes) -> None:
        if not self._socket.closed:
            with suppress(ConnectionError):  # the other side may be gone; `receive` says so
                await self._socket.send_bytes(data)

    async def send_text(self, text: str) -> None:
        if not self._socket.closed:
            with suppress(ConnectionError):
                await self._socket.send_str(text)

    async def receive(self) -> bytes | str | None:
        message = await self._socket.receive()
        if message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
            data: bytes | str = message.data
            return data
        self.gone.set()
        return None

    async def close(self, code: int) -> None:
        if code == 1006:
            if self._request.transport is not None:
                self._request.transport.abort()
        elif not self._socket.closed:
            await self._socket.close(code=1008 if code == 1005 else code)
        self.gone.set()


class VapiSandbox:
    """`async with VapiSandbox(scenario=…) as vapi:` listens on `vapi.base_url` until the block ends.

    `scenario` may be exchanged between calls, `faults` at any time; `of_call` gives single calls, by the first part of their name
    (up to the dot), a scenario and faults of their own. `ear_factory` makes the recogniser of each call's caller;
    `rng` and `wall` (seconds since 1970) are all it knows of chance and time besides the loop's clock.
    """

    def __init__(
        self,
        *,
        scenario: Scenario = TECHFLOW,
        api_key: str = "sandbox-vapi-key",
        ear_factory: Callable[[], Recogniser] = lambda: Ear(spoken_by("caller")),
        rng: random.Random | None = None,
        wall: Callable[[], float] = time.time,
        host: str = "127.0.0.1",
        port: int = 0,
        faults: Faults | None = None,
        concurrency_limit: int = 10,
    ) -> None:
        self.scenario = scenario
        self.api_key = api_key
        self.faults = faults or Faults()
        self.of_call: dict[str, tuple[Scenario, Faults]] = {}
        self.assistants: dict[str, Message] = {}
        self.calls: dict[str, SandboxCall] = {}
        self.refused: list[tuple[str, int, list[str]]] = []  # (path, status, why): what a correct client never causes
        self.concurrency_limit = concurrency_limit
        self._ear_factory = ear_factory
        self._rng = rng or random.Random()
        self._wall = wall
        self._host = host
        self._port = port
        self._org_id = self._uuid7()
        self._runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None
        self._holding: set[asyncio.Task[None]] = set()

    # ---- the server

    async def __aenter__(self) -> VapiSandbox:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    @property
    def base_url(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen; `base_url` is right from then on, also for port 0."""
        self._http = aiohttp.ClientSession()
        self._runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """End the calls that are left, deliver nothing more, close every socket."""
        for call in self.open_calls():
            if call.watch is not None:
                call.watch.cancel()
            if call.turns is not None:
                call.turns.end("call.in-progress.error-vapifault-worker-died")
        if self._runner is not None:
            await self._runner.cleanup()
        for task in list(self._holding):
            task.cancel()
        await asyncio.gather(*self._holding, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY, middlewares=[self._at_the_door])
        app.add_routes(
            [
                web.post("/assistant", self._create_assistant),
                web.get("/assistant", self._list_assistants),
                web.get("/assistant/{id}", self._get_assistant),
                web.patch("/assistant/{id}", self._update_assistant),
                web.delete("/assistant/{id}", self._delete_assistant),
                web.post("/call", self._create_call),
                web.get("/call", self._list_calls),
                web.get("/call/{id}", self._get_call),
                web.patch("/call/{id}", self._update_call),
                web.delete("/call/{id}", self._delete_call),
                web.post("/{id}/control", self._control),
                web.get("/{id}/transport", self._transport),
            ]
        )
        return app

    def open_calls(self) -> list[SandboxCall]:
        """Calls that nobody ended yet: after every test there should be none."""
        return [call for call in self.calls.values() if call.open]

    @web.middleware
    async def _at_the_door(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        """What comes before any route: the front's dislike of one user agent, and the key (but for capability URLs)."""
        if "Python-urllib" in request.headers.get("User-Agent", ""):
            return web.Response(status=403, text="error code: 1010")
        by_capability = request.match_info.route.resource is not None and request.path.endswith(("/control", "/transport"))
        given = request.headers.get("Authorization")
        if given != f"Bearer {self.api_key}" and not (by_capability and given is None):
            return self._refuse(request, 401, [INVALID_KEY])
        response: web.StreamResponse = await handler(request)
        return response

    def _refuse(self, request: web.Request, status: int, why: list[str]) -> web.Response:
        self.refused.append((request.path, status, why))
        body = {"message": why if status == 400 and len(why) > 0 else why[0], "statusCode": status}
        if status in REASONS:
            body["error"] = REASONS[status]
        return web.json_response(body, status=status)

    async def _body(self, request: web.Request, check: dto.Check) -> Message | web.Response:
        try:
            body = await request.json()
        except ValueError:
            return self._refuse(request, 400, ["body is not JSON"])
        wrong = dto.problems(check, body)
        if wrong:
            return self._refuse(request, 400, wrong)
        checked: Message = body
        return checked

    # ---- assistants

    async def _create_assistant(self, request: web.Request) -> web.Response:
        body = await self._body(request, dto.ASSISTANT)
        if isinstance(body, web.Response):
            return body
        now = self._iso()
        made = {"id": str(uuid.UUID(int=self._rng.getrandbits(128), version=4)), "orgId": self._org_id, "createdAt": now, "updatedAt": now}
        self.assistants[made["id"]] = {**made, "latestVersion": "v1", **body}
        return web.json_response(self.assistants[made["id"]], status=201)

    async def _list_assistants(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", "100")
        if not limit.isdigit() or int(limit) > 1000:
            return self._refuse(request, 400, ["limit must not be greater than 1000"])
        return web.json_response(list(reversed(self.assistants.values()))[: int(limit)])

    async def _get_assistant(self, request: web.Request) -> web.Response:
        assistant = self.assistants.get(request.match_info["id"])
        return web.json_response(assistant) if assistant else self._refuse(request, 404, ["Assistant does not exist."])

    async def _update_assistant(self, request: web.Request) -> web.Response:
        """Shallow: each top-level field that is sent replaces the whole of the old one."""
        assistant = self.assistants.get(request.match_info["id"])
        if assistant is None:
            return self._refuse(request, 404, ["Assistant does not exist."])
        body = await self._body(request, dto.ASSISTANT)
        if isinstance(body, web.Response):
            return body
        version = f"v{int(assistant['latestVersion'][1:]) + 1}"
        assistant.update(body, updatedAt=self._iso(), latestVersion=version)
        return web.json_response(assistant)

    async def _delete_assistant(self, request: web.Request) -> web.Response:
        assistant = self.assistants.pop(request.match_info["id"], None)
        return web.json_response(assistant) if assistant else self._refuse(request, 404, ["Assistant does not exist."])

    # ---- calls

    async def _create_call(self, request: web.Request) -> web.Response:
        body = await self._body(request, dto.CALL)
        if isinstance(body, web.Response):
            return body
        _, faults = self._part_of(body)
        if faults.create_status is not None:
            await asyncio.sleep(faults.create_delay_s)
            return self._refuse(request, faults.create_status, ["The sandbox was told to refuse."])
        wrong, assistant = self._assistant_of(body)
        if wrong:
            return self._refuse(request, 400, [wrong])
        if len(self.open_calls()) >= self.concurrency_limit:
            return self._refuse(request, 400, ["Over Concurrency Limit"])
        await asyncio.sleep(faults.create_delay_s)
        call = self._new_call(body, assistant)
        left = self.concurrency_limit - len(self.open_calls())
        limits = {"concurrencyBlocked": False, "concurrencyLimit": self.concurrency_limit, "remainingConcurrentCalls": left}
        return web.json_response({"subscriptionLimits": limits, **call.public}, status=201)

    def _part_of(self, request: Message) -> tuple[Scenario, Faults]:
        return self.of_call.get(str(request.get("name", "")).partition(".")[0], (self.scenario, self.faults))

    def _assistant_of(self, body: Message) -> tuple[str, Message]:
        """(what is wrong, the assistant with its overrides merged in). Overrides merge deeply, lists are replaced."""
        if "transport" not in body:
            return "Couldn't Get Phone Number. Need Either `phoneNumberId` Or `phoneNumber`.", {}
        if "phoneNumberId" in body or "phoneNumber" in body:
            return "transport.provider vapi.websocket does not take a phone number.", {}
        audio = body["transport"].get("audioFormat", {"format": "pcm_s16le", "sampleRate": 16_000})
        if (audio["format"], audio["sampleRate"]) != ("mulaw", 8000):
            return "The sandbox speaks mulaw at 8000 only.", {}
        if ("assistantId" in body) == ("assistant" in body):
            return "Need Either `assistantId` Or `assistant`.", {}
        stored = self.assistants.get(body["assistantId"]) if "assistantId" in body else body["assistant"]
        if stored is None:
            return f"Couldn't Get Assistant. `assistantId` {body['assistantId']} Does Not Exist.", {}
        overrides = {key: value for key, value in body.get("assistantOverrides", {}).items() if key != "variableValues"}
        return "", merged(stored, overrides)

    def _new_call(self, body: Message, assistant: Message) -> SandboxCall:
        call_id = self._uuid7()
        now = self._iso()
        public: Message = {
            "id": call_id,
            "orgId": self._org_id,
            "type": "vapi.websocketCall",
            "createdAt": now,
            "updatedAt": now,
            "status": "queued",
            "cost": 0,
            **{key: body[key] for key in ("name", "assistantId", "assistant", "assistantOverrides", "customer") if key in body},
            "monitor": {"controlUrl": f"{self.base_url}/{call_id}/control"},
            "transport": {
                **body["transport"],
                "conversationType": "voice",
                "websocketCallUrl": f"ws://{self._host}:{self._port}/{call_id}/transport",
            },
        }
        call = SandboxCall(call_id, body, assistant, public)
        self.calls[call_id] = call
        call.watch = asyncio.get_running_loop().call_later(CONNECT_WITHIN_S, self._unheld, call, NEVER_CONNECTED)
        return call

    def _unheld(self, call: SandboxCall, reason: str) -> None:
        """End a call that nobody ever connected to; its server is told like any other's."""
        if call.turns is None and call.open:
            self._ended(call, reason)
            self._later(self._tell_unheld(call, reason))

    async def _tell_unheld(self, call: SandboxCall, reason: str) -> None:
        wanted = Plan.of(call.assistant).server_messages
        for kind, fields in (("status-update", {"status": "ended"}), ("end-of-call-report", {"analysis": {}})):
            if kind in wanted:
                await self._post(call, {"type": kind, "endedReason": reason, **fields})
        call.done.set()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._holding.add(task)
        task.add_done_callback(self._holding.discard)

    async def _list_calls(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", "100")
        since = request.query.get("createdAtGt", request.query.get("createdAtGe", ""))
        calls = [call.public for call in reversed(self.calls.values()) if call.public["createdAt"] >= since]
        return web.json_response(calls[: int(limit) if limit.isdigit() else 100])

    async def _get_call(self, request: web.Request) -> web.Response:
        call = self.calls.get(request.match_info["id"])
        return web.json_response(call.public) if call else self._refuse(request, 404, ["Call does not exist."])

    async def _update_call(self, request: web.Request) -> web.Response:
        call = self.calls.get(request.match_info["id"])
        if call is None:
            return self._refuse(request, 404, ["Call does not exist."])
        body = await self._body(request, dto.CALL_UPDATE)
        if isinstance(body, web.Response):
            return body
        call.public.update(body, updatedAt=self._iso())
        return web.json_response(call.public)

    async def _delete_call(self, request: web.Request) -> web.Response:
        """Erases what is known of the call. It hangs up nothing."""
        call = self.calls.get(request.match_info["id"])
        if call is None:
            return self._refuse(request, 404, ["Call does not exist."])
        erased = dict(call.public)
        for key in ("artifact", "messages", "analysis"):
            call.public.pop(key, None)
        return web.json_response(erased)

    async def _control(self, request: web.Request) -> web.Response:
        call = self.calls.get(request.match_info["id"])
        if call is None or not call.open:
            return self._refuse(request, 404, ["Call does not exist."])
        try:
            message = await request.json()
        except ValueError:
            message = None
        if call.turns is not None:
            known = await call.turns.control(message)
        else:
            known = isinstance(message, dict) and message.get("type") == "end-call"
            if known:
                self._unheld(call, "manually-canceled")
        return web.json_response({"success": True}) if known else self._refuse(request, 400, ["Invalid control message."])

    # ---- the audio socket

    async def _transport(self, request: web.Request) -> web.StreamResponse:
        call = self.calls.get(request.match_info["id"])
        if call is None or not call.open or call.turns is not None:
            return self._refuse(request, 404, ["Call does not exist."])
        socket = web.WebSocketResponse(compress=False, max_msg_size=1 << 16, timeout=1.0)
        await socket.prepare(request)
        if call.watch is not None:
            call.watch.cancel()
        pipe = _SocketPipe(socket, request)
        scenario, faults = self._part_of(call.request)
        call.turns = Turns(
            pipe=pipe,
            post=lambda message: self._post(call, message),
            scenario=scenario,
            ear=self._ear_factory(),
            plan=Plan.of(call.assistant),
            rng=random.Random(self._rng.getrandbits(64)),
            wall=self._wall,
            evidence=call.evidence,
            faults=faults,
            on_end=lambda reason: self._ended(call, reason),
        )
        call.public.update(status="in-progress", startedAt=self._iso(), updatedAt=self._iso())
        self._later(self._hold(call, call.turns))
        await pipe.gone.wait()
        return socket

    async def _hold(self, call: SandboxCall, turns: Turns) -> None:
        """Carry the conversation to its end, and past the socket's: the report comes a second later."""
        try:
            await turns.run()
        finally:
            call.done.set()

    def _ended(self, call: SandboxCall, reason: str) -> None:
        call.ended_reason = reason
        if call.watch is not None:
            call.watch.cancel()
        call.public.update(status="ended", endedReason=reason, endedAt=self._iso(), updatedAt=self._iso())

    # ---- webhooks

    async def _post(self, call: SandboxCall, message: Message) -> Message | None:
        """Deliver one message to the assistant's server, with its headers, time limit and back-off plan."""
        server = call.assistant.get("server")
        if not server:
            return None
        body = self._enveloped(call, message)
        plan = server.get("backoffPlan") or {}
        for attempt in range(1, plan.get("maxRetries", 0) + 2):
            status, answer = await self._post_once(call, server, body, message["type"], attempt)
            if status is not None and (status < 300 or status in plan.get("excludedStatusCodes", [])):
                return answer if status < 300 else None
            base = plan.get("baseDelaySeconds", 1)
            await asyncio.sleep(base * 2 ** (attempt - 1) if plan.get("type") == "exponential" else base)
        return None

    async def _post_once(
        self, call: SandboxCall, server: Message, body: Message, kind: str, attempt: int
    ) -> tuple[int | None, Message | None]:
        assert self._http is not None  # noqa: S101
        loop = asyncio.get_running_loop()
        started = loop.time()
        status: int | None = None
        answer: Message | None = None
        try:
            timeout = aiohttp.ClientTimeout(total=server.get("timeoutSeconds", 20))
            async with self._http.post(
                server["url"], json=body, headers=server.get("headers"), timeout=timeout, allow_redirects=False
            ) as response:
                raw = await response.content.read(MAX_BODY)
                status = response.status
                answer = json.loads(raw) if raw and status < 300 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            answer = None
        call.posted.append(Posted(started, kind, body, status, attempt, loop.time() - started))
        return status, answer

    def _enveloped(self, call: SandboxCall, message: Message) -> Message:
        """The webhook form: wrapped, with the call, the assistant (as the vendor does, with its server's headers) and the words."""
        turns = call.turns
        so_far = turns.conversation() if turns is not None else {"messages": [], "messagesOpenAIFormatted": []}
        artifact = {
            "messages": so_far["messages"],
            "messagesOpenAIFormatted": so_far["messagesOpenAIFormatted"],
            "transcript": transcript(so_far["messages"]),
            "variableValues": call.request.get("assistantOverrides", {}).get("variableValues", {}),
        }
        fields = dict(message)
        if message["type"] == "assistant.started":
            fields["newAssistant"] = call.assistant
        if message["type"] == "end-of-call-report" and turns is not None:
            fields.update(report(call.public, turns, artifact))
            call.public.update({key: fields[key] for key in ("artifact", "analysis", "messages", "cost", "costBreakdown", "costs")})
        context = {"timestamp": int(self._wall() * 1000), "call": copy.copy(call.public), "assistant": call.assistant, "artifact": artifact}
        return {"message": {**context, **fields}}

    # ---- small things

    def _iso(self) -> str:
        return iso(self._wall())

    def _uuid7(self) -> str:
        """Time-ordered, as Vapi's ids are."""
        value = (int(self._wall() * 1000) << 80) | (7 << 76) | (self._rng.getrandbits(12) << 64) | (2 << 62) | self._rng.getrandbits(62)
        return str(uuid.UUID(int=value))


def iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def merged(base: Message, over: Message) -> Message:
    """A copy of `base` in which every value of `over` replaces its own; dictionaries merge, lists do not."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def transcript(messages: list[Message]) -> str:
    labels = {"bot": "AI", "user": "User"}
    return "".join(f"{labels[each['role']]}: {each['message']}\n" for each in messages if each["role"] in labels)


def report(public: Message, turns: Turns, artifact: Message) -> Message:
    """The fields of an end-of-call-report beyond its reason. Prices are the measured ones of 2026, a minute."""
    seconds = max(turns.ended_wall - turns.started_wall, 0.0)
    minutes = seconds / 60
    letters = sum(len(each["message"]) for each in turns.messages if each["role"] == "bot")
    prices = {
        "transport": 0.0,
        "stt": minutes * 0.01,
        "llm": minutes * 0.0045,
        "tts": letters * 0.00007,
        "vapi": minutes * 0.05,
        "chat": 0.0,
    }
    prices = {key: round(value, 4) for key, value in prices.items()}
    total = round(sum(prices.values()), 4)
    tokens = {"llmPromptTokens": 300 * max(len(turns.messages), 1), "llmCompletionTokens": letters // 4, "llmCachedPromptTokens": 0}
    return {
        "startedAt": iso(turns.started_wall),
        "endedAt": iso(turns.ended_wall),
        "durationMs": int(seconds * 1000),
        "durationSeconds": round(seconds, 3),
        "durationMinutes": round(minutes, 4),
        "cost": total,
        "costBreakdown": {**prices, "total": total, **tokens, "ttsCharacters": letters},
        "costs": [
            {"type": "transport", "provider": "vapi.websocket", "minutes": round(minutes, 4), "cost": 0},
            {"type": "vapi", "subType": "normal", "minutes": round(minutes, 4), "cost": prices["vapi"]},
        ],
        "summary": "",
        "analysis": {"summary": "", "successEvaluation": "true"},
        "transcript": artifact["transcript"],
        "messages": artifact["messages"],
        "artifact": {**artifact, "performanceMetrics": {"numUserInterrupted": 0, "numAssistantInterrupted": turns.interruptions}},
        "compliance": {},
    }
