"""The sandbox Vapi over the network: its REST, its socket and its webhooks on real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from bridge.sandbox import script, sound
from bridge.sandbox.clips import CLIPS
from bridge.sandbox.script import End, Scenario, Speak
from bridge.sandbox.turns import Faults, Message, tool_result
from bridge.sandbox.vapi import VapiSandbox, merged
from tests.sandbox.talks import ASSISTANT, CALL, client, create, house


async def test_a_short_call_over_real_sockets_is_told_to_our_server() -> None:
    account = replace(script.ACCOUNT, answers={"locked": "mm_hm"})
    short = Scenario("short", (), opening=(Speak("one_moment"), account, End()))
    async with house() as ours, VapiSandbox(scenario=short) as vapi, client(vapi) as http:
        server = {
            "url": ours.url,
            "headers": {"X-Vapi-Secret": "s3cret"},
            "backoffPlan": {"type": "fixed", "maxRetries": 2, "baseDelaySeconds": 0.05},
        }
        ours.fail_first = {"end-of-call-report"}
        started = time.monotonic()
        made = await create(http, CALL | {"assistant": {**ASSISTANT, "firstMessage": "", "server": server}})
        assert time.monotonic() - started >= 0.3
        audio = bytearray()
        texts = []
        async with http.ws_connect(made["transport"]["websocketCallUrl"]) as socket:
            async for message in socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    audio += message.data
                    await socket.send_bytes(sound.SILENT_FRAME)
                else:
                    texts.append(json.loads(message.data))
            assert socket.close_code == 1000
        await asyncio.wait_for(vapi.calls[made["id"]].done.wait(), 5)
        assert audio.startswith(CLIPS["one_moment"].ulaw)
        assert CLIPS["mm_hm"].ulaw in audio
        assert all("message" not in text for text in texts)
        kinds = [kind for kind, _ in ours.got]
        assert kinds.count("end-of-call-report") == 1
        assert [posted.status for posted in vapi.calls[made["id"]].posted if posted.kind == "end-of-call-report"] == [500, 200]
        assert set(ours.secrets) == {"s3cret"}
        final_report = next(message for kind, message in ours.got if kind == "end-of-call-report")
        assert final_report["call"]["id"] == made["id"]
        assert final_report["artifact"]["transcript"].startswith("AI: One moment, please.\n")
        assert final_report["durationMs"] > 1500
        async with http.get(f"/call/{made['id']}") as answer:
            assert (await answer.json())["endedReason"] == "assistant-ended-call"
        assert vapi.open_calls() == []


async def test_the_answer_to_a_create_has_the_vendors_shape() -> None:
    async with VapiSandbox() as vapi, client(vapi) as http:
        made = await create(http)
        assert made["id"][14] == "7"
        assert made["type"] == "vapi.websocketCall"
        assert made["status"] == "queued"
        assert made["transport"]["websocketCallUrl"] == f"{vapi.base_url.replace('http', 'ws')}/{made['id']}/transport"
        assert made["monitor"]["controlUrl"].endswith(f"/{made['id']}/control")
        assert made["subscriptionLimits"]["remainingConcurrentCalls"] == 9
        assert vapi.calls[made["id"]].request["name"] == CALL["name"]


def inline(**fields: Any) -> Message:
    return {"assistant": {**ASSISTANT, **fields}}


WRONG = [
    ({"metadata": {}}, "property metadata should not exist"),
    ({"name": "x" * 41}, "name must be shorter than or equal to 40 characters"),
    (inline(tools=[]), "assistant.property tools should not exist"),
    (inline(model={"provider": "openai", "model": "m", "systemPrompt": "x"}), "assistant.model.property systemPrompt should not exist"),
    (inline(voice={"provider": "elevenlabs", "voiceId": "v"}), "assistant.voice.provider must be one of"),
    (inline(stopSpeakingPlan={"voiceSeconds": 0.9}), "assistant.stopSpeakingPlan.voiceSeconds must not be greater than 0.5"),
    (inline(serverMessages=["transcripts"]), "assistant.serverMessages.0 must be one of"),
    ({"assistantOverrides": {"server": {"url": "http://h/", "secret": "s"}}}, "assistantOverrides.server.property secret should not exist"),
    ({"transport": {"provider": "websocket"}}, "transport.provider must be one of"),
]


@pytest.mark.parametrize(("change", "complaint"), WRONG)
async def test_fields_the_vendor_does_not_know_are_refused_by_name(change: Message, complaint: str) -> None:
    async with VapiSandbox() as vapi, client(vapi) as http, http.post("/call", json=CALL | change) as answer:
        body = await answer.json()
        assert (answer.status, body["statusCode"], body["error"]) == (400, 400, "Bad Request")
        assert any(line.startswith(complaint) for line in body["message"]), body
        assert vapi.calls == {}
        assert vapi.refused[0][:2] == ("/call", 400)


async def test_a_wrong_key_is_refused_everywhere_but_capability_urls_need_none() -> None:
    async with VapiSandbox() as vapi, client(vapi, "wrong") as stranger, client(vapi) as http:
        for verb, path in (("POST", "/call"), ("POST", "/assistant"), ("GET", "/call"), ("GET", "/assistant/x")):
            async with stranger.request(verb, path, json=CALL) as answer:
                assert answer.status == 401
                assert (await answer.json())["message"].startswith("Invalid Key.")
        made = await create(http)
        async with stranger.post(f"/{made['id']}/control", json={"type": "end-call"}) as answer:
            assert answer.status == 401
        async with aiohttp.ClientSession() as nobody, nobody.post(made["monitor"]["controlUrl"], json={"type": "end-call"}) as answer:
            assert answer.status == 200
        assert vapi.open_calls() == []


async def test_a_call_can_be_erased_which_ends_nothing_and_may_be_refused_for_a_while() -> None:
    async with VapiSandbox(faults=Faults(create_delay_s=0.0, delete_refusals=1)) as vapi, client(vapi) as http:
        made = await create(http)
        answers = []
        for call_id in (made["id"], made["id"], "nobody"):
            async with http.delete(f"/call/{call_id}") as answer:
                answers.append(answer.status)
        assert answers == [503, 200, 404]
        assert vapi.erased == [made["id"]]
        assert [call.id for call in vapi.open_calls()] == [made["id"]]


async def test_assistants_are_made_read_changed_and_deleted() -> None:
    async with VapiSandbox() as vapi, client(vapi) as http:
        async with http.post("/assistant", json=ASSISTANT) as answer:
            assert answer.status == 201
            made = await answer.json()
        async with http.patch(f"/assistant/{made['id']}", json={"model": {"provider": "openai", "model": "gpt-4o"}}) as answer:
            changed = await answer.json()
        assert changed["model"] == {"provider": "openai", "model": "gpt-4o"}
        assert (changed["name"], changed["latestVersion"]) == ("TechFlow", "v2")
        by_id = {key: value for key, value in CALL.items() if key != "assistant"} | {"assistantId": made["id"]}
        made_call = await create(
            http, by_id | {"assistantOverrides": {"model": {"model": "gpt-4.1", "provider": "openai"}, "metadata": {"n": "0"}}}
        )
        assert vapi.calls[made_call["id"]].assistant["model"]["model"] == "gpt-4.1"
        async with http.delete(f"/assistant/{made['id']}") as answer:
            assert answer.status == 200
        for path in (f"/assistant/{made['id']}", "/call/none"):
            async with http.get(path) as answer:
                assert answer.status == 404
        async with http.post("/call", json=by_id) as answer:
            assert answer.status == 400


async def test_a_call_can_be_renamed_and_nothing_else() -> None:
    async with VapiSandbox() as vapi, client(vapi) as http:
        made = await create(http)
        async with http.patch(f"/call/{made['id']}", json={"name": "new"}) as answer:
            assert (await answer.json())["name"] == "new"
        async with http.patch(f"/call/{made['id']}", json={"assistant": {}}) as answer:
            assert answer.status == 400
        async with http.get("/call", params={"limit": "5"}) as answer:
            assert [call["name"] for call in await answer.json()] == ["new"]


async def test_calls_are_listed_by_when_they_were_made_and_by_whom() -> None:
    """A bridge looks for calls it does not know of: all since a moment, their names compared."""
    walls = iter(range(1_800_000_000, 1_800_001_000))
    async with VapiSandbox(faults=Faults(create_delay_s=0.0), wall=lambda: float(next(walls))) as vapi, client(vapi) as http:
        made = [await create(http, CALL | {"name": f"CA{number}.0"}) for number in range(3)]
        first, second, third = made
        for query, found in (
            ({}, [third, second, first]),
            ({"limit": "2"}, [third, second]),
            ({"createdAtGt": first["createdAt"]}, [third, second]),
            ({"createdAtGe": first["createdAt"], "createdAtLt": third["createdAt"]}, [second, first]),
            ({"createdAtGt": first["createdAt"].replace("Z", "+00:00"), "createdAtLe": second["createdAt"]}, [second]),
            ({"id": second["id"]}, [second]),
            ({"assistantId": "nobody"}, []),
            ({"limit": "0"}, []),
        ):
            async with http.get("/call", params=query) as answer:
                assert [call["id"] for call in await answer.json()] == [call["id"] for call in found], query
        for wrong in (
            {"limit": "1001"},
            {"limit": "-1"},
            {"createdAtGt": "yesterday"},
            {"since": "1"},
            {"limit": "²"},
            {"nameGt": "2026-01-01"},
        ):
            async with http.get("/call", params=wrong) as answer:
                assert answer.status == 400, wrong


async def test_faults_refuse_and_the_line_limit_holds() -> None:
    async with VapiSandbox(faults=Faults(create_status=503, create_delay_s=0.0), concurrency_limit=1) as vapi, client(vapi) as http:
        async with http.post("/call", json=CALL) as answer:
            assert answer.status == 503
        vapi.faults.create_status = None
        await create(http)
        async with http.post("/call", json=CALL) as answer:
            assert (await answer.json())["message"] == "Over Concurrency Limit"


async def test_a_socket_is_given_once_and_only_for_a_known_call() -> None:
    async with VapiSandbox(faults=Faults(create_delay_s=0.0)) as vapi, client(vapi) as http:
        made = await create(http)
        async with http.ws_connect(f"/{made['id']}/transport") as first:
            for path in (f"/{made['id']}/transport", "/none/transport"):
                with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
                    await http.ws_connect(path)
            await first.close()
        await asyncio.wait_for(vapi.calls[made["id"]].done.wait(), 5)
        assert vapi.calls[made["id"]].ended_reason == "customer-ended-call"


async def test_a_broken_connection_is_seen_as_1006() -> None:
    async with VapiSandbox(faults=Faults(create_delay_s=0.0, close_after_s=0.1, close_code=1006)) as vapi, client(vapi) as http:
        made = await create(http)
        async with http.ws_connect(f"/{made['id']}/transport") as socket:
            async for _ in socket:
                pass
            assert socket.close_code == 1006


async def test_the_customer_database_knows_alex_and_nobody_else() -> None:
    async with house() as ours, aiohttp.ClientSession() as http:
        for body, status in (({"email": "alex@example.com"}, 200), ({"email": "sam@example.com"}, 404), ({}, 400), ([], 400)):
            async with http.post(ours._crm, json=body) as answer:
                assert answer.status == status


def test_only_a_one_line_text_for_this_very_call_is_a_tool_result() -> None:
    assert tool_result({"results": [{"toolCallId": "a", "result": "ok"}]}, "a") == "ok"
    assert tool_result({"results": [{"toolCallId": "a", "error": "no"}]}, "a") == "no"
    for wrong in (None, {}, {"results": [{"toolCallId": "b", "result": "ok"}]}, {"results": [{"toolCallId": "a", "result": {"x": 1}}]},
                  {"results": [{"toolCallId": "a", "result": "two\nlines"}]}):  # fmt: skip
        assert tool_result(wrong, "a") == ""


def test_overrides_merge_deeply_and_replace_lists() -> None:
    base = {"model": {"model": "a", "tools": [1]}, "name": "n"}
    assert merged(base, {"model": {"tools": [2]}}) == {"model": {"model": "a", "tools": [2]}, "name": "n"}
    assert base["model"] == {"model": "a", "tools": [1]}
