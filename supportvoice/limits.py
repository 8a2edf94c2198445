"""What a stranger may ask of us before any of our code runs: sizes and times of request bodies, and who may open a socket.

Plain ASGI, so that every server has them. What only the server can see (headers that never end, peers that never read)
is in `guards`. Each refusal is one plain sentence and changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from asgiref.typing import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    HTTPRequestEvent,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    HTTPScope,
    Scope,
    WebSocketCloseEvent,
    WebSocketResponseBodyEvent,
    WebSocketResponseStartEvent,
)

BODY_LIMIT = 256 * 1024
REPORT_LIMIT = 8 * 1024 * 1024  # an end-of-call report; the door itself holds every other message to BODY_LIMIT
BODY_SECONDS = 10.0
LINGER_SECONDS = 1.0


class BodyRefused(Exception):
    """The body is not what we take. `status` is the HTTP status, the text the sentence to answer."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Gone(Exception):
    """The peer left before its body was complete."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Reads a whole body, bounded in bytes and seconds, and only then calls `app`, which finds it in one message.

    `wide`: path -> bytes for the doors that take more. A body is refused by its Content-Length before a byte is read,
    and by counting while reading when it came without one or with a lie.
    """

    app: ASGI3Application
    limit: int = BODY_LIMIT
    wide: Mapping[str, int] = field(default_factory=dict)
    seconds: float = BODY_SECONDS

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except BodyRefused as refusal:
            await _refuse_unread(receive, send, refusal)
        except Gone:
            return
        else:
            await self.app(scope, _replay(body, receive), send)

    async def _read(self, scope: HTTPScope, receive: ASGIReceiveCallable) -> bytes:
        limit = self.wide.get(scope["path"], self.limit)
        too_long = BodyRefused(413, f"The request body is longer than {limit} bytes.")
        if _announced(scope) > limit:
            raise too_long
        body = bytearray()
        try:
            async with asyncio.timeout(self.seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Gone
                    body += message["body"]
                    if len(body) > limit:
                        raise too_long
                    if not message["more_body"]:
                        return bytes(body)
        except TimeoutError:
            raise BodyRefused(408, f"The request body was not complete within {self.seconds:g} s.") from None


def _announced(scope: HTTPScope) -> int:
    """The Content-Length, 0 when there is none."""
    lengths = {value for name, value in scope["headers"] if name == b"content-length"}
    if not lengths:
        return 0
    value = lengths.pop()
    if lengths or not value.isdigit() or len(value) > 19:
        raise BodyRefused(400, "The request has no plain Content-Length.")
    return int(value)


def _replay(body: bytes, receive: ASGIReceiveCallable) -> ASGIReceiveCallable:
    waiting: list[HTTPRequestEvent] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> ASGIReceiveEvent:
        return waiting.pop() if waiting else await receive()

    return replayed


async def _refuse_unread(receive: ASGIReceiveCallable, send: ASGISendCallable, refusal: BodyRefused) -> None:
    """Answer in full, then read on a moment without keeping anything: a peer that is still sending would lose an answer
    followed by a closed connection."""
    await say(send, status=refusal.status, sentence=str(refusal), more=True)
    if refusal.status == 413:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while (message := await receive())["type"] == "http.request" and message["more_body"]:
                    pass
    await send(HTTPResponseBodyEvent(type="http.response.body", body=b"", more_body=False))


async def say(send: ASGISendCallable, *, status: int, sentence: str, more: bool = False) -> None:
    """Answer with one sentence and close. `more`: the caller ends the response itself, when it has read what was left."""
    text = f"{sentence}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(text)),
        (b"cache-control", b"no-store"),
    ]
    if status >= 400:
        headers.append((b"connection", b"close"))
    await send(HTTPResponseStartEvent(type="http.response.start", status=status, headers=headers, trailers=False))
    await send(HTTPResponseBodyEvent(type="http.response.body", body=text, more_body=more))


async def refuse_socket(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable, *, status: int, sentence: str) -> None:
    """Refuse a WebSocket before it is open: with `status` and the sentence where the server can, else with its 403."""
    await receive()
    if scope["type"] == "websocket" and "websocket.http.response" in (scope.get("extensions") or {}):
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await send(WebSocketResponseStartEvent(type="websocket.http.response.start", status=status, headers=headers))
        body = f"{sentence}\n".encode()
        await send(WebSocketResponseBodyEvent(type="websocket.http.response.body", body=body, more_body=False))
    else:
        await send(WebSocketCloseEvent(type="websocket.close", code=1008, reason=sentence))


def no_browsers(app: ASGI3Application) -> ASGI3Application:
    """For sockets that only vendors open: a request with an Origin comes from a web page and is refused."""

    async def guarded(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "websocket" and any(name == b"origin" for name, _ in scope["headers"]):
            await refuse_socket(scope, receive, send, status=403, sentence="This socket is not for web pages.")
        else:
            await app(scope, receive, send)

    return guarded


def behind_tls(app: ASGI3Application) -> ASGI3Application:
    """For a house whose public address is https: whatever a request says of itself, it came that way as far as its proxy."""

    async def by_tls(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http":
            scope["scheme"] = "https"
        await app(scope, receive, send)

    return by_tls


async def no_such_socket(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await refuse_socket(scope, receive, send, status=404, sentence="There is no such socket.")


def only_role(role: str, app: ASGI3Application) -> ASGI3Application:
    """`media` processes have the vendors' doors, `web` processes those of people, `all` has both."""

    async def by_role(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan" or role == "all" or (role == "media") == scope["path"].startswith("/webhook/"):
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await refuse_socket(scope, receive, send, status=404, sentence="This process does not serve that socket.")
        else:
            await say(send, status=404, sentence="This process does not serve that address.")

    return by_role
