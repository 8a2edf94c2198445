"""Somebody else's bridge, as short as one can be: it knows nothing of this project, and the sandbox nothing of it.

It creates a Vapi call for each phone call, passes audio both ways, clears Twilio when the caller interrupts, answers the one
tool, and does nothing at all about trouble.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import aiohttp
from aiohttp import web

from bridge.sandbox.clips import CLIPS
from tests.sandbox.talks import ASSISTANT, LOCKED

FRAME = 160


class Relay:
    """`app` on any port; `url` has to be set to where it listens before the first call."""

    def __init__(self, vapi_url: str, api_key: str) -> None:
        self.url = ""
        self._vapi_url = vapi_url
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._sockets: dict[str, str] = {}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/media", self._media)
        for path, handler in (("/voice", self._ring), ("/status", self._status), ("/vapi", self._tool)):
            app.router.add_post(path, handler)
        return app

    async def _ring(self, request: web.Request) -> web.Response:
        sid = str((await request.post())["CallSid"])
        call = {
            "name": f"{sid}.0",
            "assistant": {**ASSISTANT, "server": {"url": f"{self.url}/vapi"}},
            "transport": {"provider": "vapi.websocket", "audioFormat": {"format": "mulaw", "container": "raw", "sampleRate": 8000}},
        }
        async with aiohttp.ClientSession(headers=self._headers) as http, http.post(f"{self._vapi_url}/call", json=call) as answer:
            if answer.status != 201:
                return _twiml("<Hangup/>")
            self._sockets[sid] = (await answer.json())["transport"]["websocketCallUrl"]
        disclosed = f"<Say>{CLIPS['disclosure'].text}</Say>" if "disclosure" in request.query else ""
        return _twiml(f'{disclosed}<Connect><Stream url="{self.url.replace("http", "ws")}/media"/></Connect>')

    async def _status(self, _request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def _tool(self, request: web.Request) -> web.Response:
        message = (await request.json())["message"]
        if message["type"] != "tool-calls":
            return web.Response()
        call_id = message["toolCallList"][0]["id"]
        return web.json_response({"results": [{"toolCallId": call_id, "name": "get_user_account", "result": LOCKED}]})

    async def _media(self, request: web.Request) -> web.WebSocketResponse:
        twilio = web.WebSocketResponse()
        await twilio.prepare(request)
        await twilio.receive()  # connected
        start = json.loads((await twilio.receive()).data)
        url = self._sockets.pop(start["start"]["callSid"])
        async with aiohttp.ClientSession(headers=self._headers) as http, http.ws_connect(url) as vapi:
            ways = {asyncio.create_task(up(twilio, vapi)), asyncio.create_task(down(vapi, twilio, start["streamSid"]))}
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        await twilio.close()
        return twilio


async def up(twilio: web.WebSocketResponse, vapi: aiohttp.ClientWebSocketResponse) -> None:
    async for message in twilio:
        body = json.loads(message.data)
        if body["event"] == "media":
            await vapi.send_bytes(base64.b64decode(body["media"]["payload"]))


async def down(vapi: aiohttp.ClientWebSocketResponse, twilio: web.WebSocketResponse, sid: str) -> None:
    async def send(event: str, **fields: Any) -> None:
        await twilio.send_json({"event": event, "streamSid": sid, **fields})

    rest = b""
    async for message in vapi:
        if message.type == aiohttp.WSMsgType.BINARY:
            rest += message.data
            whole = len(rest) - len(rest) % FRAME
            await send("media", media={"payload": base64.b64encode(rest[:whole]).decode()})
            rest = rest[whole:]
        elif message.type == aiohttp.WSMsgType.TEXT and json.loads(message.data)["type"] == "user-interrupted":
            await send("clear")


def _twiml(verbs: str) -> web.Response:
    return web.Response(text=f"<Response>{verbs}</Response>", content_type="text/xml")
