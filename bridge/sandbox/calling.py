"""`call`: one phone call to somebody's bridge, with or without a named fault, and what is to be said of it afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from bridge.sandbox.faults import NAMED, Fault, Faults, Leaving
from bridge.sandbox.outcome import complaints
from bridge.sandbox.script import Caller, Scenario
from bridge.sandbox.twilio import STALLED_MS, TwilioCall
from bridge.sandbox.twilio_rest import TwilioRestSandbox

THE_REAL_ONES = ("vapi.ai", "twilio.com")
MOMENT_WITHIN_S = 120.0
ENDED_WITHIN_S = 15.0  # after the caller left, every call at Vapi is to be over
RECORDINGS_WITHIN_S = 5.0  # how long a bridge may fetch them after the call

Say = Callable[[str], None]


class NotPossible(Exception):
    """The call was not placed; the text says why, in one sentence."""


@dataclass(frozen=True, slots=True)
class Order:
    """A call to place. `vapi_url` and `twilio_url` are those of a running `serve`; "" when there is none."""

    webhook_url: str
    status_url: str
    fallback_url: str
    auth_token: str
    account_sid: str
    to_number: str
    from_number: str
    scenario: Scenario
    fault: Fault
    vapi_url: str
    api_key: str
    twilio_url: str
    wav: Path | None
    longest_s: float


async def place(order: Order, say: Say) -> bool:
    """Place the call and say what happened. True if nothing is to be held against the bridge. Raises NotPossible."""
    caller = Caller(order.scenario.caller)
    call = TwilioCall(
        webhook_url=order.webhook_url,
        status_url=order.status_url,
        fallback_url=order.fallback_url,
        auth_token=order.auth_token,
        account_sid=order.account_sid,
        to_number=order.to_number,
        from_number=order.from_number,
        caller=caller,
        **order.fault.twilio,
    )
    async with AsyncExitStack() as open_too:
        http = await open_too.enter_async_context(aiohttp.ClientSession())
        at_vapi = await _order_at_vapi(http, order, call.call_sid)
        await open_too.enter_async_context(_known_to_twilio(http, order, call))
        wrong = await _carry(call, order)
        wrong += complaints(call, caller, left=order.fault.leave is not None)
        if at_vapi:
            wrong += await _complaints_of_vapi(http, order, call.call_sid)
        if call.recordings:
            await asyncio.sleep(RECORDINGS_WITHIN_S)
    _tell(call, order, wrong, say)
    return not wrong


async def _carry(call: TwilioCall, order: Order) -> list[str]:
    running = asyncio.create_task(call.run())
    leaving = asyncio.create_task(_leave(call, order.fault.leave)) if order.fault.leave else None
    done, _ = await asyncio.wait({running}, timeout=order.longest_s)
    if not done:
        call.hang_up()
    await running
    if leaving is not None:
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    return [] if done else [f"The call did not end by itself within {order.longest_s:.0f} s."]


async def _leave(call: TwilioCall, leave: Leaving) -> None:
    with suppress(TimeoutError):
        await call.wait_for(leave.moment, within=MOMENT_WITHIN_S)
        await asyncio.sleep(leave.then_s)
        call.hang_up(leave.manner)


async def _order_at_vapi(http: aiohttp.ClientSession, order: Order, call_sid: str) -> bool:
    """Hand the fault's and the scenario's Vapi half to a running `serve`. False when there is none and none is needed."""
    needed = order.fault.vapi != Faults()
    wanted = {"scenario": order.scenario.name, **({"fault": _name(order.fault)} if needed else {})}
    try:
        answered = await _asked(http, order, "POST", call_sid, wanted)
    except (aiohttp.ClientError, TimeoutError):
        answered = None
    if answered is None and needed:
        raise NotPossible("This fault needs a running `sandbox serve`, at the address and with the key that --vapi-url and --api-key name.")
    return answered is not None


async def _asked(http: aiohttp.ClientSession, order: Order, method: str, call_sid: str, body: dict[str, Any] | None = None) -> Any:
    """Ask the sandbox Vapi's own door; None when nobody is there who has it. The real vendor is never asked."""
    host = urlsplit(order.vapi_url).hostname or ""
    if not host or host.endswith(THE_REAL_ONES):
        return None
    headers = {"Authorization": f"Bearer {order.api_key}"}
    async with http.request(method, f"{order.vapi_url}/sandbox/calls/{call_sid}", json=body, headers=headers) as answer:
        return await answer.json() if answer.status < 300 else None


async def _complaints_of_vapi(http: aiohttp.ClientSession, order: Order, call_sid: str) -> list[str]:
    until = time.monotonic() + ENDED_WITHIN_S
    seen: Sequence[dict[str, Any]] = ()
    while time.monotonic() < until:
        seen = (await _asked(http, order, "GET", call_sid))["calls"]
        if all(each["endedReason"] is not None for each in seen):
            break
        await asyncio.sleep(0.2)
    left = [each["name"] for each in seen if each["endedReason"] is None]
    troubles = [trouble for each in seen for trouble in each["troubles"]]
    wrong = [f"Vapi's call {name} was still open {ENDED_WITHIN_S:.0f} s after the caller left." for name in left]
    return wrong + [f"Vapi would complain: {trouble}" for trouble in troubles]


@asynccontextmanager
async def _known_to_twilio(http: aiohttp.ClientSession, order: Order, call: TwilioCall) -> AsyncIterator[None]:
    """Let Twilio's REST API of a running `serve` know the call, so that the bridge can ask for it, end it and redirect it."""
    host = urlsplit(order.twilio_url).hostname or ""
    if not host or host.endswith(THE_REAL_ONES):
        yield
        return
    async with TwilioRestSandbox(order.account_sid, order.auth_token) as rest:
        rest.take(call)
        with suppress(aiohttp.ClientError, TimeoutError):
            await (await http.post(f"{order.twilio_url}/sandbox/calls/{call.call_sid}", json={"at": rest.base_url})).read()
        yield


def _name(fault: Fault) -> str:
    return next(name for name, each in NAMED.items() if each is fault)


def _tell(call: TwilioCall, order: Order, wrong: Sequence[str], say: Say) -> None:
    for moment in call.timeline:
        say(f"{moment.at - call.timeline[0].at:7.3f} {moment.what} {dict(moment.detail)}")
    if order.wav is not None:
        say(f"{call.write_wav(order.wav)}")
    if call.late_ms > STALLED_MS:
        say(f"This machine stood still for {call.late_ms} ms during the call: what follows may be its doing.")
    for sentence in wrong:
        say(f"FAIL {sentence}")
    say("The caller was looked after." if not wrong else "The caller was not looked after as they should be.")
