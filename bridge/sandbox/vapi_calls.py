"""`/call` at the sandbox Vapi: calls are made, listed, read, renamed and erased. Faults of the create are played here."""

from __future__ import annotations

import asyncio
import copy
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from aiohttp import web

from bridge.sandbox import dto, malformed, wideband
from bridge.sandbox.evidence import Message
from bridge.sandbox.faults import Faults
from bridge.sandbox.report import OVER
from bridge.sandbox.script import Scenario
from bridge.sandbox.vapi_call import TRACKS, SandboxCall
from bridge.sandbox.vapi_rest import BadQuery, Rest, listed

UNKNOWN = "Call does not exist."
LIMIT_REACHED = "call.start.error-subscription-concurrency-limit-reached"
NOBODY = "019a0000-0000-7000-8000-000000000000"  # the id of another call when there is none
AT_ONCE_S = 0.05
DRIP_S = 1.0


class Switchboard(Protocol):
    """What `/call` needs of the sandbox it belongs to."""

    concurrency_limit: int

    @property
    def base_url(self) -> str: ...

    def part_of(self, name: str) -> tuple[Scenario, Faults]: ...

    def open_calls(self) -> list[SandboxCall]: ...

    def end_unheld(self, call: SandboxCall, reason: str) -> None: ...

    def watch(self, call: SandboxCall) -> None: ...

    def deliver(self, call: SandboxCall, message: Message) -> Awaitable[Message | None]: ...


