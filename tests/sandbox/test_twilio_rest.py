"""The sandbox Twilio's REST API: real HTTP, real calls on the other side, the samples' shapes, and the vendor's own client."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from bridge.sandbox.dial import Human
from bridge.sandbox.script import Caller, Say, Start, Step
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.twilio_rest import TwilioRestSandbox
from tests.sandbox.twilio_house import NUMBER, TOKEN, WIRE, serving

ACCOUNT = "AC" + "1" * 32
UNKNOWN = "CA" + "a" * 32
SAMPLES = {path.stem: json.loads(path.read_text()) for path in (WIRE / "rest").glob("*.json")}
STREAM = '<Connect><Stream url="/media"/></Connect>'


class Api:
    """A plain HTTP client with the account's credentials."""

    def __init__(self, session: aiohttp.ClientSession, rest: TwilioRestSandbox) -> None:
        self._session, self._base = session, f"{rest.base_url}/2010-04-01/Accounts/{ACCOUNT}"

    async def __call__(self, method: str, path: str, **form: str) -> tuple[int, Any]:
        """Status and answer: JSON as an object, anything else as bytes."""
        async with self._session.request(method, f"{self._base}/{path}", data=form or None) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if answer.content_type == "application/json" else body


@asynccontextmanager
async def api(password: str = TOKEN) -> AsyncIterator[tuple[TwilioRestSandbox, Api]]:
    login = {"Authorization": "Basic " + base64.b64encode(f"{ACCOUNT}:{password}".encode()).decode()}
    async with TwilioRestSandbox(ACCOUNT, TOKEN) as rest, aiohttp.ClientSession(headers=login) as session:
        yield rest, Api(session, rest)


async def listen(request: web.Request) -> web.StreamResponse:
    """A media server that keeps what it was told."""
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    EVENTS.append([json.loads(message.data)["event"] async for message in socket])
    return socket


EVENTS: list[list[str]] = []


@asynccontextmanager
async def calling(documents: dict[str, str], **options: Any) -> AsyncIterator[tuple[TwilioRestSandbox, Api, TwilioCall, str]]:
    """One call under way, known to the API."""
    EVENTS.clear()
    async with api() as (rest, ask), serving(media=listen, documents=documents) as (base, _):
        steps = options.pop("steps", ())
        call = rest.take(TwilioCall(webhook_url=f"{base}/voice", auth_token=TOKEN, account_sid=ACCOUNT, caller=Caller(steps), **options))
        running = asyncio.create_task(call.run())
        try:
            yield rest, ask, call, base
            async with asyncio.timeout(10):
                await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_call_is_shown_as_in_the_samples_while_it_lasts_and_when_it_is_over() -> None:
    async with calling({"/voice": "<Pause length='60'/>"}) as (_, ask, call, _base):
        assert (await ask("GET", f"Calls/{call.call_sid}.json"))[1]["status"] == "ringing"
        await call.wait_for("answered")
        status, live = await ask("GET", f"Calls/{call.call_sid}.json")
        call.hang_up()
        await call.wait_for("ended")
        _, over = await ask("GET", f"Calls/{call.call_sid}.json")
    assert (status, live["status"], over["status"]) == (200, "in-progress", "completed")
    for found, name in ((live, "call_in_progress"), (over, "call_completed")):
        sample = SAMPLES[name]["body"]
        assert found.keys() == sample.keys()
        assert {key: type(value) for key, value in found.items()} == {key: type(value) for key, value in sample.items()}
        assert found["from_formatted"] == sample["from_formatted"]
        assert found["uri"] == sample["uri"].replace(UNKNOWN, call.call_sid)


@pytest.mark.parametrize(
    ("name", "method", "path", "form"),
    [
        ("error_20404_not_found", "GET", f"Calls/{UNKNOWN}.json", {}),
        ("error_20404_not_found", "POST", f"Calls/{UNKNOWN}.json", {"Status": "completed"}),
        ("error_20404_not_found", "GET", f"Recordings/RE{'0' * 32}.wav", {}),
        ("error_20404_not_found", "GET", "Recordings/..%2f", {}),
        ("error_20404_not_found", "DELETE", f"Calls/{UNKNOWN}.json", {}),
        ("error_20404_not_found", "GET", "Conferences.json", {}),
    ],
)
async def test_what_is_not_there_is_20404(name: str, method: str, path: str, form: dict[str, str]) -> None:
    async with api() as (_, ask):
        status, said = await ask(method, path, **form)
    sample = SAMPLES[name]["body"]
    assert (status, said["code"], said.keys()) == (404, 20404, sample.keys())


