"""Every fault of a create, of the socket's upgrade and of webhooks is really what its sentence says. On real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect

from bridge.sandbox import malformed, turns, vapi_calls
from bridge.sandbox.clips import CLIPS
from bridge.sandbox.faults import CREATE, NAMED, RESET, SOCKET, Faults
from bridge.sandbox.script import ACCOUNT, End, Scenario, Speak
from bridge.sandbox.turns import Message
from bridge.sandbox.vapi import SandboxCall, VapiSandbox
from tests.sandbox.talks import ASSISTANT, CALL, TOOL, House, client, create, house

ERRORS = Path(__file__).parents[1] / "wire" / "vapi" / "errors"
AT_ONCE = {"create_delay_s": 0.0}
SHORT = Scenario("short", (), opening=(Speak("mm_hm"), End()))
WORDLESS = ASSISTANT | {"firstMessage": ""}


@pytest.fixture(autouse=True)
def _little_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about deliveries, not about the second before the report."""
    monkeypatch.setattr(turns, "REPORT_AFTER_S", 0.1)
    monkeypatch.setattr(turns, "FIRST_AUDIO_S", 0.05)


def quick(name: str, **more: Any) -> Faults:
    """A named fault whose create is answered at once, unless its slowness is the fault."""
    faults = NAMED[name].switches()
    for key, value in (AT_ONCE | more).items():
        setattr(faults, key, value)
    return faults


async def post(http: aiohttp.ClientSession) -> tuple[int, Any]:
    async with http.post("/call", json=CALL) as answer:
        return answer.status, await answer.json()


# ---- POST /call


@pytest.mark.parametrize("name", [name for name, fault in CREATE.items() if fault.vapi.create_status is not None])
async def test_a_create_is_refused_in_the_vendors_words(name: str) -> None:
    faults = quick(name)
    async with VapiSandbox(faults=faults) as vapi, client(vapi) as http:
        async with http.post("/call", json=CALL) as answer:
            body = await answer.json()
            assert (answer.status, body["statusCode"]) == (faults.create_status, faults.create_status)
            assert answer.headers.get("Retry-After", "") == faults.retry_after
        samples = [json.loads(path.read_text()) for path in ERRORS.glob(f"{faults.create_status}.*")]
        assert body in samples or not samples
        status, _ = await post(http)
        assert status == (201 if faults.create_times == 1 else faults.create_status)


async def test_refusals_are_counted_by_phone_call() -> None:
    async with VapiSandbox(faults=quick("create-503-once")) as vapi, client(vapi) as http:
        other = CALL | {"name": "CAother.0"}
        statuses = []
        for body in (CALL, CALL, other, other):
            async with http.post("/call", json=body) as answer:
                statuses.append(answer.status)
        assert statuses == [503, 201, 503, 201]


async def test_a_slow_create_takes_its_time_and_makes_the_call_although_nobody_waited() -> None:
    assert [NAMED[f"create-slow-{seconds}"].vapi.create_delay_s for seconds in (3, 10, 60)] == [3.0, 10.0, 60.0]
    async with VapiSandbox(faults=Faults(create_delay_s=0.2)) as vapi, client(vapi) as http:
        with pytest.raises(TimeoutError):
            await http.post("/call", json=CALL, timeout=aiohttp.ClientTimeout(0.05))
        assert vapi.calls == {}
        async with asyncio.timeout(2):
            while not vapi.calls:
                await asyncio.sleep(0.02)


async def test_a_dripping_create_comes_byte_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    assert vapi_calls.DRIP_S == 1.0
    monkeypatch.setattr(vapi_calls, "DRIP_S", 0.05)
    async with VapiSandbox(faults=quick("create-drip")) as vapi, client(vapi) as http, http.post("/call", json=CALL) as answer:
        began = time.monotonic()
        assert (answer.status, await answer.content.read(10)) == (201, b"{")
        assert len(await answer.content.readexactly(4)) == 4
        assert 0.15 <= time.monotonic() - began < 2


