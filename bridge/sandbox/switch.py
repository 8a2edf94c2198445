"""One address for Twilio's REST API when the calls live in other processes: each is registered, requests are passed on to it.

POST /sandbox/calls/{CallSid} {"at": "http://127.0.0.1:…"} names the server that knows a call. Everybody else is unknown to Twilio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from bridge.sandbox.twilio_rest import TwilioRestSandbox

NOT_FOUND = 404
PASSED_ON = ("Authorization", "Content-Type")
PATIENCE = aiohttp.ClientTimeout(30)


class Switch:
    """The registered servers by call, and the one that knows nobody."""

    def __init__(self, http: aiohttp.ClientSession, nobody: str) -> None:
        self._http = http
        self._nobody = nobody
        self._servers: dict[str, str] = {}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/sandbox/calls/{sid}", self._register)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        return app

    async def _register(self, request: web.Request) -> web.Response:
        try:
            address = (await request.json())["at"]
            here = urlsplit(address).hostname in ("127.0.0.1", "localhost")
        except (ValueError, KeyError, TypeError, AttributeError):
            here = False
        if not here:
            return web.json_response({"message": "at must be an address of this machine"}, status=400)
        self._servers[request.match_info["sid"]] = address
        return web.json_response({}, status=201)

    async def _pass_on(self, request: web.Request) -> web.Response:
        """To the server of the call that the path names; a recording may be anybody's."""
        body = await request.read()
        named = [server for sid, server in self._servers.items() if f"/{sid}." in request.path]
        known = list(self._servers.values()) if "/Recordings/" in request.path else named
        for server in reversed(known):
            try:
                answer = await self._asked(server, request, body)
            except (aiohttp.ClientError, TimeoutError):  # that call's process is gone
                continue
            if answer.status != NOT_FOUND:
                return answer
        return await self._asked(self._nobody, request, body)

    async def _asked(self, server: str, request: web.Request, body: bytes) -> web.Response:
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        async with self._http.request(request.method, server + request.path_qs, data=body, headers=headers, timeout=PATIENCE) as answer:
            return web.Response(status=answer.status, body=await answer.read(), headers={"Content-Type": answer.headers["Content-Type"]})


@asynccontextmanager
async def running(account_sid: str, auth_token: str, *, port: int = 0) -> AsyncIterator[str]:
    """The switch on this port of this machine; yields its address."""
    async with TwilioRestSandbox(account_sid, auth_token) as nobody, aiohttp.ClientSession() as http:
        runner = web.AppRunner(Switch(http, nobody.base_url).app(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
