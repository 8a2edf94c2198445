"""The wire that a vendor's socket offers, over a real socket: who takes messages first has them as they came."""

from __future__ import annotations

import asyncio
from typing import Any

from websockets.asyncio.client import connect

from bridge.ports import WIRE, Wire
from tests.roof.raw_sockets import serving

DOOR = "/webhook/twilio/media"


class App:
    """Takes the messages that begin with "mine" first, and hears the rest."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.heard: list[str] = []
        self.listens = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        wire: Wire = scope["extensions"][WIRE]["wire"]
        wire.listen(self.heard.append, first=self.takes)
        self.listens.set()
        while (await receive())["type"] != "websocket.disconnect":
            pass

    def takes(self, message: bytes) -> bool:
        if is_mine := message.startswith(b"mine"):
            self.taken.append(message)
        return is_mine


async def test_who_takes_messages_first_has_them_as_they_came_and_the_rest_is_told_as_text() -> None:
    app = App()
    async with serving(app) as port, connect(f"ws://127.0.0.1:{port}{DOOR}", proxy=None) as socket:
        await app.listens.wait()
        for text in ("mine 1", "yours é", "mine é", ""):
            await socket.send(text)
        await socket.send(b"mine, but no text")
        await socket.close()
    assert app.taken == [b"mine 1", "mine é".encode()]
    assert app.heard == ["yours é", "", ""]