@pytest.mark.parametrize("kind", sorted(malformed.KINDS))
async def test_a_malformed_answer_is_unusable_in_its_own_way_and_the_call_exists(kind: str) -> None:
    async with VapiSandbox(faults=quick(f"create-malformed-{kind}")) as vapi, client(vapi) as http:
        async with http.post("/call", json=CALL) as answer:
            body = await answer.read()
            assert answer.status == 201
        [made] = vapi.open_calls()
        whole = {"deep": _depth, "huge": len}
        if kind in whole:
            assert whole[kind](body) > {"deep": 9_999, "huge": 50 << 20}[kind]
            return
        try:
            found = json.loads(body)
        except ValueError:
            assert kind in ("not-json", "html", "empty", "cut", "bad-utf8")
            return
        assert not _usable(found, made), found


def _depth(body: bytes) -> int:
    return body.count(b"[")


def _usable(found: Any, made: SandboxCall) -> bool:
    transport = found.get("transport") if isinstance(found, dict) else None
    url = transport.get("websocketCallUrl", "") if isinstance(transport, dict) else ""
    return url.startswith("ws://127.0.0.1") and found["id"] == made.id


async def test_busy_lines_refuse_block_or_end() -> None:
    async with house() as ours, VapiSandbox() as vapi, client(vapi) as http:
        vapi.faults = quick("create-over-limit")
        assert await post(http) == (400, json.loads((ERRORS / "400.over-concurrency-limit.json").read_text()))
        vapi.faults = quick("create-blocked")
        status, blocked = await post(http)
        assert (status, blocked["subscriptionLimits"]["concurrencyBlocked"]) == (201, True)
        with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
            await http.ws_connect(f"/{blocked['id']}/transport")
        vapi.faults = quick("create-limit-ended")
        made = await create(http, CALL | {"assistant": {**ASSISTANT, "server": {"url": ours.url}}})
        assert made["subscriptionLimits"]["concurrencyBlocked"] is False
        await asyncio.wait_for(vapi.calls[made["id"]].done.wait(), 5)
        reasons = {message["endedReason"] for _, message in ours.got}
        assert reasons == {"call.start.error-subscription-concurrency-limit-reached"}


async def test_the_first_webhook_can_come_before_the_answer() -> None:
    async with house() as ours, VapiSandbox(faults=quick("webhook-before-create")) as vapi, client(vapi) as http:
        made = await create(http, CALL | {"assistant": {**ASSISTANT, "server": {"url": ours.url}}})
        assert [(kind, message["status"], message["call"]["id"]) for kind, message in ours.got] == [("status-update", "queued", made["id"])]


# ---- the socket


@pytest.mark.parametrize(("name", "status"), [("socket-403", 403), ("socket-500", 500)])
async def test_an_upgrade_is_refused(name: str, status: int) -> None:
    async with VapiSandbox(faults=quick(name)) as vapi, client(vapi) as http:
        made = await create(http)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(made["transport"]["websocketCallUrl"])
        assert refused.value.status == status


async def test_an_upgrade_is_never_answered_and_the_sandbox_still_stops() -> None:
    async with VapiSandbox(faults=quick("socket-never")) as vapi, client(vapi) as http:
        made = await create(http)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await http.ws_connect(made["transport"]["websocketCallUrl"])
        began = time.monotonic()
    assert time.monotonic() - began < 3


async def test_a_subprotocol_nobody_asked_for() -> None:
    async with VapiSandbox(faults=quick("socket-subprotocol")) as vapi, client(vapi) as http:
        made = await create(http)
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "A" * 22 + "=="}
        async with http.get(f"/{made['id']}/transport", headers=upgrade) as answer:
            assert (answer.status, answer.headers["Sec-WebSocket-Protocol"]) == (101, "chat.v9")


async def test_a_socket_that_closes_at_once_says_nothing_before() -> None:
    async with VapiSandbox(faults=quick("socket-closes-at-once")) as vapi, client(vapi) as http:
        made = await create(http)
        async with http.ws_connect(made["transport"]["websocketCallUrl"]) as opened:
            assert [message async for message in opened] == []
            assert opened.close_code == 1008