async def test_other_credentials_are_20003_and_see_nothing() -> None:
    async with api("wrong") as (rest, ask):
        status, said = await ask("GET", f"Calls/{UNKNOWN}.json")
        async with aiohttp.ClientSession() as session, session.get(f"{rest.base_url}/2010-04-01/Accounts/{ACCOUNT}/Calls.json") as bare:
            assert bare.status == 401
    assert (status, said) == (401, SAMPLES["error_20003_auth"]["body"])


async def test_ending_a_call_stops_its_stream_and_a_second_time_is_21220() -> None:
    async with calling({"/voice": STREAM + "<Redirect>/resume</Redirect>"}) as (_, ask, call, _base):
        await call.wait_for("stream-started")
        status, said = await ask("POST", f"Calls/{call.call_sid}.json", Status="completed")
        await call.wait_for("ended")
        again = await ask("POST", f"Calls/{call.call_sid}.json", Status="completed")
        elsewhere = await ask("POST", f"Calls/{call.call_sid}.json", Url="http://127.0.0.1:9/x")
    assert (status, said["sid"]) == (200, call.call_sid)
    assert again == elsewhere == (400, SAMPLES["error_21220_not_in_progress"]["body"])
    assert (EVENTS[0][-1], call.verbs, call.status) == ("stop", ["Connect"], "completed")


@pytest.mark.parametrize("how", ["Url", "Twiml"])
async def test_a_live_call_is_sent_elsewhere_out_of_its_stream(how: str) -> None:
    documents = {"/voice": STREAM + "<Redirect>/resume</Redirect>", "/elsewhere": "<Hangup/>"}
    async with calling(documents) as (_, ask, call, base):
        await call.wait_for("stream-started")
        form = {"Url": f"{base}/elsewhere", "Method": "POST"} if how == "Url" else {"Twiml": "<Response><Hangup/></Response>"}
        assert (await ask("POST", f"Calls/{call.call_sid}.json", **form))[0] == 200
    assert (EVENTS[0][0], EVENTS[0][-1], call.verbs) == ("connected", "stop", ["Connect", "Hangup"])


async def test_a_request_that_makes_no_sense_changes_nothing() -> None:
    async with calling({"/voice": "<Pause length='60'/>"}) as (_, ask, call, _base):
        early = await ask("POST", f"Calls/{call.call_sid}.json", Url="http://127.0.0.1:9/x")
        await call.wait_for("answered")
        both = await ask("POST", f"Calls/{call.call_sid}.json", Url="http://127.0.0.1:9/x", Twiml="<Response/>")
        long = await ask("POST", f"Calls/{call.call_sid}.json", Twiml="<Response>" + " " * 4000 + "</Response>")
        nothing = await ask("POST", f"Calls/{call.call_sid}.json")
        assert [call.status, call.over] == ["in-progress", False]
        call.hang_up()
    assert [early[1]["code"], both[1]["code"], long[1]["code"], nothing[0]] == [21220, 20001, 32018, 200]


async def test_a_leg_that_was_dialled_can_be_looked_at_too() -> None:
    documents = {"/voice": f"<Dial>{NUMBER}</Dial>"}
    async with calling(documents, anyone=Human(rings_s=0.3, talks_s=0.5)) as (_, ask, call, _base):
        await call.wait_for("ringing")
        ringing = (await ask("GET", f"Calls/{call.dials[0].call_sid}.json"))[1]
        await call.wait_for("colleague-gone")
        gone = (await ask("GET", f"Calls/{call.dials[0].call_sid}.json"))[1]
    assert [(each["status"], each["parent_call_sid"], each["to"]) for each in (ringing, gone)] == [
        ("ringing", call.call_sid, NUMBER),
        ("completed", call.call_sid, NUMBER),
    ]
    assert ringing.keys() == SAMPLES["call_in_progress"]["body"].keys()


async def test_recordings_can_be_fetched_as_sound_and_as_json_once_they_are_made() -> None:
    documents = {"/voice": "<Start><Recording/></Start><Pause length='1'/>"}
    async with calling(documents, steps=(Step(Start(0.1), Say("no_thanks")),)) as (_, ask, call, _base):
        await call.wait_for("recorded")
        (recording,) = call.recordings
        sound, told = await ask("GET", f"Recordings/{recording.sid}.wav"), await ask("GET", f"Recordings/{recording.sid}.json")
        assert await ask("GET", f"Recordings/{recording.sid}") == sound
    with wave.open(io.BytesIO(sound[1])) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, len(recording.ulaw))
    assert (told[1]["call_sid"], told[1]["channels"], told[1]["duration"]) == (call.call_sid, 2, "1")
    assert told[1]["source"] == "StartCallRecordingTwiML"


