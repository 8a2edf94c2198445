"""An interruption by webhook reaches the live call in whichever process it is: a real Valkey between two real processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from channels_redis.core import RedisChannelLayer
from django.test import Client
from pytest_django.fixtures import Settings
from redis import asyncio as aioredis

from bridge import live
from calls import publisher
from calls.publisher import Publisher
from supportvoice.embedded import Hold, socket_path
from tests.calls.doors import CALL_SID, SECRET

HOME = Path(__file__).resolve().parents[2]
OTHER_SID = "CA" + "b" * 32
LIVE_CALL = """
import asyncio, sys
from channels_redis.core import RedisChannelLayer
from bridge import live

async def listen() -> None:
    layer = RedisChannelLayer(hosts=[sys.argv[1]])
    hints = live.listen(layer, sys.argv[2])
    waiting = asyncio.ensure_future(anext(hints))
    while not await layer.connection(0).zcard(layer._group_key(live.group(sys.argv[2]))):
        await asyncio.sleep(0.01)
    print("listening", flush=True)
    while True:
        print(await waiting, flush=True)
        waiting = asyncio.ensure_future(anext(hints))

asyncio.run(listen())
"""


@contextmanager
def live_call(address: str, call_sid: str) -> Iterator[IO[str]]:
    """A process that listens as the media consumer of a call does; what it hears, line by line."""
    with subprocess.Popen([sys.executable, "-c", LIVE_CALL, address, call_sid], stdout=subprocess.PIPE, text=True, cwd=HOME) as listener:
        try:
            assert listener.stdout is not None
            yield listener.stdout
        finally:
            listener.kill()


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="sv-") as directory:
        socket = socket_path(Path(directory))
        with Hold(socket):
            yield f"unix://{socket}"


@pytest.fixture
def telling(address: str, settings: Settings) -> Iterator[None]:
    """This process is the one whose door Vapi knocks at."""
    settings.VAPI_WEBHOOK_SECRETS = [SECRET]
    layer = RedisChannelLayer(hosts=[address])
    ours = Publisher(layer=lambda: layer)
    before = publisher.install(ours)
    yield
    publisher.install(before)
    ours.stop()


def knock(client: Client, kind: str, call_sid: str, **told: Any) -> None:
    call = {"id": "v1", "name": f"{call_sid}.0"}
    body = {"message": {"type": kind, "timestamp": int(time.time() * 1000), "call": call, **told}}
    answer = client.post("/webhook/vapi", data=json.dumps(body), content_type="application/json", headers={"X-Vapi-Secret": SECRET})
    assert answer.status_code == 200


def test_an_interruption_reaches_the_call_in_another_process_and_no_other_call(client: Client, address: str, telling: None) -> None:
    """No row is read or written for it: this test has no database."""
    with ExitStack() as running:
        mine = running.enter_context(live_call(address, CALL_SID))
        others = running.enter_context(live_call(address, OTHER_SID))
        assert (mine.readline(), others.readline()) == ("listening\n", "listening\n")
        knock(client, "speech-update", CALL_SID, role="user", status="started")
        knock(client, "speech-update", CALL_SID, role="assistant", status="started")
        knock(client, "user-interrupted", CALL_SID)
        knock(client, "user-interrupted", OTHER_SID)
        assert (mine.readline(), mine.readline()) == ("speech\n", "interrupted\n")
        assert others.readline() == "interrupted\n"


async def test_a_layer_keeps_nothing_of_calls_that_are_over_whether_they_read_or_waited_and_nothing_that_comes_too_late(
    address: str,
) -> None:
    layer = RedisChannelLayer(hosts=[address])
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def listen(number: int) -> None:
        async for hint in live.listen(layer, f"CA{number}"):
            heard.put_nowait(hint)

    calls = [asyncio.create_task(listen(number)) for number in range(8)]
    async with asyncio.timeout(10):
        for number in range(8):
            while not await layer.connection(0).zcard(layer._group_key(live.group(f"CA{number}"))):
                await asyncio.sleep(0.01)
            await live.tell(layer, f"CA{number}", live.COMMANDS, at=time.time())
            await heard.get()
        channels = list(layer.receive_buffer)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await layer.wait_received()
        assert layer.receive_buffer == {}
        layer.receive_buffer[channels[0]].put_nowait({"type": "live.hint", "hint": live.SESSION})
        for number in range(live.STRAGGLERS):
            live.forget(layer, f"another one {number}")
    assert layer.receive_buffer == {}
    await layer.close_pools()


async def test_connections_that_nobody_uses_are_given_back_and_who_listens_keeps_theirs(address: str) -> None:
    asking = aioredis.Redis.from_url(address)
    layer = RedisChannelLayer(hosts=[{"address": address, "socket_timeout": None}])

    async def connections() -> int:
        return len(await asking.client_list()) - 1

    heard: asyncio.Queue[str] = asyncio.Queue()

    async def listen(call_sid: str) -> None:
        async for hint in live.listen(layer, call_sid):
            heard.put_nowait(hint)

    staying, *others = [asyncio.create_task(listen(f"CA{number}")) for number in range(8)]
    async with asyncio.timeout(10):
        while await connections() < 8:
            await asyncio.sleep(0.01)
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        await layer.wait_received()
        await live.give_back_idle(layer)
        while await connections() > 1:
            await asyncio.sleep(0.01)
        await live.tell(layer, "CA0", live.COMMANDS, at=time.time())
        assert await heard.get() == live.COMMANDS
    staying.cancel()
    await asyncio.wait([staying])
    await layer.close_pools()
    await asking.aclose()
