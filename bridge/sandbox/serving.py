"""`serve`: the sandbox Vapi, the customer database its tool asks, and Twilio's REST API, until somebody ends it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from bridge.sandbox import crm, switch
from bridge.sandbox.ear import Recogniser
from bridge.sandbox.faults import Faults
from bridge.sandbox.script import Scenario
from bridge.sandbox.vapi import VapiSandbox

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stand:
    """What to open. Ports of 0 are any; `lines` is how many calls Vapi takes at once."""

    port: int
    twilio_port: int
    api_key: str
    account_sid: str
    auth_token: str
    scenario: Scenario
    faults: Faults
    ear: Callable[[], Recogniser]
    lines: int


async def serve(stand: Stand, say: Say) -> None:
    """Listen, say the environment a bridge needs, and wait for Ctrl-C or SIGTERM. Raises OSError for a port that is taken."""
    ended = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, ended.set)
    async with AsyncExitStack() as opened:
        vapi = VapiSandbox(
            scenario=stand.scenario,
            api_key=stand.api_key,
            port=stand.port,
            ear_factory=stand.ear,
            faults=stand.faults,
            concurrency_limit=stand.lines,
        )
        await opened.enter_async_context(vapi)
        twilio_url = await opened.enter_async_context(switch.running(stand.account_sid, stand.auth_token, port=stand.twilio_port))
        tool_host = await opened.enter_async_context(crm.running())
        for name, value in {
            "VAPI_BASE_URL": vapi.base_url,
            "VAPI_API_KEY": stand.api_key,
            "TWILIO_BASE_URL": twilio_url,
            "TWILIO_ACCOUNT_SID": stand.account_sid,
            "TWILIO_AUTH_TOKEN": stand.auth_token,
            "TOOL_ALLOWED_PRIVATE": tool_host,
        }.items():
            say(f"{name}={value}")
        say(f"# The tool's address: http://{tool_host}/crm/get_user_account. Ctrl-C ends.")
        await ended.wait()