async def test_an_absent_recording_is_not_there() -> None:
    async with calling({"/voice": "<Start><Recording/></Start><Pause/>"}) as (_, ask, call, _base):
        await call.wait_for("recorded")
        assert (await ask("GET", f"Recordings/{call.recordings[0].sid}.wav"))[0] == 404


async def test_the_next_requests_fail_as_asked_and_those_after_them_do_not() -> None:
    async with calling({"/voice": "<Pause length='60'/>"}) as (rest, ask, call, _base):
        await call.wait_for("answered")
        path = f"Calls/{call.call_sid}.json"
        rest.fail_with(429, times=2)
        assert [await ask("POST", path, Status="completed") for _ in range(2)] == [(429, SAMPLES["error_20429_too_many"]["body"])] * 2
        rest.fail_with(503)
        status, said = await ask("POST", path, Status="completed")
        assert (status, type(said), call.over) == (503, bytes, False)
        rest.fail_with(slow_s=0.3)
        rest.fail_with(drip_s=0.001)
        began = time.monotonic()
        slow, slow_took = await ask("GET", path), time.monotonic() - began
        drip, drip_took = await ask("GET", path), time.monotonic() - began - slow_took
        assert slow[1]["sid"] == drip[1]["sid"] == call.call_sid
        assert (slow_took >= 0.3, drip_took >= 0.9) == (True, True)  # some 1,000 bytes
        assert (await ask("POST", path, Status="completed"))[0] == 200
    assert [asked.answered for asked in rest.asked] == [429, 429, 503, 200, 200, 200]
    assert rest.asked[0].form == {"Status": "completed"}


class Elsewhere(TwilioHttpClient):  # type: ignore[misc]
    """The vendor's client, pointed at the sandbox."""

    def __init__(self, base_url: str) -> None:
        super().__init__(timeout=5)
        self._base_url = base_url

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        return super().request(method, url.replace("https://api.twilio.com", self._base_url), *args, **kwargs)


async def test_the_vendors_own_client_understands_every_answer() -> None:
    async with calling({"/voice": "<Pause length='60'/>"}) as (rest, _, call, _base):
        client = Client(ACCOUNT, TOKEN, http_client=Elsewhere(rest.base_url))
        await call.wait_for("answered")
        found = await asyncio.to_thread(client.calls(call.call_sid).fetch)
        assert (found.status, found.start_time is not None, found.end_time) == ("in-progress", True, None)
        await asyncio.to_thread(client.calls(call.call_sid).update, status="completed")
        await call.wait_for("ended")
        with pytest.raises(TwilioRestException) as refused:
            await asyncio.to_thread(client.calls(call.call_sid).update, url="https://voice.example.com/x")
        client.http_client.session.close()
    assert (refused.value.status, refused.value.code) == (400, 21220)


async def test_a_recording_that_was_deleted_is_gone_with_its_sound() -> None:
    async with calling({"/voice": "<Record action='/box'/>", "/box": "<Hangup/>"}) as (rest, ask, call, _):
        await call.wait_for("recorded")
        sid = call.recordings[0].sid
        assert await ask("DELETE", f"Recordings/{sid}.json") == (204, b"")
        for verb, end in (("GET", ".wav"), ("GET", ".json"), ("DELETE", ".json")):
            assert (await ask(verb, f"Recordings/{sid}{end}"))[0] == 404
        assert rest.deleted == [sid]


async def test_the_recording_under_way_is_stopped_and_the_call_goes_on() -> None:
    record = "<Start><Recording recordingStatusCallbackEvent='in-progress'/></Start><Say>Hello</Say><Pause length='60'/>"
    async with calling({"/voice": record}, steps=(Step(Start(0.0), Say("no_thanks")),)) as (_, ask, call, _base):
        await call.wait_for("said")
        path = f"Calls/{call.call_sid}/Recordings/Twilio.CURRENT.json"
        status, stopped = await ask("POST", path, Status="stopped")
        assert (status, stopped["status"], stopped["sid"]) == (200, "stopped", call.recordings[0].sid)
        assert (await ask("POST", path, Status="stopped"))[0] == 404, "none is under way any more"
        assert call.status == "in-progress"
        call.hang_up()
    assert [recording.why for recording in call.recordings] == ["stopped"]
