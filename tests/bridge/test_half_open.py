"""A Twilio that hears us no more, on real sockets: the caller sits in silence until Twilio sees its socket gone, so it is soon."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial

import pytest
from channels.layers import channel_layers
from pytest_django import Settings

from bridge.sandbox.pattern import TimedEar
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
    assert (call.closed_why, call.status) == ("stream-lost", Status.RECOVERING)
