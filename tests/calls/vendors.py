"""Both vendors as they stand behind our clients: the sandbox's Vapi and Twilio, each on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bridge.deadline import Courier
from bridge.sandbox.script import Caller
from bridge.sandbox.seen import Recording
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.twilio_rest import TwilioRestSandbox
from bridge.sandbox.vapi import SandboxCall
from bridge.twilio_rest import TwilioRest
from bridge.vapi_http import VapiClient
from calls.vendor_erasures import Vendors
from tests.calls.doors import ACCOUNT_SID, TOKEN
from tests.calls.vapi_house import KEY, House, vapi_house

SOUND = bytes([0x10, 0x90]) * 4000


@dataclass(slots=True)
class Both:
    """`ours` are our clients there."""

    vapi: House
    twilio: TwilioRestSandbox
    ours: Vendors
    loop: asyncio.AbstractEventLoop

    def knows_call(self, vapi_call_id: str, name: str) -> SandboxCall:
        """Vapi has had this call."""
        made = self.vapi.create_call({"name": name, "transport": TRANSPORT, "assistant": ASSISTANT})
        call = self.vapi.vapi.calls.pop(made.id)
        call.id = vapi_call_id
        self.vapi.vapi.calls[vapi_call_id] = call
        return call

    def knows_recording(self, call_sid: str, sid: str, account_sid: str = ACCOUNT_SID) -> None:
        """Twilio has a recording of this call."""

        async def take() -> None:
            phone = TwilioCall(webhook_url="http://127.0.0.1:9/", auth_token=TOKEN, caller=Caller(()), account_sid=account_sid)
            phone.call_sid = call_sid
            phone.recordings.append(Recording(sid, SOUND, "over"))
            self.twilio.take(phone)

        asyncio.run_coroutine_threadsafe(take(), self.loop).result(10)


TRANSPORT = {"provider": "vapi.websocket", "audioFormat": {"format": "mulaw", "container": "raw", "sampleRate": 8000}}
ASSISTANT = {"name": "Support"}


@contextmanager
def both() -> Iterator[Both]:
    with vapi_house() as house:
        loop = house.loop
        twilio = TwilioRestSandbox(ACCOUNT_SID, TOKEN)
        asyncio.run_coroutine_threadsafe(twilio.__aenter__(), loop).result(10)
        courier = Courier(user_agent="test")
        ours = Vendors(
            vapi=VapiClient(base_url=house.vapi.base_url, api_key=KEY, courier=courier),
            twilio=TwilioRest(twilio.base_url, ACCOUNT_SID, TOKEN, pause=lambda _: None),
        )
        try:
            yield Both(house, twilio, ours, loop)
        finally:
            courier.close()
            asyncio.run_coroutine_threadsafe(twilio.__aexit__(), loop).result(10)
