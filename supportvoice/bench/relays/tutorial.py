"""The bridge of the tutorials: a stock Channels consumer, json, base64 and the `websockets` client, served by daphne.

`BENCH_VAPI` says where the audio sockets are. Nothing is configured that would make it slower: no channel layer, no database.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from typing import Any

import websockets
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import re_path

MARK_EVERY = 1600  # bytes

if not settings.configured:
    settings.configure(SECRET_KEY=os.urandom(16).hex(), ALLOWED_HOSTS=["*"], CHANNEL_LAYERS={})


class RelayConsumer(AsyncWebsocketConsumer):
    stream = ""
    vapi: websockets.ClientConnection | None = None
    listening: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        message = json.loads(text_data or "{}")
        match message.get("event"):
            case "media" if self.vapi is not None:
                await self.vapi.send(base64.b64decode(message["media"]["payload"]))
            case "start":
                self.stream = message["start"]["streamSid"]
                self.vapi = await websockets.connect(f"{os.environ['BENCH_VAPI']}/{message['start']['callSid']}")
                self.listening = asyncio.create_task(self.listen(self.vapi))
            case "stop":
                await self.close()

    async def listen(self, vapi: websockets.ClientConnection) -> None:
        sent = marked = 0
        async for message in vapi:
            if isinstance(message, bytes):
                await self.say(event="media", media={"payload": base64.b64encode(message).decode()})
                sent += len(message)
                if sent - marked >= MARK_EVERY:
                    marked = sent
                    await self.say(event="mark", mark={"name": str(sent)})
            elif json.loads(message)["type"] == "user-interrupted":
                await self.say(event="clear")

    async def say(self, **message: Any) -> None:
        await self.send(text_data=json.dumps({"streamSid": self.stream, **message}))

    async def disconnect(self, code: int) -> None:
        if self.listening is not None:
            self.listening.cancel()
        if self.vapi is not None:
            await self.vapi.close()


_consumer: Any = RelayConsumer.as_asgi()
_routes: list[Any] = [re_path("", _consumer)]
application = ProtocolTypeRouter({"websocket": URLRouter(_routes)})
