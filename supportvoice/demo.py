"""One call through the whole house, without any account: both vendors are played by the sandbox, everything else is real.

The sandbox lives in this process, the house in a `Stack` of its own; they meet on HTTP and WebSocket only. The call's event
log is followed by cursor, as the console does it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model
from django.utils import timezone

from agents.models import Premade, TemplateVersion
from bridge.sandbox import crm, sphinx
from bridge.sandbox.ear import Recogniser
from bridge.sandbox.script import TECHFLOW, Caller, Scenario, misspoken
from bridge.sandbox.turns import Faults
from bridge.sandbox.twilio import STALLED_MS, TwilioCall
from bridge.sandbox.twilio_rest import TwilioRestSandbox
from bridge.sandbox.vapi import VapiSandbox
from calls.models import OVER, CallSession, Heard, TranscriptLine, VapiState
from calls.printed import printed
from supportvoice.stack import Stack
from supportvoice.verdict import Check, Evidence, Remembered, judge

LINE = "+18005550199"
COLLEAGUE = "+15550100111"
USER = "demo"
LONGEST_CALL_S = 90.0
LONGEST_WRONG_CALL_S = 20.0  # long enough for a turn each; a caller who is not heard would wait for ever
SETTLED_WITHIN_S = 20.0  # report and clean-up after the hang-up
PREPARED_WITHIN_S = 10.0
FOLLOW_S = 0.1
TRIES = 3
SAY_AGAIN_S = 5.0

Say = Callable[[str], None]

crm_running = crm.running  # TechFlow's customer database, of which our tool asks


@dataclass(frozen=True, slots=True)
class Wrong:
    """A way to play the call wrongly on purpose, so that the checks can be seen to fail."""

    faults: Faults = field(default_factory=Faults)
    scenario: Scenario = TECHFLOW


WRONGS: Mapping[str, Wrong] = {
    "deaf": Wrong(faults=Faults(deaf=True)),  # the caller's words do not reach the agent
    "swap": Wrong(faults=Faults(swapped=True)),  # everybody hears themselves
    "wrong-clip": Wrong(scenario=misspoken(TECHFLOW, instead_of="already_tried", clip="no_thanks")),
}
EARS: Mapping[str, Callable[[], Recogniser]] = sphinx.EARS


@dataclass(slots=True)
class Secrets:
    """Shared by the house and the sandbox for one run."""

    vapi_key: str = field(default_factory=lambda: secrets.token_hex(16))
    webhook_secret: str = field(default_factory=lambda: secrets.token_hex(16))
    auth_token: str = field(default_factory=lambda: secrets.token_hex(16))
    account_sid: str = field(default_factory=lambda: "AC" + secrets.token_hex(16))
    password: str = field(default_factory=lambda: secrets.token_urlsafe(9))


@dataclass(slots=True)
class House:
    """Everything that runs while the demo does."""

    stack: Stack
    vapi: VapiSandbox
    twilio: TwilioRestSandbox
    secrets: Secrets
    longest_call_s: float = LONGEST_CALL_S


def household(*, directory: Path, port: int, vapi_url: str, twilio_url: str, tool_host: str, shared: Secrets, say: Say) -> Stack:
    """A stack whose two vendors are the sandbox. It keeps its calls in the database of the settings."""
    env = {
        "DEBUG": "1",
        "ALLOWED_HOSTS": "*",
        "DATABASE_URL": settings.DATABASE_URL,
        "VAPI_API_KEY": shared.vapi_key,
        "VAPI_BASE_URL": vapi_url,
        "VAPI_SOCKET_HOSTS": "",
        "VAPI_BACKUP_API_KEY": "",
        "VAPI_BACKUP_BASE_URL": "",
        "VAPI_WEBHOOK_SECRET": shared.webhook_secret,
        "TWILIO_ACCOUNT_SID": shared.account_sid,
        "TWILIO_AUTH_TOKEN": shared.auth_token,
        "TWILIO_BASE_URL": twilio_url,
        "TWILIO_PHONE_NUMBER": "",
        "TOOL_ALLOWED_PRIVATE": tool_host,
        "SERVE_ROLE": "all",
    }
    return Stack(directory, env, port=port, say=say)


@asynccontextmanager
async def open_house(*, directory: Path, port: int, say: Say, fault: str = "", ear: str = "clips") -> AsyncIterator[House]:
    """The sandbox and the household, ready for a call; everything gone again afterwards. Raises StackFailed, EmbeddedAway.

    `fault` is one of WRONGS or "", `ear` one of EARS: how the sandbox Vapi listens to the caller.
    """
    shared, wrong = Secrets(), WRONGS.get(fault, Wrong())
    vapi = VapiSandbox(scenario=wrong.scenario, api_key=shared.vapi_key, faults=wrong.faults, ear_factory=EARS[ear])
    async with crm_running() as tool_host, vapi, TwilioRestSandbox(shared.account_sid, shared.auth_token) as twilio:
        urls = {"vapi_url": vapi.base_url, "twilio_url": twilio.base_url, "tool_host": tool_host}
        stack = household(directory=directory, port=port, shared=shared, say=say, **urls)
        try:
            await stack.prepare()
            say("seeding the agent of TechFlow")
            tool_url = f"http://{tool_host}/crm/get_user_account"
            await stack.manage("sandbox", "seed", "--number", LINE, "--target", COLLEAGUE, "--tool-url", tool_url)
            await set_log_in(shared.password)
            await stack.run()
            with suppress(TimeoutError):  # the call then carries its assistant inline
                async with asyncio.timeout(PREPARED_WITHIN_S):
                    await stack.until("the agent is prepared at Vapi", _prepared)
            yield House(stack, vapi, twilio, shared, LONGEST_WRONG_CALL_S if fault else LONGEST_CALL_S)
        finally:
            await stack.stop()


async def place_call(house: House, say: Say) -> tuple[TwilioCall, list[Check]]:
    """One call from dialling to a settled record, its event log said line by line; and what is to be thought of it.

    A call that went wrong while this machine stood still is placed again, TRIES times in all: it says nothing of the agent.
    """
    for tries_left in reversed(range(TRIES)):
        call, checks = await _one_call(house, say)
        if not tries_left or call.late_ms <= STALLED_MS or all(check.kept for check in checks):
            break
        house.stack.say(f"this machine stood still for {call.late_ms} ms in the middle of that call; the phone rings again")
    return call, checks


async def _one_call(house: House, say: Say) -> tuple[TwilioCall, list[Check]]:
    url = house.stack.url
    caller = Caller(house.vapi.scenario.caller)
    call = TwilioCall(
        webhook_url=f"{url}/webhook/twilio",
        status_url=f"{url}/webhook/twilio/status",
        auth_token=house.secrets.auth_token,
        account_sid=house.secrets.account_sid,
        to_number=LINE,
        caller=caller,
    )
    house.twilio.take(call)
    following = asyncio.create_task(_follow(call.call_sid, say))
    try:
        stuck = await _carry(call, caller, house)
        await _settled(call.call_sid, house)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    checks = judge(Evidence(call, house.vapi, await _remembered(call.call_sid)))
    return call, [*stuck, *checks]


async def _carry(call: TwilioCall, caller: Caller, house: House) -> list[Check]:
    running = asyncio.create_task(call.run())
    watching = asyncio.create_task(_watch(house))
    done, _ = await asyncio.wait({running, watching}, timeout=house.longest_call_s, return_when=asyncio.FIRST_COMPLETED)
    watching.cancel()
    if running in done:
        running.result()
        return []
    waited_for = caller.waiting_for or "the end of the call"
    call.hang_up()
    await asyncio.wait({running}, timeout=10.0)
    running.cancel()
    if watching in done:
        watching.result()  # raises what became of the household
    found = f"hung up after {house.longest_call_s:.0f} s in which the caller waited for {waited_for}"
    return [Check("the call comes to its end by itself", False, found)]


async def _watch(house: House) -> None:
    """Until a member of the household dies: raises StackFailed."""
    while True:
        house.stack.check_alive()
        await asyncio.sleep(0.5)


async def _settled(call_sid: str, house: House) -> None:
    """Until the report has come and everything is ended, or it is clear that it will not be."""
    said = time.monotonic()
    deadline = said + SETTLED_WITHIN_S
    while (now := time.monotonic()) < deadline:
        record = await _remembered(call_sid)
        over = record.status in OVER and all(state == VapiState.ENDED for state in record.session_states)
        if over and all(call.done.is_set() for call in house.vapi.calls.values()):
            break
        if now - said > SAY_AGAIN_S:
            said = now
            house.stack.say(f"waiting until the report of the call has come ({SETTLED_WITHIN_S - (deadline - now):.0f} s)")
        await asyncio.sleep(FOLLOW_S)
    await asyncio.sleep(2 * FOLLOW_S)  # the follower's last look


async def _follow(call_sid: str, say: Say) -> None:
    """Say every event of the call once, in order, as it is stored."""
    after = 0
    while True:
        for number, line in await _events_after(call_sid, after):
            after = number
            say(line)
        await asyncio.sleep(FOLLOW_S)


@sync_to_async
def _events_after(call_sid: str, after: int) -> list[tuple[int, str]]:
    call = CallSession.objects.filter(call_sid=call_sid).first()
    if call is None:
        return []
    return [(event.seq, printed(event, call.short_id)) for event in call.events.filter(seq__gt=after).order_by("seq")]


@sync_to_async
def _remembered(call_sid: str) -> Remembered:
    call = CallSession.objects.filter(call_sid=call_sid).first()
    if call is None:
        return Remembered()
    return Remembered(
        status=call.status,
        end_reason=call.end_reason,
        session_states=tuple(call.vapi_sessions.values_list("state", flat=True)),
        lines=tuple((line.role, line.said, _heard_of(line)) for line in call.lines.all()),
        events=tuple((event.kind, event.detail) for event in call.events.all()),
        tool_results=tuple(call.tool_runs.values_list("name", "result")),
    )


def _heard_of(line: TranscriptLine) -> str:
    return {Heard.FULL: line.said, Heard.PART: line.heard_text, Heard.NONE: ""}[Heard(line.heard)]


@sync_to_async
def _prepared() -> bool:
    return not TemplateVersion.objects.filter(premade=Premade.WAITING).exists()


@sync_to_async
def set_log_in(password: str) -> None:
    """A log-in for the console and the desk; its password is new with every run."""
    user, _ = get_user_model().objects.get_or_create(username=USER, defaults={"is_staff": True, "is_superuser": True})
    user.is_staff = user.is_superuser = user.is_active = True
    user.set_password(password)
    user.save()


def keep_sound(call: TwilioCall, directory: Path) -> Path:
    """The call as a stereo WAV: left the caller, right what the caller heard."""
    return call.write_wav(directory / f"call-{timezone.now():%Y%m%d-%H%M%S}.wav")


def report(checks: list[Check]) -> list[str]:
    """The verdict, one line a check."""
    return [f"{'ok  ' if check.kept else 'FAIL'} {check.promise}" + ("" if check.kept else f"\n       {check.found}") for check in checks]
