"""The sandbox Twilio on real sockets: signatures, upgrades, tunnels, resets."""

import asyncio
import io
import json
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from twilio.request_validator import RequestValidator

from bridge.sandbox.clips import CLIPS
from bridge.sandbox.script import Caller
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.web import Internet, signature, signature_headers, signed_url
from tests.sandbox.twilio_house import (
    HOUSE,
    STREAM,
    TOKEN,
    WIRE,
    clip_message,
    mark_message,
    serving,
)

# ---- signatures

CASES = [case for case in json.loads((WIRE / "signatures/signatures.json").read_text())["cases"] if case["expect_valid"]]


@pytest.mark.parametrize("case", [case for case in CASES if case["kind"] != "json"], ids=lambda case: case["name"])
def test_signatures_are_those_of_the_samples(case: dict[str, Any]) -> None:
    params = dict(case["params"] or [])
    if len(params) != len(case["params"] or []) or case["method"] == "GET":
        params = {}  # a GET signs its URL only; this stranger never sends a name twice
        if case["name"] == "duplicate_keys":
            return
    algorithm = case["algorithm"].removeprefix("HMAC_").lower()
    assert signature(case["signing_token"], case["signed_url"], params, algorithm) == case["headers"]["X-Twilio-Signature"]


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("https://voice.example.com:8443/a?b=c%20d#rc=2", "https://voice.example.com/a?b=c%20d"),
        ("http://127.0.0.1:8000/a/", "http://127.0.0.1:8000/a/"),
        ("https://user:secret@voice.example.com/a", "https://voice.example.com/a"),
        ("wss://voice.example.com:443/media", "wss://voice.example.com/media"),
        ("ws://127.0.0.1:8000/media", "ws://127.0.0.1:8000/media"),
    ],
)
def test_a_url_is_signed_without_user_fragment_and_tls_port(url: str, signed: str) -> None:
    assert signed_url(url) == signed


def test_a_shared_key_signs_with_sha256_and_names_itself() -> None:
    headers = signature_headers("whsec", f"{HOUSE}/voice", {"CallSid": "CA1"}, "sha256")
    assert headers["X-Twilio-Webhooks-Signature-Settings"].endswith("algorithm=HMAC_SHA256")
    assert RequestValidator("whsec").validate(f"{HOUSE}/voice", {"CallSid": "CA1"}, headers["X-Twilio-Signature"], "HMAC_SHA256")


# ---- real sockets


def stream_document() -> str:
    return (
        '<Connect><Stream url="/media" statusCallback="{BASE}/stream"><Parameter name="token" value="t"/></Stream></Connect>'
        "<Redirect>/resume</Redirect>"
    )


