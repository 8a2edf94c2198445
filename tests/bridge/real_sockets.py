"""A bridge on real sockets in one process: uvicorn as we run it, the real consumer, ledger and links, and the sandbox's Vapi.

Twilio is a stream as cheap as it can be, so that hundreds of calls fit into one loop. Rows are made by the builders; what the
tasks of a house would do is the test's to call.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import uvicorn
from channels.routing import URLRouter
from django.db import connections

from bridge import stream_token
from bridge.consumers import MediaStreamConsumer
from bridge.parking import Parking
from bridge.routing import MEDIA_PATH, media_urlpatterns
from bridge.sandbox.faults import EVERY, Faults
from bridge.sandbox.media import Pipe, PipeClosed
from bridge.sandbox.pattern import Spell, TimedEar, noise
from bridge.sandbox.script import End, Scenario, Speak
from bridge.sandbox.vapi import VapiSandbox
from bridge.sandbox.web import Internet, WebFailure, signature_headers
from bridge.twilio_http import TwilioProof
from bridge.vapi_http import VapiClient
from bridge.vapi_link import VapiConversations
from calls.hands import Hands
from calls.ledger import DatabaseLedger
from calls.models import CallSession
from supportvoice.parent import listen
from supportvoice.server import configured
from tests.bridge.virtual_time import BRIDGE_CLIPS

KEY = stream_token.key_from("a secret of the tests")
TOKEN, VAPI_KEY = "twilio-token", "vapi-key"
SHORT = Scenario(
    "short",
    caller=(),
    answers={"thanks": ((Speak("goodbye"), End()),)},
    ear=lambda: TimedEar((Spell(0.7, 0.8, "thanks"),)),
    voice=lambda words: noise(words, 0.1),
)


def quick(**faults: Any) -> Faults:
    """A Vapi that answers a create at once and posts no webhook."""
    return Faults(**{"create_delay_s": 0.05, "lost": frozenset({EVERY}), **faults})


@dataclass
class Place:
    """Where the calls are carried: the server's address, and what has to be looked at afterwards."""

    url: str
    vapi: VapiSandbox
    account: VapiClient
    workers: ThreadPoolExecutor
    creators: Hands
    parking: Parking

    async def upgrade(self, web: Internet) -> Pipe:
        """A media socket as Twilio opens it, but for its patience: that this machine is busy is nobody's fault."""
        headers = signature_headers(TOKEN, self.url, {})
        for _ in range(2):
            with suppress(WebFailure):
                return await web.socket(self.url, headers)
        return await web.socket(self.url, headers)

    def in_thread(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self.workers, partial(_with_connection, work))


def _with_connection(work: Callable[[], Any]) -> Any:
    try:
        return work()
    finally:
        connections.close_all()


@asynccontextmanager
async def a_place(*, beside: Place | None = None, parking: Parking | None = None) -> AsyncIterator[Place]:
    """`beside`: another process of the same house, with the same Vapi. Its `parking` is a closed one if none is given."""
    listening = listen("127.0.0.1", 0)
    url = f"ws://127.0.0.1:{listening.getsockname()[1]}/{MEDIA_PATH}"
    parking = Parking(is_open=lambda: False) if parking is None else parking
    sandbox = VapiSandbox(scenario=SHORT, faults=quick(), api_key=VAPI_KEY, concurrency_limit=1000)
    async with sandbox if beside is None else nullcontext(beside.vapi) as vapi:
        account = VapiClient(base_url=vapi.base_url, api_key=VAPI_KEY)
        ledger = DatabaseLedger(token_key=KEY, client=account, deadline_s=5.0)
        consumer = MediaStreamConsumer.as_asgi(
            ledger=ledger,
            conversations=VapiConversations(api_key=VAPI_KEY),
            proof=TwilioProof(public_url=url.removesuffix(f"/{MEDIA_PATH}").replace("ws", "http"), tokens=[TOKEN]),
            clips=BRIDGE_CLIPS,
            parking=parking,
        )
        server = uvicorn.Server(configured(URLRouter(cast(Any, media_urlpatterns(consumer)))))
        serving = asyncio.create_task(server._serve([listening]))  # without its signal handlers
        with ThreadPoolExecutor(4, thread_name_prefix="worker") as workers:
            try:
                yield Place(url, vapi, account, workers, ledger._creators, parking)
            finally:
                server.should_exit = True
                await serving
                ledger.close()


class Stream:
    """Twilio's end of a media stream, as cheap as it can be: twenty messages a second, and every mark comes back at once."""

    def __init__(self, pipe: Pipe, row: CallSession, token: str = "", *, sid: str = "", epoch: int = 0) -> None:
        """`token`: the call's own when empty."""
        self._pipe, self._row = pipe, row
        self._token = token or stream_token.issue(key=KEY, call_sid=row.call_sid, epoch=epoch, expires=int(time.time()) + 100)
        self.heard = bytearray()  # what Twilio would play
        self._sid = sid or f"MZ{row.call_sid[2:]}"
        self.close_code = 0
        self._sound = base64.b64encode(noise(row.call_sid, 0.05)).decode()

    async def begin(self) -> None:
        """The first message; `run` goes on from there."""
        ids = {"accountSid": self._row.account_sid, "callSid": self._row.call_sid, "streamSid": self._sid}
        sound = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        await self._send(event="start", start={**ids, "mediaFormat": sound, "customParameters": {"token": self._token}})

    async def run(self) -> None:
        """Until the server has closed."""
        talking = asyncio.create_task(self._talk())
        try:
            while True:
                message = json.loads(await self._pipe.receive())
                if message["event"] == "media":
                    self.heard += base64.b64decode(message["media"]["payload"])
                elif message["event"] == "mark":
                    await self._send(event="mark", mark=message["mark"])
        except PipeClosed as closed:
            self.close_code = closed.code
        finally:
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)

    async def _talk(self) -> None:
        with suppress(PipeClosed):
            while True:
                await asyncio.sleep(0.05)
                await self._send(event="media", media={"track": "inbound", "payload": self._sound})

    async def stop(self) -> None:
        await self._send(event="stop", stop={})

    async def _send(self, **message: Any) -> None:
        await self._pipe.send(json.dumps({"streamSid": self._sid, **message}))
