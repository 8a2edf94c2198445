"""Bad traffic on the two audio sockets and on the pages' sockets: dropped and counted, never an exception, never a stuck socket."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.testing import WebsocketCommunicator
from django.test import Client
from django.urls import re_path

from bridge.consumers import MediaStreamConsumer
from bridge.ports import LinkClosed
from bridge.sandbox import virtual
from bridge.sandbox.hostile import Hostile
from calls.console.routing import websocket_urlpatterns
from calls.models import Status
from supportvoice.limits import no_such_socket
from tests.bridge.virtual_time import BRIDGE_CLIPS, Notebook
from tests.builders import a_call, a_person
from tests.fuzz.conftest import Cases

WIRE = Path(__file__).parents[1] / "wire"
START = json.loads((WIRE / "twilio" / "media_streams" / "from_twilio_start.json").read_text())
FROM_TWILIO = [json.loads(path.read_text()) for path in sorted((WIRE / "twilio" / "media_streams").glob("from_twilio_*.json"))]
FROM_VAPI = [json.loads(path.read_text()) for path in sorted((WIRE / "vapi" / "ws-vapi-to-client").glob("*.json"))]
MESSAGES = 30
LONGEST_S = 60.0  # virtual


class BadLink:
    """A Vapi socket that says these things, 20 ms apart, and closes."""

    def __init__(self, said: list[bytes | str]) -> None:
        self.dropped_bytes = self.dropped_frames = 0
        self._said = said

    def send_audio(self, ulaw: bytes) -> None:
        """Nobody listens."""

    def send_control(self, message: Mapping[str, Any]) -> None:
        """Nobody listens."""

    async def carry(self, on_message: Callable[[bytes | str], bool], *, on_silence: Callable[[], None] | None = None) -> None:
        await asyncio.sleep(0.02)
        while self._said:
            if not on_message(self._said.pop(0)):
                return
            await asyncio.sleep(0.02)
        raise LinkClosed(1006)

    def drop(self) -> None:
        self._said.clear()

    async def close(self) -> None:
        self._said.clear()


class OneLink:
    def __init__(self, said: list[bytes | str]) -> None:
        self._link = BadLink(said)

    async def open(self, socket_url: str, *, wideband: bool = False, account: str = "main") -> BadLink:
        return self._link


async def carry(from_twilio: list[dict[str, Any]], from_vapi: list[bytes | str]) -> tuple[Notebook, list[Mapping[str, Any]]]:
    """One stream that gets these ASGI events, 20 ms apart, then a disconnect. Raises TimeoutError when it does not end."""
    loop = asyncio.get_running_loop()
    notebook, sent = Notebook(), list[Mapping[str, Any]]()
    events = [{"type": "websocket.connect"}, *from_twilio]

    async def receive() -> Mapping[str, Any]:
        await asyncio.sleep(0.02)
        return events.pop(0) if events else {"type": "websocket.disconnect", "code": 1006}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    consumer = MediaStreamConsumer(
        ledger=notebook,
        conversations=OneLink(from_vapi),
        proof=lambda *, path, headers: True,
        clips=BRIDGE_CLIPS,
        clock=loop.time,
        wall=loop.time,
    )
    async with asyncio.timeout(LONGEST_S):
        await consumer({"type": "websocket", "path": "/webhook/twilio/media", "headers": []}, receive, send)
    return notebook, sent


def event(raw: bytes) -> dict[str, Any]:
    """What a server makes of a frame: text if it is UTF-8, else bytes."""
    try:
        return {"type": "websocket.receive", "text": raw.decode()}
    except UnicodeDecodeError:
        return {"type": "websocket.receive", "bytes": raw}


def started() -> dict[str, Any]:
    start = {**START["start"], "customParameters": {"token": "right"}}
    return event(json.dumps({**START, "start": start}).encode())


@pytest.fixture(autouse=True)
def layer_in_memory(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.ALLOWED_HOSTS = ["testserver"]


def said(hostile: Hostile, samples: list[Any], *, many: int = MESSAGES) -> list[bytes]:
    return [hostile.message(hostile.rng.choice(samples)) for _ in range(hostile.rng.randint(1, many))]


def test_bad_messages_on_twilios_socket_end_in_a_closed_stream(settings: Any, cases: Cases) -> None:
    settings.CHANNEL_LAYERS = {}
    for hostile in cases("twilio-socket", share=0.5):
        proven = hostile.rng.random() < 0.7
        events = [*([started()] if proven else []), *map(event, said(hostile, FROM_TWILIO))]
        notebook, sent = virtual.run(carry(events, []))
        for message in sent:
            if message["type"] == "websocket.send":
                assert json.loads(message["text"])["event"] in {"media", "mark", "clear"}
        assert (notebook.closing is not None) == (proven or "stream-started" in notebook.kinds())


def test_bad_messages_on_vapis_socket_never_stop_a_call(settings: Any, cases: Cases) -> None:
    settings.CHANNEL_LAYERS = {}
    for hostile in cases("vapi-socket", share=0.5):
        from_vapi = [raw if hostile.rng.random() < 0.3 else raw.decode("utf-8", "replace") for raw in said(hostile, FROM_VAPI)]
        quiet = [{"type": "websocket.receive", "text": json.dumps(FROM_TWILIO[3])}] * MESSAGES
        notebook, _ = virtual.run(carry([started(), *quiet], from_vapi))
        assert notebook.closing is not None


@pytest.fixture
async def pages(client: Client) -> list[str]:
    """Paths of sockets a log-in may open, for one that exists and one that does not."""
    await sync_to_async(client.force_login)(await sync_to_async(a_person)())
    call = await sync_to_async(a_call)(status=Status.STREAMING)
    return ["/ws/console/live/", f"/ws/console/calls/{call.public_id}/", f"/ws/console/calls/{uuid.UUID(int=7)}/"]


@pytest.mark.django_db(transaction=True)
async def test_bad_messages_and_cursors_on_a_pages_socket_are_refused_or_ignored(client: Client, pages: list[str], cases: Cases) -> None:
    application = AllowedHostsOriginValidator(
        AuthMiddlewareStack(URLRouter([*websocket_urlpatterns, re_path("", cast(Any, no_such_socket))]))
    )
    headers = [
        (b"host", b"testserver"),
        (b"origin", b"http://testserver"),
        (b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode()),
    ]
    for hostile in cases("console-socket", share=0.1):
        cursor = hostile.rng.choice(("", "", "0-0-0/", "-1/", "9" * 30 + "/", "0-/", "x/", "1-2-3-4-5/"))
        socket = WebsocketCommunicator(application, hostile.rng.choice(pages) + cursor, headers=headers)
        accepted, _ = await socket.connect(5)
        if accepted:
            for raw in said(hostile, [{"after": 3}, {"type": "rows.written"}], many=3):
                await socket.send_input(event(raw))
            await socket.receive_nothing(0.01)
        await socket.disconnect(timeout=5)