class Calls:
    """`made` by id, oldest first."""

    def __init__(
        self,
        rest: Rest,
        board: Switchboard,
        *,
        assistants: Mapping[str, Message],
        org_id: str,
        rng: random.Random,
        wall: Callable[[], float],
        now: Callable[[], str],
    ) -> None:
        self.made: dict[str, SandboxCall] = {}
        self.asked: Counter[str] = Counter()  # requests that came in, by phone call, whatever became of them
        self._rest = rest
        self._board = board
        self._assistants = assistants
        self._org_id = org_id
        self._rng = rng
        self._wall = wall
        self._now = now
        self._refusals: Counter[str] = Counter()  # by phone call
        self.erased: list[str] = []  # ids of calls, in the order they were erased
        self._unerased: Counter[str] = Counter()  # how often erasing was refused, by id

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/call", self._create),
            web.get("/call", self._list),
            web.get("/call/{id}", self._get),
            web.patch("/call/{id}", self._update),
            web.delete("/call/{id}", self._delete),
            *(web.get(f"/call/{{id}}/{track}-recording", self._link) for track in TRACKS),
            web.get("/recordings/{file}", self._recording),
        ]

    # ---- making one

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await self._rest.body(request, dto.CALL)
        if isinstance(body, web.Response):
            return body
        scenario, faults = self._board.part_of(str(body.get("name", "")))
        if faults.create_tls_half:
            await asyncio.Event().wait()
        self.asked[str(body.get("name", "")).partition(".")[0]] += 1
        refusal = await self._told_to_refuse(request, body, faults)
        if refusal is not None:
            return refusal
        wrong, assistant = self._assistant_of(body)
        if wrong:
            return self._rest.refuse(request, 400, wrong)
        if faults.line_limit == "refused" or len(self._board.open_calls()) >= self._board.concurrency_limit:
            return self._rest.refuse(request, 400, "Over Concurrency Limit")
        await asyncio.sleep(faults.create_delay_s)
        call = self._new_call(body, assistant, scenario, faults)
        if faults.early_webhook:
            await self._board.deliver(call, {"type": "status-update", "status": "queued"})
        return await self._answer(request, call)

    async def _told_to_refuse(self, request: web.Request, body: Message, faults: Faults) -> web.Response | None:
        phone_call = str(body.get("name", "")).partition(".")[0]
        if faults.create_status is None or (faults.create_times is not None and self._refusals[phone_call] >= faults.create_times):
            return None
        self._refusals[phone_call] += 1
        await asyncio.sleep(faults.create_delay_s)
        headers = {"Retry-After": faults.retry_after} if faults.retry_after else None
        return self._rest.refuse(request, faults.create_status, headers=headers)

    def _assistant_of(self, body: Message) -> tuple[str, Message]:
        """(what is wrong, the assistant with its overrides merged in). Overrides merge deeply, lists are replaced."""
        if "transport" not in body:
            return "Couldn't Get Phone Number. Need Either `phoneNumberId` Or `phoneNumber`.", {}
        if "phoneNumberId" in body or "phoneNumber" in body:
            return "transport.provider vapi.websocket does not take a phone number.", {}
        if wideband.format_of(body) is None:
            return "The sandbox speaks mulaw at 8000 and pcm_s16le at 16000 only.", {}
        if ("assistantId" in body) == ("assistant" in body):
            return "Need Either `assistantId` Or `assistant`.", {}
        stored = self._assistants.get(body["assistantId"]) if "assistantId" in body else body["assistant"]
        if stored is None:
            return f"Couldn't Get Assistant. `assistantId` {body['assistantId']} Does Not Exist.", {}
        overrides = {key: value for key, value in body.get("assistantOverrides", {}).items() if key != "variableValues"}
        return "", merged(stored, overrides)

    def _new_call(self, body: Message, assistant: Message, scenario: Scenario, faults: Faults) -> SandboxCall:
        call_id = uuid7(self._wall(), self._rng)
        now, base_url = self._now(), self._board.base_url
        socket_url = f"{base_url.replace('http', 'ws', 1)}/{call_id}/transport"
        public: Message = {
            "id": call_id,
            "orgId": self._org_id,
            "type": "vapi.websocketCall",
            "createdAt": now,
            "updatedAt": now,
            "status": "queued",
            "cost": 0,
            **{key: body[key] for key in ("name", "assistantId", "assistant", "assistantOverrides", "customer") if key in body},
            "monitor": {"controlUrl": f"{base_url}/{call_id}/control"},
            "transport": {
                **body["transport"],
                "conversationType": "voice",
                "websocketCallUrl": socket_url.replace("ws:", "wss:", 1) if faults.socket_tls_half else socket_url,
            },
        }
        call = SandboxCall(call_id, body, assistant, public, scenario, faults, blocked=faults.line_limit == "blocked")
        self.made[call_id] = call
        self._board.watch(call)
        if faults.line_limit == "ended":
            asyncio.get_running_loop().call_later(AT_ONCE_S, self._board.end_unheld, call, LIMIT_REACHED)
        return call

    async def _answer(self, request: web.Request, call: SandboxCall) -> web.StreamResponse:
        limit = self._board.concurrency_limit
        left = 0 if call.blocked else limit - len(self._board.open_calls())
        limits = {"concurrencyBlocked": call.blocked, "concurrencyLimit": limit, "remainingConcurrentCalls": left}
        answer = {"subscriptionLimits": limits, **call.public}
        if call.faults.create_malformed:
            spoiled = malformed.KINDS[call.faults.create_malformed]
            twin = next((other for other in self.made if other != call.id), NOBODY)
            return await _streamed(request, spoiled.body(answer, twin), content_type=spoiled.content_type)
        if call.faults.create_drips:
            whole = web.json_response(answer).body
            drops = (bytes([byte]) for byte in whole) if isinstance(whole, bytes) else ()
            return await _streamed(request, drops, content_type="application/json", every_s=DRIP_S)
        return web.json_response(answer, status=201)

    # ---- what became of it

    async def _list(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(listed([call.public for call in reversed(self.made.values())], request.query))
        except BadQuery as bad:
            return self._rest.refuse(request, 400, [bad.why])

    async def _get(self, request: web.Request) -> web.Response:
        call = self.made.get(request.match_info["id"])
        return web.json_response(call.public) if call else self._rest.refuse(request, 404, UNKNOWN)

    async def _update(self, request: web.Request) -> web.Response:
        call = self.made.get(request.match_info["id"])
        if call is None:
            return self._rest.refuse(request, 404, UNKNOWN)
        body = await self._rest.body(request, dto.CALL_UPDATE)
        if isinstance(body, web.Response):
            return body
        call.public.update(body, updatedAt=self._now())
        return web.json_response(call.public)

    async def _delete(self, request: web.Request) -> web.Response:
        """Erases what is known of the call. It hangs up nothing. 503: its recordings could not be erased, so nothing is."""
        call = self.made.get(request.match_info["id"])
        if call is None:
            return self._rest.refuse(request, 404, UNKNOWN)
        if self._unerased[call.id] < call.faults.delete_refusals:
            self._unerased[call.id] += 1
            return self._rest.refuse(request, 503)
        self.erased.append(call.id)
        erased = dict(call.public)
        for key in OVER:
            call.public.pop(key, None)
        return web.json_response(erased)

    async def _link(self, request: web.Request) -> web.Response:
        """A recording's address, good for whoever has it."""
        call = self.made.get(request.match_info["id"])
        track = request.path.rpartition("/")[2].removesuffix("-recording")
        links = call.public.get("artifact", {}) if call else {}
        url = links.get(f"presigned{track.title()}Url")
        return web.Response(status=302, headers={"Location": url}) if url else self._rest.refuse(request, 404, UNKNOWN)

    async def _recording(self, request: web.Request) -> web.Response:
        call_id, _, track = request.match_info["file"].removesuffix(".wav").rpartition("-")
        call = self.made.get(call_id)
        if call is None or track not in TRACKS or "artifact" not in call.public:
            return self._rest.refuse(request, 404, UNKNOWN)
        return web.Response(body=call.recording(track), content_type="audio/wav")


async def _streamed(request: web.Request, parts: Iterable[bytes], *, content_type: str, every_s: float = 0.0) -> web.StreamResponse:
    """201, sent part by part; a client that leaves in the middle ends it."""
    response = web.StreamResponse(status=201, headers={"Content-Type": content_type})
    await response.prepare(request)
    for part in parts:
        try:
            await response.write(part)
        except ConnectionError:
            return response
        await asyncio.sleep(every_s)
    await response.write_eof()
    return response


def uuid7(wall: float, rng: random.Random) -> str:
    """Time-ordered, as Vapi's ids are."""
    value = (int(wall * 1000) << 80) | (7 << 76) | (rng.getrandbits(12) << 64) | (2 << 62) | rng.getrandbits(62)
    return str(uuid.UUID(int=value))


def merged(base: Message, over: Message) -> Message:
    """A copy of `base` in which every value of `over` replaces its own; dictionaries merge, lists do not."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result