async def test_a_whole_call_over_real_sockets(tmp_path: Path) -> None:
    upgrades: list[Mapping[str, str]] = []
    starts: list[dict[str, Any]] = []

    async def media(request: web.Request) -> web.StreamResponse:
        upgrades.append(request.headers.copy())
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            said = json.loads(message.data)
            if said["event"] == "start":
                starts.append(said["start"])
                await socket.send_str(clip_message(said["streamSid"], CLIPS["goodbye"].ulaw))
                await socket.send_str(mark_message(said["streamSid"], "end"))
            if said["event"] == "mark":
                await socket.close()
        return socket

    documents = {"/voice": stream_document(), "/resume": "<Hangup/>"}
    async with serving(media=media, documents=documents) as (base, asked):
        call = TwilioCall(webhook_url=f"{base}/voice", status_url=f"{base}/status", auth_token=TOKEN, caller=Caller(()))
        await call.run()
    assert (call.problems, call.violations, call.status) == ([], [], "completed")
    assert sorted(path for path, *_ in asked) == ["/resume", "/status", "/stream", "/stream", "/voice"]
    assert all(valid for _, _, valid, _, _ in asked)
    assert next(cookies for path, _, _, _, cookies in asked if path == "/resume") == {"seen": "1"}
    (upgrade,) = upgrades
    assert RequestValidator(TOKEN).validate(base.replace("http", "ws") + "/media", {}, upgrade["X-Twilio-Signature"])
    assert not {"Origin", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"} & set(upgrade)
    assert starts[0]["customParameters"] == {"token": "t"}
    assert [heard.clip_name for heard in call.heard] == ["goodbye"]
    with wave.open(io.BytesIO(call.write_wav(tmp_path / "call.wav").read_bytes())) as tape:
        assert tape.getnframes() == len(call.said_audio())


async def test_compression_is_offered_and_an_agreement_is_a_violation() -> None:
    async def media(request: web.Request) -> web.StreamResponse:
        assert "permessage-deflate" in request.headers["Sec-WebSocket-Extensions"]
        socket = web.WebSocketResponse(compress=True)
        await socket.prepare(request)
        await socket.receive()
        await socket.close()
        return socket

    async with serving(media=media, documents={"/voice": stream_document(), "/resume": "<Hangup/>"}) as (base, _):
        web_ = Internet(offer_compression=True)
        call = await TwilioCall(webhook_url=f"{base}/voice", auth_token=TOKEN, caller=Caller(()), web=web_).run()
    assert [violation.code for violation in call.violations] == [31924]


async def test_a_refused_upgrade_over_real_sockets_goes_on_with_the_document() -> None:
    async def media(request: web.Request) -> web.StreamResponse:
        return web.Response(status=403)

    async with serving(media=media, documents={"/voice": stream_document(), "/resume": "<Hangup/>"}) as (base, asked):
        call = await TwilioCall(webhook_url=f"{base}/voice", auth_token=TOKEN, caller=Caller(())).run()
    assert [(problem.code, problem.why) for problem in call.problems] == [(31920, "handshake answered with 403")]
    assert call.verbs == ["Connect", "Redirect", "Hangup"]
    assert next(form for path, form, *_ in asked if path == "/stream")["StreamEvent"] == "stream-error"


async def test_a_vanishing_caller_is_a_reset_and_no_close_frame() -> None:
    ends: asyncio.Queue[tuple[WSMsgType, int | None]] = asyncio.Queue()

    async def media(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        while (message := await socket.receive()).type is WSMsgType.TEXT:
            pass
        ends.put_nowait((message.type, socket.close_code))
        return socket

    async with serving(media=media, documents={"/voice": stream_document()}) as (base, asked):
        call = TwilioCall(webhook_url=f"{base}/voice", auth_token=TOKEN, caller=Caller(()))
        running = asyncio.create_task(call.run())
        await call.wait_for("stream-started")
        await asyncio.sleep(0.2)
        call.hang_up("vanish")
        await running
        async with asyncio.timeout(5):
            _, code = await ends.get()
    assert code == 1006
    assert call.streams[0].end == "vanished"
    assert "/resume" not in [path for path, *_ in asked]


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_half_open_socket_is_mute_and_open_until_the_server_lets_go_of_it(leaves: bool) -> None:
    mute_s: list[float] = []
    ends: list[int | None] = []
    now = asyncio.get_running_loop().time

    async def media(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False, timeout=0.2)
        await socket.prepare(request)
        last = now()
        while not mute_s:
            try:
                message = await socket.receive(timeout=0.4)
                assert message.type is WSMsgType.TEXT  # and not a close, nor the end of the connection
                last = now()
            except TimeoutError:
                mute_s.append(now() - last)
        await socket.send_str("anybody there?")
        await socket.close()
        ends.append(socket.close_code)
        return socket

    async with serving(media=media, documents={"/voice": stream_document(), "/resume": "<Hangup/>"}) as (base, asked):
        ill: dict[str, Any] = {} if leaves else {"half_open_after_s": 0.3}
        call = TwilioCall(webhook_url=f"{base}/voice", status_url=f"{base}/status", auth_token=TOKEN, caller=Caller(()), **ill)
        running = asyncio.create_task(call.run())
        if leaves:
            await call.wait_for("stream-started")
            await asyncio.sleep(0.3)
            call.hang_up("half-open")
        async with asyncio.timeout(5):
            await running
    (stream,) = call.streams
    assert stream.let_go_at is not None
    assert (ends, stream.violations) == ([1006], [])  # its close was not answered, its words not read
    assert stream.end == ("half-open" if leaves else "broken")
    assert ("/resume" in [path for path, *_ in asked]) is not leaves
    if leaves:
        assert next(moment.at for moment in call.timeline if moment.what == "ended") < stream.let_go_at - 0.3


async def test_what_a_slow_reader_is_sent_piles_up_at_the_server() -> None:
    took_s: list[float] = []
    now = asyncio.get_running_loop().time

    async def media(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        await asyncio.sleep(0.4)
        began = now()
        for _ in range(100):
            await socket.send_str("x" * 100_000)
        took_s.append(now() - began)
        await socket.close()
        return socket

    ill: dict[str, Any] = {"slow_reader_after_s": 0.2, "slow_reader_for_s": 1.0}
    async with serving(media=media, documents={"/voice": stream_document(), "/resume": "<Hangup/>"}) as (base, _):
        async with asyncio.timeout(10):
            call = await TwilioCall(webhook_url=f"{base}/voice", auth_token=TOKEN, caller=Caller(()), **ill).run()
    assert took_s[0] > 0.7
    assert len(call.violations) == 100  # nothing was lost, only late
    assert call.verbs == ["Connect", "Redirect", "Hangup"]


async def test_nobody_at_home_is_11205_after_a_second_try() -> None:
    call = TwilioCall(webhook_url="http://127.0.0.1:9/voice", auth_token=TOKEN, caller=Caller(()))
    running = asyncio.create_task(call.run())
    await call.wait_for("problem")
    call.hang_up()
    await running
    assert call.problems[0].code == 11205
    assert call.status == "completed"


async def test_public_addresses_reach_the_house_through_a_tunnel_with_their_own_signatures() -> None:
    hosts: list[str] = []

    async def media(request: web.Request) -> web.StreamResponse:
        hosts.append(request.headers["Host"])
        assert RequestValidator(TOKEN).validate(f"wss://{hosts[0]}/media", {}, request.headers["X-Twilio-Signature"])
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        await socket.receive()
        await socket.close()
        return socket

    documents = {"/voice": STREAM + "<Hangup/>"}
    async with serving(media=media, documents=documents) as (base, asked):
        network = Internet(tunnel={HOUSE: base})
        call = await TwilioCall(webhook_url=f"{HOUSE}/voice", auth_token=TOKEN, caller=Caller(()), web=network, allow_ws=False).run()
    assert hosts == ["voice.example.com"]
    path, form, _, headers, _ = asked[0]
    assert headers["Host"] == "voice.example.com"
    assert RequestValidator(TOKEN).validate(HOUSE + path, form, headers["X-Twilio-Signature"])
    assert (call.verbs, call.problems) == (["Connect", "Hangup"], [])
