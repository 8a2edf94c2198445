"""A Vapi to call: REST, the audio socket and webhooks back, over real HTTP. The conversation itself is `turns.Turns`.

It takes what the vendor's schema takes and refuses the rest (`dto`), so a request that works here has no unknown field. Ids
are UUIDv7. Socket and control URLs open a call to whoever has them, as the vendor's do. `calls[id]` keeps all evidence.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp import web

from bridge.sandbox import liquid, mouth, wideband
from bridge.sandbox.clips import spoken_by
from bridge.sandbox.ear import Ear, Recogniser
from bridge.sandbox.evidence import Message, Posted
from bridge.sandbox.faults import Faults
from bridge.sandbox.order import Orders
from bridge.sandbox.plan import Plan
from bridge.sandbox.postman import Postman
from bridge.sandbox.report import OVER, Over, iso, report
from bridge.sandbox.script import TECHFLOW, Scenario
from bridge.sandbox.tls_half import Site
from bridge.sandbox.turns import Turns
from bridge.sandbox.vapi_assistants import Assistants
from bridge.sandbox.vapi_call import SandboxCall, SocketPipe
from bridge.sandbox.vapi_calls import UNKNOWN, Calls, merged, uuid7
from bridge.sandbox.vapi_rest import Rest

__all__ = ["Posted", "SandboxCall", "VapiSandbox", "merged"]

CONNECT_WITHIN_S = 20.0
MAX_BODY = 1 << 20
NEVER_CONNECTED = "call.in-progress.error-providerfault-transport-never-connected"
STOPPED = "call.in-progress.error-vapifault-worker-died"


class VapiSandbox:
    """`async with VapiSandbox(scenario=…) as vapi:` listens on `vapi.base_url` until the block ends.

    `scenario` may be exchanged between calls, `faults` at any time; `of_call` gives single calls, by their name or its first part
    (up to the dot), a scenario and faults of their own. `ear_factory` makes the recogniser of each call's caller; `rng` and `wall`
    (seconds since 1970) are all it knows of chance and time besides the loop's clock.
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
        self.concurrency_limit = concurrency_limit
        self._ear_factory = ear_factory
        self._rng = rng or random.Random()
        self._wall = wall
        self._host = host
        self._port = port
        self._closing = asyncio.Event()
        self._rest = Rest()
        org_id = uuid7(wall(), self._rng)
        self._assistants = Assistants(self._rest, org_id=org_id, rng=self._rng, now=self._iso)
        self.assistants = self._assistants.stored
        self._calls = Calls(self._rest, self, assistants=self.assistants, org_id=org_id, rng=self._rng, wall=wall, now=self._iso)
        self.calls = self._calls.made
        self.asked = self._calls.asked
        self.erased = self._calls.erased
        self.refused = self._rest.refused  # (path, status, why): what a correct client never causes
        self._runner: web.AppRunner | None = None
        self._site: Site | None = None
        self._http: aiohttp.ClientSession | None = None
        self._postman: Postman | None = None
        self._holding: set[asyncio.Task[None]] = set()

    # ---- the server

    async def __aenter__(self) -> VapiSandbox:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    @property
    def base_url(self) -> str:
        """Where a bridge is told to find it; see `tls_half` for what becomes of https."""
        return f"http{'s' if self.faults.create_tls_half else ''}://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen; `base_url` is right from then on, also for port 0."""
        self._http = aiohttp.ClientSession()
        self._postman = Postman(self._http, wall=self._wall, rng=self._rng)
        self._runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        self._site = Site(self._runner, self._host, self._port)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """End the calls that are left, deliver nothing more, close every socket."""
        self._closing.set()
        for call in self.calls.values():
            if call.watch is not None:
                call.watch.cancel()
            if call.open and call.turns is not None:
                call.turns.end(STOPPED)
        if self._runner is not None:
            await self._runner.cleanup()
        for task in list(self._holding):
            task.cancel()
        await asyncio.gather(*self._holding, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY, middlewares=[self._at_the_door])
        own = [web.post("/{id}/control", self._control), web.get("/{id}/transport", self._transport)]
        orders = Orders(self._rest, self.of_call, self.calls)
        app.add_routes([*self._assistants.routes(), *self._calls.routes(), *orders.routes(), *own])
        return app

    def open_calls(self) -> list[SandboxCall]:
        """Calls that nobody ended yet: after every test there should be none."""
        return [call for call in self.calls.values() if call.open]

    @property
    def left_half_way(self) -> int:
        """Connections that wait in a TLS handshake now."""
        return len(self._site.held) if self._site else 0

    def part_of(self, name: str) -> tuple[Scenario, Faults]:
        """What is to be played for a call of this name."""
        phone_call, _, n = name.partition(".")
        scenario, faults = self.of_call.get(name) or self.of_call.get(phone_call) or (self.scenario, self.faults)
        sound = faults.sessions is not None and n.isdecimal() and int(n) >= faults.sessions
        return scenario, Faults() if sound else faults

    @web.middleware
    async def _at_the_door(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        """What comes before any route: the front's dislike of one user agent, and the key (but for capability URLs)."""
        if "Python-urllib" in request.headers.get("User-Agent", ""):
            return web.Response(status=403, text="error code: 1010")
        resource = request.match_info.route.resource
        by_capability = resource is not None and (
            request.path.endswith(("/control", "/transport")) or resource.canonical.startswith("/recordings/")
        )
        given = request.headers.get("Authorization")
        if given != f"Bearer {self.api_key}" and not (by_capability and given is None):
            return self._rest.refuse(request, 401)
        response: web.StreamResponse = await handler(request)
        return response

    # ---- a call's life

    def watch(self, call: SandboxCall) -> None:
        """End the call unless somebody connects to it in time."""
        call.watch = asyncio.get_running_loop().call_later(CONNECT_WITHIN_S, self.end_unheld, call, NEVER_CONNECTED)

    def end_unheld(self, call: SandboxCall, reason: str) -> None:
        """End a call that nobody ever connected to; its server is told like any other's."""
        if call.turns is None and call.open:
            self._ended(call, reason)
            self._later(self._tell_unheld(call, reason))

    async def _tell_unheld(self, call: SandboxCall, reason: str) -> None:
        wanted = Plan.of(call.assistant).server_messages
        for kind, fields in (("status-update", {"status": "ended"}), ("end-of-call-report", {})):
            if kind in wanted and not (kind == "end-of-call-report" and call.faults.no_report):
                await self.deliver(call, {"type": kind, "endedReason": reason, **fields})
        call.done.set()

    def _ended(self, call: SandboxCall, reason: str) -> None:
        call.ended_reason = reason
        if call.watch is not None:
            call.watch.cancel()
        now, turns = self._wall(), call.turns
        over = Over(now, now, [], [], 0)
        if turns is not None:
            over = Over(turns.started_wall, turns.ended_wall, turns.conversation.in_turns(), turns.latencies, turns.interruptions)
        call.report = report(call.id, call.assistant, call.variables, self.base_url, over)
        call.public.update({key: call.report[key] for key in OVER})
        call.public.update(status="ended", endedReason=reason, endedAt=self._iso(), updatedAt=self._iso())

    async def deliver(self, call: SandboxCall, message: Message) -> Message | None:
        assert self._postman is not None  # noqa: S101
        return await self._postman.deliver(call, message)

    async def _control(self, request: web.Request) -> web.Response:
        call = self.calls.get(request.match_info["id"])
        if call is None or not call.open:
            return self._rest.refuse(request, 404, UNKNOWN)
        try:
            message = await request.json()
        except ValueError:
            message = None
        if call.turns is not None:
            known = await call.turns.control(message)
        else:
            known = isinstance(message, dict) and message.get("type") == "end-call"
            if known:
                self.end_unheld(call, "manually-canceled")
        return web.json_response({"success": True}) if known else self._rest.refuse(request, 400, "Invalid control message.")

    # ---- the audio socket

    async def _transport(self, request: web.Request) -> web.StreamResponse:
        call = self.calls.get(request.match_info["id"])
        if call is None or not call.open or call.blocked or call.turns is not None:
            return self._rest.refuse(request, 404, UNKNOWN)
        if call.faults.socket_status is not None:
            return self._rest.refuse(request, call.faults.socket_status)
        if call.faults.socket_never:
            await self._closing.wait()
            return web.Response(status=503)
        socket = web.WebSocketResponse(compress=False, max_msg_size=1 << 16, timeout=1.0)
        if call.faults.socket_protocol:
            socket.headers["Sec-WebSocket-Protocol"] = call.faults.socket_protocol
        try:
            await socket.prepare(request)
        except ConnectionResetError:
            return web.Response()  # nobody reads it: they left before they were answered, and the call still waits for its socket
        if call.watch is not None:
            call.watch.cancel()
        pipe = SocketPipe(socket, request)
        call.turns = self._turns(call, pipe)
        call.public.update(status="in-progress", startedAt=self._iso(), updatedAt=self._iso())
        self._later(self._hold(call, call.turns))
        await pipe.gone.wait()
        return socket

    def _turns(self, call: SandboxCall, pipe: SocketPipe) -> Turns:
        values = {"customer": call.public.get("customer", {}), "call": call.public, "transport": call.public["transport"], **call.variables}
        return Turns(
            pipe=wideband.WidePipe(pipe) if wideband.format_of(call.request) is wideband.WIDE else pipe,
            post=lambda message: self.deliver(call, message),
            scenario=call.scenario,
            ear=(call.scenario.ear or self._ear_factory)(),
            plan=Plan.of(call.assistant, lambda text: liquid.render(text, values, self._wall())),
            rng=random.Random(self._rng.getrandbits(64)),
            wall=self._wall,
            evidence=call.evidence,
            faults=call.faults,
            on_end=lambda reason: self._ended(call, reason),
            voice=call.scenario.voice or mouth.voice,
            times=call.scenario.times,
        )

    async def _hold(self, call: SandboxCall, turns: Turns) -> None:
        """Carry the conversation to its end, and past the socket's: the report comes a second later."""
        try:
            await turns.run()
        finally:
            call.done.set()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._holding.add(task)
        task.add_done_callback(self._holding.discard)

    def _iso(self) -> str:
        return iso(self._wall())
