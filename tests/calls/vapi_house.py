"""The sandbox Vapi behind a real HTTP client, for tests that are not asynchronous themselves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bridge.deadline import Courier
from bridge.sandbox.faults import Faults
from bridge.sandbox.vapi import SandboxCall, VapiSandbox
from bridge.vapi_answers import ListedCall, VapiCall
from bridge.vapi_http import CREATE_CALL_S, VapiClient

KEY = "vapi-key"


class House:
    """A Vapi in a thread of its own, and our account there. `deadline_s` is how long a create may take."""

    def __init__(self, vapi: VapiSandbox, courier: Courier, loop: asyncio.AbstractEventLoop) -> None:
        self.vapi, self.loop = vapi, loop
        self.deadline_s = CREATE_CALL_S
        self.looks = 0
        self._client = VapiClient(base_url=vapi.base_url, api_key=KEY, courier=courier)

    def faulty(self, call_sid: str, faults: Faults) -> None:
        """Play these faults for one phone call."""
        self.vapi.of_call[call_sid] = (self.vapi.scenario, faults)

    def of(self, call_sid: str) -> list[SandboxCall]:
        """Every Vapi call that was made for a phone call."""
        return [call for call in list(self.vapi.calls.values()) if call.name.partition(".")[0] == call_sid]

    # -- what `calls.orphans.Account` is ---------------------------------------------------------------------------------

    def create_call(self, request: Mapping[str, Any]) -> VapiCall:
        return self._client.create_call(request, deadline_s=self.deadline_s)

    def create_assistant(self, assistant: Mapping[str, Any]) -> str:
        return self._client.create_assistant(assistant)

    def end_call(self, control_url: str) -> None:
        self._client.end_call(control_url)

    def end_by_socket(self, socket_url: str) -> None:
        self._client.end_by_socket(socket_url)

    def call(self, call_id: str) -> dict[str, Any]:
        return self._client.call(call_id)

    def list_calls(self, *, since: Any) -> list[ListedCall]:
        self.looks += 1
        return self._client.list_calls(since=since)


@contextmanager
def vapi_house() -> Iterator[House]:
    loop, courier = asyncio.new_event_loop(), Courier(user_agent="test")
    thread = threading.Thread(target=loop.run_forever, name="vapi", daemon=True)
    thread.start()
    vapi = VapiSandbox(api_key=KEY, concurrency_limit=1000, faults=Faults(create_delay_s=0.0))
    try:
        asyncio.run_coroutine_threadsafe(vapi.start(), loop).result(10)
        yield House(vapi, courier, loop)
    finally:
        asyncio.run_coroutine_threadsafe(vapi.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
        courier.close()


def until(what: Callable[[], object], *, within: float = 10.0) -> None:
    """Wait for something of the other thread's."""
    over = time.monotonic() + within
    while not what():
        assert time.monotonic() < over, "it never came about"
        time.sleep(0.01)
