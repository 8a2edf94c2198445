"""The sandbox's commands as a stranger uses them: no Django, any bridge, an exit code that can be believed."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from random import Random

import aiohttp
import pytest
from aiohttp import web

from bridge.sandbox import calling, cli, switch
from bridge.sandbox.dial import Human
from bridge.sandbox.faults import NAMED
from bridge.sandbox.outcome import complaints, longest_silence
from bridge.sandbox.script import PLAIN, Caller, Heard, Say, Start, Step, impatient
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.twilio_rest import TwilioRestSandbox
from bridge.sandbox.vapi import VapiSandbox
from tests.sandbox.talks import CALL, client, create
from tests.sandbox.twilio_house import NUMBER, House, place
from tests.test_layout import imports, sources

ROOT = Path(__file__).parents[2]
HANG_UP = "<Response><Hangup/></Response>"
HOURS = (
    "<Response><Say>Thanks for calling TechFlow support. How can I help you today?</Say>"
    '<Pause length="3"/><Say>You\'re welcome. Goodbye.</Say></Response>'
)


class Bridge:
    """Somebody's bridge, as simple as can be: it answers every webhook with the same TwiML."""

    def __init__(self) -> None:
        self.twiml = HANG_UP
        self.status = 200
        self.url = ""

    async def answer(self, _request: web.Request) -> web.Response:
        return web.Response(text=self.twiml, status=self.status, content_type="text/xml")


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    """On a loop of its own: the commands bring theirs."""
    ours, loop = Bridge(), asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/voice", ours.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ours.url = f"http://127.0.0.1:{runner.addresses[0][1]}/voice"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield ours
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


def call(bridge: Bridge, *more: str) -> int:
    nobody = ("--vapi-url", "", "--twilio-url", "")
    return cli.main(["call", "--webhook-url", bridge.url, "--auth-token", "token", *nobody, *more])


