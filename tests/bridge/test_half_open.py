"""A Twilio that hears us no more, on real sockets: the caller sits in silence until that is noticed, so it is soon."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

import pytest
from channels.layers import channel_layers
from pytest_django import Settings

from bridge.sandbox.pattern import TimedEar
from bridge.sandbox.proxy import Proxy, Weather
from bridge.sandbox.web import Internet
from calls import sessions
from calls.models import CallSession, Status
from tests.bridge.real_sockets import SHORT, Stream, a_place, quick
from tests.builders import a_call, session_of

pytestmark = pytest.mark.django_db(transaction=True)

LISTENS = replace(SHORT, ear=lambda: TimedEar(()))  # an agent that says its greeting, and nothing after it
NOTICED_S = 3.0  # bridge.pulse
GONE_S = 1.5
A_BUSY_MACHINE_S = 2.0


@pytest.fixture(autouse=True)
def one_channel_layer(settings: Settings) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    channel_layers.backends.clear()


def test_a_half_open_stream_is_gone_soon_after_the_bridge_gave_it_up() -> None:
    row = a_call()
    pk = session_of(row).pk

    async def silence_s() -> float:
        async with a_place() as place:
            place.vapi.of_call[row.call_sid] = (LISTENS, quick())
            await place.in_thread(partial(sessions.start_conversation, vapi_session_pk=pk, by="worker", client=place.account))
            web = Internet()
            pipe = await place.upgrade(web)
            stream = Stream(pipe, row)
            await stream.begin()
            talking = asyncio.create_task(stream.run())
            await asyncio.wait({talking}, timeout=1.0)
            talking.cancel()  # from here on it neither sends nor reads, and answers nothing
            pipe.pause()
            quiet_at = time.monotonic()
            await asyncio.wait_for(pipe.gone(), 20)
            gone_after_s = time.monotonic() - quiet_at
            pipe.abort()
            await asyncio.gather(talking, return_exceptions=True)
            await web.close()
            return gone_after_s

    took_s = asyncio.run(silence_s())
    assert NOTICED_S - 0.2 < took_s < NOTICED_S + GONE_S + A_BUSY_MACHINE_S
    call = CallSession.objects.get()
    assert (call.closed_why, call.status) == ("stream-dead", Status.RECOVERING)


@pytest.mark.parametrize("way", [Weather(up_dead=True), Weather(down_dead=True)], ids=["to us", "to the caller"])
def test_a_socket_of_which_one_way_is_dead_is_left_soon_and_its_call_goes_on_elsewhere(way: Weather) -> None:
    row = a_call()
    pk = session_of(row).pk

    async def noticed_after_s() -> float:
        async with a_place() as place:
            here = urlsplit(place.url)
            async with Proxy(("127.0.0.1", here.port or 0)) as wire:
                place.vapi.of_call[row.call_sid] = (LISTENS, quick())
                await place.in_thread(partial(sessions.start_conversation, vapi_session_pk=pk, by="worker", client=place.account))
                web = Internet(tunnel={f"http://{here.netloc}": f"http://127.0.0.1:{wire.port}"})
                pipe = await place.upgrade(web)
                stream = Stream(pipe, row)
                await stream.begin()
                talking = asyncio.create_task(stream.run())
                await asyncio.wait({talking}, timeout=2.0)  # the greeting is heard, and a mark came back
                wire.weather, dead_at = way, time.monotonic()
                while not await place.in_thread(_is_left):
                    assert time.monotonic() - dead_at < 20
                    await asyncio.sleep(0.05)
                took_s = time.monotonic() - dead_at
                talking.cancel()
                pipe.abort()
                await asyncio.gather(talking, return_exceptions=True)
                await web.close()
                return took_s

    assert 1.5 < asyncio.run(noticed_after_s()) < NOTICED_S + 1.0 + A_BUSY_MACHINE_S
    call = CallSession.objects.get()
    assert (call.closed_why, call.status) == ("stream-dead", Status.RECOVERING)


def _is_left() -> bool:
    return CallSession.objects.get().closed_epoch == 0