@pytest.mark.parametrize(("code", "told"), [(RESET, ConnectionResetError), (1006, None)])
async def test_a_connection_is_reset_or_just_ends(code: int, told: type[Exception] | None) -> None:
    async with VapiSandbox(faults=Faults(create_delay_s=0.0, close_after_s=0.1, close_code=code)) as vapi, client(vapi) as http:
        made = await create(http)
        reader, writer = await asyncio.open_connection(*vapi.base_url.removeprefix("http://").split(":"))
        writer.write(
            f"GET /{made['id']}/transport HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n".encode()
        )
        if told is None:
            assert b"\x88" not in (await reader.read())[-4:-3]  # no close frame at its end
        else:
            with pytest.raises(told):
                await reader.read()
        writer.close()


async def test_a_mute_vapi_answers_pings_and_a_frozen_one_does_not() -> None:
    for name, answers in (("mute-from-the-start", True), ("frozen", False)):
        async with VapiSandbox(faults=quick(name, strikes_in_turn=0)) as vapi, client(vapi) as http:
            made = await create(http)
            async with connect(made["transport"]["websocketCallUrl"], ping_interval=None, close_timeout=0.1) as opened:
                await asyncio.sleep(0.1)
                pong = await opened.ping()
                done, _ = await asyncio.wait({asyncio.ensure_future(pong)}, timeout=0.4)
                assert bool(done) is answers


# ---- webhooks


async def short_call(ours: House, faults: Faults, **assistant: Any) -> tuple[VapiSandbox, SandboxCall]:
    """A call of one sentence, over and with everything delivered that will be."""
    async with VapiSandbox(scenario=SHORT, faults=faults, rng=Random(1)) as vapi, client(vapi) as http:
        made = await create(http, CALL | {"assistant": {**WORDLESS, "server": {"url": ours.url}, **assistant}})
        async with http.ws_connect(made["transport"]["websocketCallUrl"]) as opened:
            async for _ in opened:
                pass
        call = vapi.calls[made["id"]]
        await asyncio.wait_for(call.done.wait(), 10)
        return vapi, call


async def test_webhooks_come_twice_and_the_report_a_hundred_times_with_the_same_bytes() -> None:
    async with house() as ours:
        await short_call(ours, quick("webhooks-twice"))
        assert all(ours.got.count(each) == 2 for each in ours.got)
    async with house() as ours:
        await short_call(ours, quick("report-100-times"))
        reports = [message for kind, message in ours.got if kind == "end-of-call-report"]
        assert len(reports) == 100
        assert all(report == reports[0] for report in reports)


async def test_webhooks_come_late_and_the_last_line_after_the_report() -> None:
    assert NAMED["lines-after-report"].vapi.late_s == {"transcript": 5.0}
    async with house() as ours:
        _, call = await short_call(ours, Faults(create_delay_s=0.0, late_s={"transcript": 0.6}))
        kinds = [kind for kind, _ in ours.got]
        assert kinds.index("transcript") > kinds.index("end-of-call-report")
        line, report = (next(message for kind, message in ours.got if kind == each) for each in ("transcript", "end-of-call-report"))
        assert line["timestamp"] < report["timestamp"]
        assert call.webhooks("transcript") == [line]


async def test_webhooks_overtake_each_other() -> None:
    chatty = {"serverMessages": ["status-update", "model-output", "speech-update", "conversation-update", "end-of-call-report"]}
    async with house() as ours:
        _, call = await short_call(ours, Faults(create_delay_s=0.0, shuffle_s=0.5), **chatty)
        told, arrived = call.evidence.kinds("hook"), [kind for kind, _ in ours.got]
        assert arrived != told
        assert sorted(arrived) == sorted(told)


@pytest.mark.parametrize("kind", ["end-of-call-report", "status-update", "transcript"])
async def test_a_lost_kind_of_webhook_never_comes_and_the_others_do(kind: str) -> None:
    async with house() as ours:
        await short_call(ours, quick(f"lost-{kind}"))
        assert {"end-of-call-report", "status-update", "transcript"} - {each for each, _ in ours.got} == {kind}
    async with house() as ours:
        await short_call(ours, quick("lost-everything"))
        assert ours.got == []


