"""A Vapi that takes the connection and never completes the TLS handshake costs us our deadline and nothing else. Over real sockets."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from bridge.deadline import Courier, NoAnswer
from bridge.errors import VapiUnavailable
from bridge.sandbox.faults import NAMED
from bridge.sandbox.vapi import VapiSandbox
from bridge.vapi_http import VapiClient
from bridge.vapi_link import CONNECT_WITHIN_S, VapiConversations
from tests.sandbox.talks import CALL, client

LATE_S = 1.5  # what a busy machine may add to a deadline


async def nothing_is_left(vapi: VapiSandbox) -> None:
    """Neither a connection at Vapi nor a thread here."""
    async with asyncio.timeout(10):
        while vapi.left_half_way or any(thread.name == "courier" for thread in threading.enumerate()):
            await asyncio.sleep(0.02)


async def seen_half_way(vapi: VapiSandbox) -> None:
    async with asyncio.timeout(10):
        while not vapi.left_half_way:
            await asyncio.sleep(0.005)


async def test_a_courier_is_back_at_its_deadline_and_has_sent_nothing() -> None:
    async with VapiSandbox(faults=NAMED["create-tls-half"].switches()) as vapi:
        how: dict[str, Any] = {"body": b"{}", "headers": {}, "within": 0.5, "max_bytes": 100}
        began = time.monotonic()
        posting = asyncio.create_task(asyncio.to_thread(Courier(user_agent="test").post, f"{vapi.base_url}/call", **how))
        await seen_half_way(vapi)
        with pytest.raises(NoAnswer) as nothing:
            await posting
        assert 0.5 <= time.monotonic() - began < 0.5 + LATE_S
        assert (nothing.value.late, nothing.value.sent) == (True, False)
        await nothing_is_left(vapi)


async def test_a_create_is_given_up_in_its_deadline_and_made_nothing() -> None:
    async with VapiSandbox(faults=NAMED["create-tls-half"].switches()) as vapi:
        ours = VapiClient(base_url=vapi.base_url, api_key=vapi.api_key)
        began = time.monotonic()
        with pytest.raises(VapiUnavailable) as away:
            await asyncio.to_thread(ours.create_call, CALL, deadline_s=0.8)
        assert time.monotonic() - began < 0.8 + LATE_S
        assert away.value.sent is False
        assert vapi.calls == {}
        await nothing_is_left(vapi)
        ours.close()


async def test_an_audio_socket_is_given_up_in_its_deadline() -> None:
    faults = NAMED["socket-tls-half"].switches()
    faults.create_delay_s = 0.0
    async with VapiSandbox(faults=faults) as vapi, client(vapi) as http:
        async with http.post("/call", json=CALL) as answer:
            url = (await answer.json())["transport"]["websocketCallUrl"]
        assert url.startswith("wss://")
        began = time.monotonic()
        opening = asyncio.create_task(VapiConversations(api_key=vapi.api_key).open(url))
        await seen_half_way(vapi)
        with pytest.raises(VapiUnavailable):
            await opening
        assert time.monotonic() - began < CONNECT_WITHIN_S + LATE_S
        await nothing_is_left(vapi)


async def test_over_plain_http_the_same_fault_gives_no_answer() -> None:
    async with VapiSandbox() as vapi:
        vapi.of_call[CALL["name"]] = (vapi.scenario, NAMED["create-tls-half"].switches())
        with pytest.raises(VapiUnavailable) as away:
            await asyncio.to_thread(VapiClient(base_url=vapi.base_url, api_key=vapi.api_key).create_call, CALL, deadline_s=0.3)
        assert away.value.sent is True
        assert vapi.calls == {}
