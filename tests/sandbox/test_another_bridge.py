"""The sandbox as a thing of its own: a bridge it has never seen is pointed at it, and its commands judge that bridge."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiohttp import web

from bridge.sandbox import cli, switch
from bridge.sandbox.vapi import VapiSandbox
from tests.sandbox.relay import Relay

ACCOUNT, TOKEN, KEY = "AC" + "1" * 32, "token", "key"


@dataclass
class Somewhere:
    """Where everything listens."""

    vapi: VapiSandbox
    relay_url: str
    twilio_url: str

    def call(self, *more: str, disclosure: bool = True) -> int:
        """`python -m bridge.sandbox call`, as the relay's owner would type it."""
        query = "?disclosure" if disclosure else ""
        where = ["--webhook-url", f"{self.relay_url}/voice{query}", "--status-url", f"{self.relay_url}/status"]
        vendors = ["--vapi-url", self.vapi.base_url, "--twilio-url", self.twilio_url]
        return cli.main(["call", *where, *vendors, "--api-key", KEY, "--auth-token", TOKEN, "--account-sid", ACCOUNT, *more])


@asynccontextmanager
async def everything() -> AsyncIterator[Somewhere]:
    async with VapiSandbox(api_key=KEY) as vapi, switch.running(ACCOUNT, TOKEN) as twilio_url:
        relay = Relay(vapi.base_url, KEY)
        runner = web.AppRunner(relay.app(), access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        relay.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield Somewhere(vapi, relay.url, twilio_url)
        finally:
            await runner.cleanup()


@pytest.fixture
def somewhere() -> Iterator[Somewhere]:
    """On a loop of its own: the command brings its own."""
    loop = asyncio.new_event_loop()
    running = everything()
    found = loop.run_until_complete(running.__aenter__())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield found
    asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


def test_a_bridge_that_does_nothing_about_trouble_is_told_so(somewhere: Somewhere, capsys: pytest.CaptureFixture[str]) -> None:
    assert somewhere.call("--fault", "dies-in-greeting", disclosure=False) == cli.COMPLAINED
    assert "FAIL The caller was cut off while waiting for the end of greeting." in capsys.readouterr().out
    [call] = somewhere.vapi.calls.values()
    assert call.faults.dies_with == 1011
    assert call.evidence.kinds("fault") == ["strikes"]


def test_a_call_left_open_at_vapi_is_told_too(
    somewhere: Somewhere, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.sandbox.calling.ENDED_WITHIN_S", 0.3)
    assert somewhere.call("--fault", "leaves-in-disclosure") == cli.COMPLAINED
    assert "was still open" in capsys.readouterr().out


def test_a_caller_who_leaves_in_the_greeting_leaves_nothing_behind(somewhere: Somewhere) -> None:
    assert somewhere.call("--fault", "leaves-mid-sentence", disclosure=False) == cli.GOOD
    assert somewhere.vapi.open_calls() == []
    assert somewhere.vapi.refused == []


@pytest.mark.journey
def test_a_whole_call_goes_well_over_a_bridge_of_a_hundred_lines(somewhere: Somewhere) -> None:
    assert somewhere.call("--fault", "finals-in-pieces") == cli.GOOD
    [call] = somewhere.vapi.calls.values()
    assert call.ended_reason == "assistant-ended-call"