async def test_what_a_lost_report_would_have_said_can_be_asked_for() -> None:
    async with house() as ours, VapiSandbox(scenario=SHORT, faults=quick("lost-end-of-call-report")) as vapi, client(vapi) as http:
        made = await create(http, CALL | {"assistant": {**WORDLESS, "server": {"url": ours.url}}})
        async with http.ws_connect(made["transport"]["websocketCallUrl"]) as opened:
            async for _ in opened:
                pass
        async with http.get(f"/call/{made['id']}") as answer:
            found = await answer.json()
        assert (found["status"], found["endedReason"]) == ("ended", "assistant-ended-call")
        assert [each["message"] for each in found["artifact"]["messages"] if each["role"] == "bot"] == [CLIPS["mm_hm"].text]


async def test_a_tool_with_a_server_of_its_own_is_asked_there() -> None:
    asks = Scenario("asks", (), opening=(replace(ACCOUNT, answers={}, otherwise="mm_hm"), End()))
    async with (
        house() as ours,
        house() as tools,
        VapiSandbox(scenario=asks, faults=Faults(create_delay_s=0.0)) as vapi,
        client(vapi) as http,
    ):
        model = {**ASSISTANT["model"], "tools": [{**TOOL, "server": {"url": tools.url}}]}
        made = await create(http, CALL | {"assistant": {**WORDLESS, "server": {"url": ours.url}, "model": model}})
        async with http.ws_connect(made["transport"]["websocketCallUrl"]) as opened:
            async for _ in opened:
                pass
        await asyncio.wait_for(vapi.calls[made["id"]].done.wait(), 10)
        assert [kind for kind, _ in tools.got] == ["tool-calls"]
        assert "tool-calls" not in [kind for kind, _ in ours.got]


def test_every_fault_of_the_upgrade_is_tried_here() -> None:
    assert {name for name in SOCKET if name.startswith("socket-")} == {
        "socket-403",
        "socket-500",
        "socket-never",
        "socket-subprotocol",
        "socket-closes-at-once",
        "socket-tls-half",  # in `tests.bridge.test_tls_half`
    }
    assert socket.SO_LINGER  # the reset needs it


REPORT_HAS: Message = {
    "analysis": dict,
    "artifact": dict,
    "costs": list,
    "costBreakdown": dict,
    "recordingUrl": str,
    "stereoRecordingUrl": str,
    "summary": str,
    "transcript": str,
    "durationMs": int,
}


async def test_the_report_has_what_the_vendor_documents() -> None:
    plan = {"structuredOutputIds": ["b0c7f6de"], "transcriptPlan": {"assistantName": "Agent"}}
    async with house() as ours:
        vapi, call = await short_call(ours, Faults(create_delay_s=0.0), artifactPlan=plan)
        [report] = call.webhooks("end-of-call-report")
        assert {key: type(report[key]) for key in REPORT_HAS} == REPORT_HAS
        assert {each["type"] for each in report["costs"]} == {"transport", "transcriber", "model", "voice", "vapi"}
        assert report["cost"] == pytest.approx(report["costBreakdown"]["total"])
        assert report["artifact"]["transcript"] == f"Agent: {CLIPS['mm_hm'].text}\n"
        assert set(report["artifact"]["structuredOutputs"]) == {"b0c7f6de"}
        assert report["artifact"]["performanceMetrics"]["turnLatencies"] == []
        assert report["artifact"]["recording"]["mono"]["combinedUrl"] == report["recordingUrl"]
        assert vapi.refused == []


async def test_recordings_are_fetched_with_the_key_and_only_when_they_were_made() -> None:
    for recorded, status in ((True, 302), (False, 404)):
        async with VapiSandbox(scenario=SHORT, faults=Faults(create_delay_s=0.0)) as vapi, client(vapi) as http:
            made = await create(http, CALL | {"assistant": {**WORDLESS, "artifactPlan": {"recordingEnabled": recorded}}})
            async with http.ws_connect(made["transport"]["websocketCallUrl"]) as opened:
                async for _ in opened:
                    pass
            async with http.get(f"/call/{made['id']}/stereo-recording", allow_redirects=False) as answer:
                assert answer.status == status
                link = answer.headers.get("Location", "")
            if recorded:
                async with aiohttp.ClientSession() as nobody, nobody.get(link) as answer:
                    assert (await answer.read()).startswith(b"RIFF")