def test_a_call_that_is_cut_off_is_told_by_the_exit_code(bridge: Bridge, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(bridge) == cli.COMPLAINED
    assert "FAIL The caller was cut off while waiting for the end of greeting." in capsys.readouterr().out


def test_a_call_that_goes_well_is_zero_and_keeps_its_sound(bridge: Bridge, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bridge.twiml = HOURS
    assert call(bridge, "--fault", "leaves-in-disclosure", "--wav", str(tmp_path / "call.wav")) == cli.GOOD
    assert (tmp_path / "call.wav").read_bytes().startswith(b"RIFF")
    assert "hung-up" in capsys.readouterr().out


def test_what_twilio_would_complain_of_is_told_by_the_exit_code(bridge: Bridge, capsys: pytest.CaptureFixture[str]) -> None:
    bridge.status = 500
    assert call(bridge, "--fault", "leaves-mid-sentence") == cli.COMPLAINED
    assert "Twilio's debugger would show: 11200" in capsys.readouterr().out


def test_a_fault_of_vapi_needs_a_running_serve(bridge: Bridge, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(bridge, "--fault", "dies-1011")
    assert ended.value.code == cli.MISUSED
    assert capsys.readouterr().err.startswith("This fault needs a running `sandbox serve`")


def test_the_real_vendors_are_never_asked_for_a_fault() -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as http:
            for url in ("https://api.vapi.ai", "https://vapi.ai", ""):
                order = _order(vapi_url=url, fault="dies-1011")
                with pytest.raises(calling.NotPossible):
                    await calling._order_at_vapi(http, order, "CA1")

    asyncio.run(main())


def _order(*, vapi_url: str, fault: str, webhook_url: str = "", twilio_url: str = "") -> calling.Order:
    return calling.Order(
        webhook_url=webhook_url,
        status_url="",
        fallback_url="",
        auth_token="token",
        account_sid="AC" + "1" * 32,
        to_number="+18005550199",
        from_number="+14155550100",
        scenario=PLAIN,
        fault=NAMED[fault],
        vapi_url=vapi_url,
        api_key="sandbox-vapi-key",
        twilio_url=twilio_url,
        wav=None,
        longest_s=30.0,
    )


@pytest.mark.parametrize("arguments", [["faults"], ["call", "--list"]])
def test_the_faults_are_listed_with_a_sentence_each(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == cli.GOOD
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(NAMED)
    assert all(line.endswith(NAMED[line.split()[0]].says) for line in lines)


def test_serve_says_the_environment_serves_and_ends_in_order_without_django() -> None:
    env = {key: value for key, value in os.environ.items() if "DJANGO" not in key}
    command = [sys.executable, "-m", "bridge.sandbox", "serve", "--port", "0", "--twilio-port", "0", "--api-key", "k"]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        told = dict(serving.stdout.readline().strip().split("=", 1) for _ in range(6))
        asked = urllib.request.Request(f"{told['VAPI_BASE_URL']}/call", headers={"Authorization": "Bearer k", "User-Agent": "test"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert json.load(answer) == []
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(10) == 0
    assert set(told) == {
        "VAPI_BASE_URL",
        "VAPI_API_KEY",
        "TWILIO_BASE_URL",
        "TWILIO_ACCOUNT_SID",
        "TWILIO_AUTH_TOKEN",
        "TOOL_ALLOWED_PRIVATE",
    }


def test_the_sandbox_needs_nothing_of_django() -> None:
    brought = {name.split(".")[0] for path in sources("bridge/sandbox") for name, _ in imports(path)}
    assert brought & {"django", "celery", "channels", "supportvoice", "calls", "agents"} == set()
    assert (ROOT / "bridge" / "__init__.py").read_text() == ""


# ---- the sandbox's own doors


async def test_a_fault_is_ordered_for_a_phone_call_and_what_was_seen_can_be_asked() -> None:
    async with VapiSandbox() as vapi, client(vapi) as http:
        sid = CALL["name"].partition(".")[0]
        for body, status in (({"fault": "create-402"}, 201), ({"fault": "nonsense"}, 400), ({"scenario": "plain", "x": 1}, 400)):
            async with http.post(f"/sandbox/calls/{sid}", json=body) as answer:
                assert answer.status == status
        async with http.post("/call", json=CALL) as answer:
            assert answer.status == 402
        other = await create(http, CALL | {"name": "CAother.0"})
        async with http.get("/sandbox/calls/CAother") as answer:
            [seen] = (await answer.json())["calls"]
        assert (seen["id"], seen["endedReason"], seen["troubles"]) == (other["id"], None, [])
        async with aiohttp.ClientSession() as nobody, nobody.post(f"{vapi.base_url}/sandbox/calls/{sid}", json={}) as answer:
            assert answer.status == 401


async def test_one_session_of_a_phone_call_can_have_a_fault_of_its_own() -> None:
    async with VapiSandbox() as vapi:
        first, all_others = (PLAIN, NAMED["mute"].switches()), (PLAIN, NAMED["deaf"].switches())
        vapi.of_call = {"CA1.0": first, "CA1": all_others}
        assert [vapi.part_of(name) for name in ("CA1.0", "CA1.1")] == [first, all_others]
        assert vapi.part_of("CA2.0") == (vapi.scenario, vapi.faults)


async def test_twilios_rest_api_finds_a_call_in_another_process_and_knows_nobody_else() -> None:
    account, login = "AC" + "1" * 32, "Basic " + base64.b64encode(f"AC{'1' * 32}:token".encode()).decode()
    async with switch.running(account, "token") as url, aiohttp.ClientSession(headers={"Authorization": login}) as http:
        phone = TwilioCall(webhook_url="http://127.0.0.1:1/", auth_token="token", caller=Caller(()), rng=Random(1))
        address = f"{url}/2010-04-01/Accounts/{account}/Calls/{phone.call_sid}.json"
        async with TwilioRestSandbox(account, "token") as elsewhere:
            elsewhere.take(phone)
            for at, status in (("http://example.com", 400), (7, 400), (elsewhere.base_url, 201)):
                async with http.post(f"{url}/sandbox/calls/{phone.call_sid}", json={"at": at}) as answer:
                    assert answer.status == status
            async with http.get(address) as answer:
                assert (answer.status, (await answer.json())["status"]) == (200, "ringing")
            async with http.get(address.replace(phone.call_sid, "CA" + "0" * 32)) as answer:
                assert (answer.status, (await answer.json())["code"]) == (404, 20404)
        async with http.get(address) as answer:  # its process is gone
            assert answer.status == 404


# ---- the judgement


def test_more_than_five_seconds_of_silence_are_a_lost_caller() -> None:
    phone = place(House({"/voice": '<Pause length="6"/>'}))
    seconds, began = longest_silence(phone)
    assert seconds == pytest.approx(6.0, abs=0.1)
    assert began == pytest.approx(0.0, abs=0.1)
    lost = f"The caller was left in silence for {seconds:.1f} s, from {began:.1f} s of the call on."
    assert complaints(phone, Caller(()), left=False) == [lost]
    assert complaints(place(House({"/voice": '<Pause length="4"/>'})), Caller(()), left=False) == []


def test_ringing_and_a_message_being_left_are_no_silence() -> None:
    dialled = f'<Dial timeout="15"><Number>{NUMBER}</Number></Dial>'
    rung = place(House({"/voice": dialled}), anyone=Human(outcome="no-answer", rings_s=8.0))
    assert longest_silence(rung)[0] < 5
    recorded = place(House({"/voice": '<Record timeout="8" playBeep="false" action="/done"/>'}), voicemail=None)
    assert longest_silence(recorded)[0] < 5


def test_an_impatient_caller_does_not_wait_for_a_greeting_of_ours() -> None:
    first, *rest = impatient(PLAIN, 4.0).caller
    assert first == Step(Start(4.0), Say("ask_hours"))
    assert rest[0].when == Heard("opening_hours")
