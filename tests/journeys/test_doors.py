"""The doors of a running house, knocked at from outside: forged, repeated, out of turn."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest

from bridge.sandbox.script import PLAIN
from bridge.sandbox.web import signature_headers
from supportvoice.demo import LINE
from tests.journeys.conftest import CALLER
from tests.journeys.house import OF_CALL, House, Leave

pytestmark = pytest.mark.journey


def form(house: House, call_sid: str) -> dict[str, str]:
    return {
        "CallSid": call_sid,
        "AccountSid": house.secrets.account_sid,
        "From": CALLER,
        "To": LINE,
        "CallStatus": "ringing",
        "ApiVersion": "2010-04-01",
        "Direction": "inbound",
    }


async def post(house: House, session: aiohttp.ClientSession, path: str, fields: dict[str, str], *, token: str = "") -> tuple[int, bytes]:
    url = house.stack.url + path
    headers = signature_headers(token or house.secrets.auth_token, url, fields)
    async with session.post(url, data=fields, headers=headers) as answer:
        return answer.status, await answer.read()


def test_fifty_identical_webhooks_on_two_processes_make_one_call(house: House) -> None:
    call_sid = "CA" + "5" * 32
    fields = form(house, call_sid)

    async def storm() -> tuple[list[tuple[int, bytes]], float]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            started = time.monotonic()
            answers = await asyncio.gather(*(post(house, session, "/webhook/twilio", fields) for _ in range(50)))
            return list(answers), time.monotonic() - started

    answers, took = house.wait(storm())
    assert {status for status, _ in answers} == {200}
    assert len({body for _, body in answers}) == 1
    assert took < 7.5, f"{took:.2f} s"  # half of Twilio's patience; 1 to 2 s were measured
    assert house.one("SELECT count(*) FROM calls_callsession WHERE call_sid = %s", call_sid) == 1
    house.eventually(lambda: len(house.at_vapi(call_sid)) == 1)
    assert house.one(f"SELECT count(*) FROM calls_vapisession r {OF_CALL}", call_sid) == 1

    async def hang_up() -> None:
        async with aiohttp.ClientSession() as session:
            await post(house, session, "/webhook/twilio/status", {**fields, "CallStatus": "completed"})

    house.wait(hang_up())
    house.settle(call_sid)


def test_a_forged_webhook_changes_nothing(house: House) -> None:
    call_sid = "CA" + "6" * 32

    async def forge() -> list[int]:
        async with aiohttp.ClientSession() as session:
            fields = form(house, call_sid)
            forged, _ = await post(house, session, "/webhook/twilio", fields, token="not-the-token")
            async with session.post(house.stack.url + "/webhook/twilio", data=fields) as bare:
                return [forged, bare.status]

    assert house.wait(forge()) == [403, 403]
    assert house.one("SELECT count(*) FROM calls_callsession WHERE call_sid = %s", call_sid) == 0


async def knock(house: House, messages: list[dict[str, Any]], *, signed: bool = True, origin: str = "") -> int:
    """Open the media socket and say these; returns the HTTP status of a refusal, else the close code."""
    url = house.stack.url.replace("http", "ws") + "/webhook/twilio/media"
    headers = signature_headers(house.secrets.auth_token, url, {}) if signed else {}
    if origin:
        headers["Origin"] = origin
    async with aiohttp.ClientSession() as session:
        try:
            async with session.ws_connect(url, headers=headers) as socket:
                for message in messages:
                    await socket.send_str(json.dumps(message))
                while not socket.closed:
                    await socket.receive(timeout=8)
                return socket.close_code or 0
        except aiohttp.WSServerHandshakeError as refused:
            return refused.status


def start(house: House, call_sid: str, token: str) -> dict[str, Any]:
    return {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": "MZ" + "1" * 32,
        "start": {
            "accountSid": house.secrets.account_sid,
            "streamSid": "MZ" + "1" * 32,
            "callSid": call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"token": token},
        },
    }


def test_the_media_socket_believes_nobody_without_signature_and_token(house: House) -> None:
    phone = house.call(PLAIN, leave=Leave("stream-started"))
    used = (
        next(stream for stream in phone.documents if b'name="token"' in stream.body)
        .body.split(b'name="token" value="')[1]
        .split(b'"')[0]
        .decode()
    )
    house.eventually(lambda: house.row(phone.call_sid)["status"] == "finalised")  # no late news of its own changes the row now
    row = "SELECT * FROM calls_callsession WHERE call_sid = %s"
    before = house.rows(row, phone.call_sid)
    media = {"event": "media", "streamSid": "MZ1", "media": {"payload": "//8="}}
    connected = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    assert house.wait(knock(house, [], signed=False)) == 403
    assert house.wait(knock(house, [], origin="https://evil.example")) == 403
    assert house.wait(knock(house, [connected, media])) == 1008
    assert house.wait(knock(house, [connected, start(house, phone.call_sid, "")])) == 1008
    assert house.wait(knock(house, [connected, start(house, phone.call_sid, "x" * 60)])) == 1008
    assert house.wait(knock(house, [connected, start(house, phone.call_sid, used)])) == 1008
    assert house.rows(row, phone.call_sid) == before


def test_twilio_retrying_its_webhook_still_gets_one_call(house: House) -> None:
    phone = house.call(PLAIN, duplicates=3, leave=Leave("caller-says"))
    assert phone.violations == []
    assert [final.clip_name for final in phone.heard][:2] == ["disclosure", "greeting"]
    assert len(house.at_vapi(phone.call_sid)) == 1


def test_a_number_nobody_set_up_is_told_so_politely(house: House) -> None:
    async def dial() -> tuple[int, bytes]:
        async with aiohttp.ClientSession() as session:
            return await post(house, session, "/webhook/twilio", {**form(house, "CA" + "7" * 32), "To": "+18005550000"})

    status, body = house.wait(dial())
    assert status == 200
    assert b"<Say>" in body
    assert b"<Stream" not in body


def test_vapi_must_show_the_secret(house: House) -> None:
    async def show(headers: dict[str, str]) -> int:
        body = {"message": {"type": "hang", "call": {"id": "unknown"}}}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{house.stack.url}/webhook/vapi", json=body, headers=headers) as answer,
        ):
            return answer.status

    assert house.wait(show({"X-Vapi-Secret": house.secrets.webhook_secret})) == 200
    assert house.wait(show({"Authorization": f"Bearer {house.secrets.webhook_secret}"})) == 200
    assert house.wait(show({})) in (401, 403)
    assert house.wait(show({"X-Vapi-Secret": "guess"})) in (401, 403)
