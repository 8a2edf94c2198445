"""A house for the sandbox Twilio to call: in memory, for virtual time, and a small one behind real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from twilio.request_validator import RequestValidator

from bridge.sandbox import virtual
from bridge.sandbox.clips import CLIPS
from bridge.sandbox.media import Pipe
from bridge.sandbox.script import Caller, Step
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.virtual import MemoryPipe, ServerEnd
from bridge.sandbox.web import Answer, WebFailure

WIRE = Path(__file__).parents[1] / "wire" / "twilio"
TOKEN = "0123456789abcdef0123456789abcdef"
HOUSE = "https://voice.example.com"
STREAM = '<Connect><Stream url="wss://voice.example.com/media" statusCallback="https://voice.example.com/stream"/></Connect>'
NUMBER, OTHER = "+14155550123", "+14155550124"


class House:
    """Answers from a table of documents, checks every signature with Twilio's own library, and keeps what it was asked."""

    def __init__(self, documents: Mapping[str, str | Answer | float], media: Callable[[ServerEnd], Awaitable[None]] | None = None) -> None:
        self.documents = documents
        self.media = media
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.tokens: list[str] = []  # of each request, in the order of `asked`
        self.refuse_with = 0
        self._servers: list[asyncio.Task[None]] = []

    async def request(self, method: str, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        assert RequestValidator(TOKEN).validate(url, dict(params), headers["X-Twilio-Signature"])
        path = urlsplit(url).path
        self.asked.append((path, dict(params)))
        self.tokens.append(headers.get("I-Twilio-Idempotency-Token", ""))
        answer = self.documents.get(path, Answer(204, "", b""))
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return Answer(200, "text/xml", b"<Response/>")
        if isinstance(answer, Answer):
            return answer
        return Answer(200, "text/xml", f"<Response>{answer}</Response>".encode())

    async def socket(self, url: str, headers: Mapping[str, str]) -> Pipe:
        assert RequestValidator(TOKEN).validate(url, {}, headers["X-Twilio-Signature"])
        if self.refuse_with or self.media is None:
            raise WebFailure(31920, f"handshake answered with {self.refuse_with}")
        pipe = MemoryPipe()
        self._servers.append(asyncio.create_task(self.media(pipe.server)))  # type: ignore[arg-type]
        return pipe

    async def close(self) -> None:
        for task in self._servers:
            task.cancel()
        for result in await asyncio.gather(*self._servers, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    def params(self, path: str) -> dict[str, str]:
        return next(params for asked, params in self.asked if asked == path)


def place(house: House, *steps: Step, meanwhile: Callable[[TwilioCall], Awaitable[None]] | None = None, **options: Any) -> TwilioCall:
    """One whole call in virtual time."""

    async def carry() -> TwilioCall:
        call = TwilioCall(
            webhook_url=f"{HOUSE}/voice",
            status_url=f"{HOUSE}/status",
            auth_token=TOKEN,
            caller=Caller(steps),
            web=house,
            rng=Random(7),
            wall=lambda: 1_795_000_000.0,
            **options,
        )
        if meanwhile is None:
            return await call.run()
        running = asyncio.create_task(call.run())
        await meanwhile(call)
        return await running

    return virtual.run(carry())


def clip_message(sid: str, ulaw: bytes) -> str:
    return json.dumps({"event": "media", "streamSid": sid, "media": {"payload": base64.b64encode(ulaw).decode()}})


def mark_message(sid: str, name: str) -> str:
    return json.dumps({"event": "mark", "streamSid": sid, "mark": {"name": name}})


async def opened(server: ServerEnd) -> str:
    """Reads `connected` and `start`; the stream's sid."""
    connected, start = json.loads(await server.receive() or ""), json.loads(await server.receive() or "")
    assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    return str(start["streamSid"])


async def greet_and_close(server: ServerEnd) -> None:
    sid = await opened(server)
    await server.send(clip_message(sid, CLIPS["greeting"].ulaw))
    await server.send(mark_message(sid, "end"))
    while (text := await server.receive()) is not None:
        if json.loads(text)["event"] == "mark":
            await server.close()
            return


@asynccontextmanager
async def serving(
    *, media: Callable[[web.Request], Awaitable[web.StreamResponse]], documents: Mapping[str, str]
) -> AsyncIterator[tuple[str, list[Any]]]:
    """A small real server; `{BASE}` in a document is its own address. Gives the address and what was asked."""
    asked: list[Any] = []
    base = ""

    async def document(request: web.Request) -> web.Response:
        form = dict(await request.post())
        valid = RequestValidator(TOKEN).validate(base + request.path_qs, form, request.headers["X-Twilio-Signature"])
        asked.append((request.path, form, valid, request.headers.copy(), dict(request.cookies)))
        body = documents.get(request.path)
        if body is None:
            return web.Response(status=204)
        response = web.Response(text=f"<Response>{body.replace('{BASE}', base)}</Response>", content_type="text/xml")
        response.set_cookie("seen", "1")
        return response

    app = web.Application()
    app.router.add_post("/{path:(?!media).*}", document)
    app.router.add_get("/media", media)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    base = f"http://{host}:{port}"
    try:
        yield base, asked
    finally:
        await runner.cleanup()
