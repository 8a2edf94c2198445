"""The sandbox Vapi, from outside: its conversation in virtual time, its REST, socket and webhooks on real sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bridge.sandbox import crm, script, sound, virtual
from bridge.sandbox.clips import CLIPS, spoken_by
from bridge.sandbox.ear import Ear, Final
from bridge.sandbox.memory import MemoryClient, MemoryLink
from bridge.sandbox.script import Agent, Caller, End, Heard, Press, Say, Scenario, Speak, Start, Step
from bridge.sandbox.turns import CHUNKS, Evidence, Faults, Message, Plan, Turns, tool_result
from bridge.sandbox.vapi import VapiSandbox, merged

KEY = "sandbox-vapi-key"
TOOL = {"type": "function", "function": {"name": "get_user_account", "parameters": {"type": "object", "properties": {}}}}
LOCKED = '{"name": "Alex", "status": "locked"}'
ASSISTANT: Message = {
    "name": "TechFlow",
    "firstMessage": CLIPS["greeting"].text,
    "firstMessageInterruptionsEnabled": True,
    "model": {"provider": "openai", "model": "gpt-4.1", "messages": [{"role": "system", "content": "Help."}], "tools": [TOOL]},
    "voice": {"provider": "11labs", "voiceId": "v"},
    "startSpeakingPlan": {"waitSeconds": 0.4},
    "serverMessages": ["status-update", "end-of-call-report", "tool-calls", 'transcript[transcriptType="final"]', "user-interrupted"],
}
CALL: Message = {
    "name": "CA0123456789abcdef0123456789abcdef.0",
    "assistant": ASSISTANT,
    "transport": {"provider": "vapi.websocket", "audioFormat": {"format": "mulaw", "container": "raw", "sampleRate": 8000}},
}


class PhoneLine:
    """The far end of an in-memory link: plays what comes at 8000 bytes a second, drops it when the caller interrupts."""

    def __init__(self, client: MemoryClient, caller: Caller) -> None:
        self.client = client
        self.caller = caller
        self.heard: list[Final] = []
        self.texts: list[Message] = []
        self._buffer = bytearray()
        self._mouth = bytearray()
        self._ear = Ear(spoken_by("agent"))

    def say(self, ulaw: bytes) -> None:
        self._mouth += ulaw

    async def talk(self) -> None:
        loop = asyncio.get_running_loop()
        self.caller.connected(loop.time())
        start = loop.time()
        for tick in itertools.count(1):
            await asyncio.sleep(start + tick * sound.FRAME_S - loop.time())
            if not self._take(loop.time()):
                return

    def _take(self, now: float) -> bool:
        for message in self.client.receive_nowait():
            if message is None:
                self._hang_up(now)
                return False
            if isinstance(message, bytes):
                self._buffer += message
            else:
                self._text(json.loads(message))
        played = bytes(self._buffer[: sound.FRAME]).ljust(sound.FRAME, b"\xff")
        del self._buffer[: sound.FRAME]
        for utterance in self._ear.hear(played, now):
            self.caller.heard(utterance)
            if isinstance(utterance, Final):
                self.heard.append(utterance)
        for deed in self.caller.deeds(now):
            if isinstance(deed, Say):
                self.say(CLIPS[deed.clip].ulaw)
        self.client.send(bytes(self._mouth[: sound.FRAME]).ljust(sound.FRAME, b"\xff"))
        del self._mouth[: sound.FRAME]
        return True

    def _hang_up(self, now: float) -> None:
        """The other end is gone; what has come is still played."""
        rest = [*self._ear.hear(bytes(self._buffer), now), *self._ear.close(now)]
        self.heard += [utterance for utterance in rest if isinstance(utterance, Final)]

    def _text(self, message: Message) -> None:
        self.texts.append(message)
        if message["type"] == "user-interrupted":
            self._buffer.clear()


class Held:
    """One conversation in virtual time and everything it left behind."""

    def __init__(self) -> None:
        self.evidence = Evidence()
        self.hooks: list[Message] = []
        self.reason = ""
        self.line: PhoneLine
        self.turns: Turns
        self.close_code: int | None = None
        self.lasted_s = 0.0


def hold(
    scenario: Scenario,
    *,
    assistant: Message = ASSISTANT,
    steps: tuple[Step, ...] | None = None,
    faults: Faults | None = None,
    result: str | None = LOCKED,
    meanwhile: Callable[[PhoneLine], Any] | None = None,
) -> Held:
    """Hold a conversation over an in-memory link; `meanwhile` may play somebody else's part."""

    async def main() -> Held:
        held = Held()

        async def post(message: Message) -> Message | None:
            held.hooks.append(message)
            await asyncio.sleep(0.05)
            if message["type"] != "tool-calls" or result is None:
                return None
            return {"results": [{"toolCallId": message["toolCallList"][0]["id"], "name": "get_user_account", "result": result}]}

        loop = asyncio.get_running_loop()
        link = MemoryLink()
        held.line = PhoneLine(link.client, Caller(scenario.caller if steps is None else steps))
        held.turns = Turns(
            pipe=link,
            post=post,
            scenario=scenario,
            ear=Ear(spoken_by("caller")),
            plan=Plan.of(assistant),
            rng=random.Random(7),
            wall=lambda: 1_800_000_000 + loop.time(),
            evidence=held.evidence,
            faults=faults or Faults(),
        )
        talking = asyncio.create_task(held.line.talk())
        extra = asyncio.create_task(meanwhile(held.line)) if meanwhile else None
        started = loop.time()
        held.reason = await held.turns.run()
        held.lasted_s = loop.time() - started
        await asyncio.sleep(0.1)
        held.close_code = link.client.close_code
        talking.cancel()
        if extra:
            extra.cancel()
        return held

    return virtual.run(main())


def spoken(held: Held, role: str) -> list[str]:
    return [hook["transcript"] for hook in held.hooks if hook["type"] == "transcript" and hook["role"] == role]


# ---- conversations


def test_the_techflow_call_is_held_from_greeting_to_goodbye() -> None:
    held = hold(script.TECHFLOW)
    assert held.reason == "assistant-ended-call"
    assert spoken(held, "user") == [CLIPS[name].text for name in ("cannot_log_in", "already_tried", "email_is_alex", "thanks_goodbye")]
    heard = [(final.clip_name, final.complete) for final in held.line.heard]
    assert heard == [("greeting", True), ("reset_steps", False), ("ask_email", True), ("account_locked", True), ("goodbye", True)]
    [tool] = [hook for hook in held.hooks if hook["type"] == "tool-calls"]
    assert tool["toolCallList"][0]["function"] == {"name": "get_user_account", "arguments": {"email": "alex@example.com"}}
    assert held.line.caller.done
    assert held.close_code == 1000


def test_the_agent_speaks_half_a_second_after_connect_and_waits_its_turn() -> None:
    held = hold(script.PLAIN)
    first = held.evidence.chunks[0][0] - held.evidence.entries[0].at
    assert first == pytest.approx(0.55, abs=0.06)
    question_ended = held.evidence.understood[0].at
    answer = min(at for at, _ in held.evidence.chunks if at > question_ended)
    assert answer - question_ended == pytest.approx(0.4, abs=0.06)


def test_audio_comes_in_the_measured_sizes_in_real_time_and_never_between_turns() -> None:
    held = hold(script.PLAIN)
    assert {size for _, size in held.evidence.chunks} <= set(CHUNKS)
    assert 160 not in CHUNKS
    gaps = [later - at for (at, _), (later, _) in itertools.pairwise(held.evidence.chunks)]
    inside = [gap for gap in gaps if gap < 0.3]
    assert max(inside) <= 0.1035
    assert min(inside) < 0.03
    assert statistics.median(inside) == pytest.approx(0.048, abs=0.006)
    greeting = [size for at, size in held.evidence.chunks if at < held.evidence.chunks[0][0] + CLIPS["greeting"].ms / 1000]
    assert sum(greeting) == pytest.approx(len(CLIPS["greeting"].ulaw), abs=800)
    assert bytes(held.evidence.downlink[: len(CLIPS["greeting"].ulaw)]) == CLIPS["greeting"].ulaw
    assert max(gaps) > 1.0


def test_an_interruption_is_told_at_once_then_confirmed_and_no_more_audio_comes() -> None:
    held = hold(script.TECHFLOW)
    out = [entry for entry in held.evidence.entries if entry.way == "out"]
    confirmed = next(entry for entry in out if entry.kind == "user-interrupted")
    noticed = next(
        entry for entry in reversed(out[: out.index(confirmed)]) if entry.kind == "speech-update" and entry.detail["role"] == "user"
    )
    assert 0.1 <= confirmed.at - noticed.at <= 0.2
    stopped = out[out.index(confirmed) + 1]
    assert (stopped.kind, stopped.detail["role"], stopped.detail["status"]) == ("speech-update", "assistant", "stopped")
    assert stopped.at == confirmed.at
    assert min(at for at, _ in held.evidence.chunks if at > confirmed.at) - confirmed.at >= 1.0
    reset = next(text for text in spoken(held, "assistant") if text.startswith("No problem."))
    assert reset != CLIPS["reset_steps"].text
    assert CLIPS["reset_steps"].text.startswith(reset)


def test_after_an_interruption_the_agent_holds_back_as_long_as_it_was_told() -> None:
    held = hold(script.TECHFLOW, assistant=ASSISTANT | {"stopSpeakingPlan": {"backoffSeconds": 5}})
    confirmed = next(entry.at for entry in held.evidence.entries if entry.kind == "user-interrupted")
    assert min(at for at, _ in held.evidence.chunks if at > confirmed) - confirmed == pytest.approx(5.0, abs=0.06)


def test_an_agent_about_to_answer_waits_while_the_caller_speaks() -> None:
    async def talkative(line: PhoneLine) -> None:
        await asyncio.sleep(6)
        line.say(CLIPS["ask_hours"].ulaw + sound.silence(500) + CLIPS["mm_hm"].ulaw)

    held = hold(script.PLAIN, steps=(), meanwhile=talkative, assistant=ASSISTANT | {"maxDurationSeconds": 20})
    question, murmur = held.evidence.understood
    answer = min(at for at, _ in held.evidence.chunks if at > question.at)
    assert answer >= murmur.at
    assert held.turns.interruptions == 0


def test_partial_words_reach_the_socket_before_the_whole_line() -> None:
    held = hold(script.TECHFLOW)
    lines = [text for text in held.line.texts if text["type"] == "transcript" and text["role"] == "user"]
    tried = [text["transcript"] for text in lines if text["transcript"].startswith("I ")]
    assert "I already" in tried[:-1]
    assert tried[-1] == "I already tried that"
    assert [text["transcriptType"] for text in lines if text["transcript"] == "I already tried that"] == ["final"]


def test_three_interruptions_are_three_flushes() -> None:
    held = hold(script.THREE_BARGE_INS)
    assert held.turns.interruptions == 3
    assert held.reason == "assistant-ended-call"


def test_a_protected_greeting_is_spoken_to_its_end() -> None:
    steps = (Step(Start(1.5), Say("already_tried")),)
    protected = hold(script.PLAIN, assistant=ASSISTANT | {"firstMessageInterruptionsEnabled": False, "maxDurationSeconds": 12}, steps=steps)
    assert protected.turns.interruptions == 0
    assert (protected.line.heard[0].clip_name, protected.line.heard[0].complete) == ("greeting", True)
    open_to_it = hold(script.PLAIN, assistant=ASSISTANT | {"maxDurationSeconds": 12}, steps=steps)
    assert open_to_it.turns.interruptions == 1
    assert not open_to_it.line.heard[0].complete


def test_words_can_be_asked_for_before_an_interruption_counts() -> None:
    by_voice = hold(script.TECHFLOW)
    by_words = hold(script.TECHFLOW, assistant=ASSISTANT | {"stopSpeakingPlan": {"numWords": 3}})

    def overlap_s(held: Held) -> float:
        confirmed = next(entry.at for entry in held.evidence.entries if entry.kind == "user-interrupted")
        return confirmed - held.evidence.understood[1].started_at

    assert overlap_s(by_voice) < 0.35 < 0.6 < overlap_s(by_words)


@pytest.mark.parametrize("result", ["The account service did not answer.", "", None])
def test_the_agent_answers_from_the_tools_result_and_not_from_the_script(result: str | None) -> None:
    steps = (*script.TECHFLOW.caller[:3], Step(Heard("tool_failed"), Say("thanks_goodbye")))
    held = hold(script.TECHFLOW, steps=steps, result=result)
    assert CLIPS["tool_failed"].text in spoken(held, "assistant")
    assert CLIPS["account_locked"].text not in spoken(held, "assistant")


def test_a_tool_the_assistant_does_not_have_is_not_called() -> None:
    toolless = ASSISTANT | {"model": {"provider": "openai", "model": "gpt-4.1"}, "maxDurationSeconds": 40}
    held = hold(script.TECHFLOW, assistant=toolless)
    assert [hook for hook in held.hooks if hook["type"] == "tool-calls"] == []
    assert "no-such-tool" in held.evidence.kinds("trouble")


def test_a_dead_uplink_leaves_the_agent_alone_with_its_greeting() -> None:
    held = hold(script.TECHFLOW, faults=Faults(deaf=True), assistant=ASSISTANT | {"maxDurationSeconds": 30})
    assert held.reason == "exceeded-max-duration"
    assert spoken(held, "user") == []
    assert spoken(held, "assistant") == [CLIPS["greeting"].text]


def test_swapped_directions_are_not_understood() -> None:
    """The agent's own voice comes back on the uplink instead of the caller's."""

    async def echo(line: PhoneLine) -> None:
        line.say(CLIPS["reset_steps"].ulaw)

    held = hold(script.TECHFLOW, steps=(), meanwhile=echo, assistant=ASSISTANT | {"maxDurationSeconds": 40})
    assert spoken(held, "user") == []
    assert {final.clip_name for final in held.evidence.understood} == {None}


def test_silence_ends_a_call_only_when_the_assistant_says_so() -> None:
    held = hold(script.TECHFLOW, steps=(), assistant=ASSISTANT | {"silenceTimeoutSeconds": 10})
    assert held.reason == "silence-timed-out"
    assert held.lasted_s == pytest.approx(0.55 + CLIPS["greeting"].ms / 1000 + 10 + 1, abs=0.5)


def test_an_agent_that_waits_for_the_caller_says_nothing_first() -> None:
    steps = (Step(Start(2.0), Say("ask_hours")), Step(Heard("opening_hours"), Say("no_thanks")))
    held = hold(script.PLAIN, assistant=ASSISTANT | {"firstMessageMode": "assistant-waits-for-user"}, steps=steps)
    assert [final.clip_name for final in held.line.heard] == ["opening_hours", "goodbye"]


def test_control_messages_speak_mute_and_end() -> None:
    async def supervisor(line: PhoneLine) -> None:
        await asyncio.sleep(6)
        line.client.send(json.dumps({"type": "control", "control": "mute-assistant"}))
        line.client.send(json.dumps({"type": "say", "content": CLIPS["say_again"].text}))
        await asyncio.sleep(6)
        line.client.send(json.dumps({"type": "control", "control": "unmute-assistant"}))
        line.client.send(json.dumps({"type": "say", "content": CLIPS["one_moment"].text, "endCallAfterSpoken": True}))
        await asyncio.sleep(60)

    held = hold(script.TECHFLOW, steps=(), meanwhile=supervisor)
    assert held.reason == "assistant-ended-call-after-message-spoken"
    assert [final.clip_name for final in held.line.heard] == ["greeting", "one_moment"]


def test_an_end_call_message_ends_the_call_and_the_report_follows_a_second_later() -> None:
    async def bridge(line: PhoneLine) -> None:
        await asyncio.sleep(2)
        line.client.send(json.dumps({"type": "end-call"}))

    held = hold(script.TECHFLOW, meanwhile=bridge)
    assert held.reason == "customer-ended-call"
    assert held.line.texts[-1] == {"type": "status-update", "status": "ended", "endedReason": "customer-ended-call"}
    hooks = [entry for entry in held.evidence.entries if entry.way == "hook"]
    assert hooks[-1].kind == "end-of-call-report"
    assert hooks[-1].at - hooks[-2].at == pytest.approx(1.0, abs=0.05)
    assert held.lasted_s == pytest.approx(3.1, abs=0.1)


@pytest.mark.parametrize("text", ['{"type": "ping"}', "not json", '{"type": "say"}', "[]"])
def test_an_unknown_text_closes_the_socket(text: str) -> None:
    async def wrong(line: PhoneLine) -> None:
        await asyncio.sleep(1)
        line.client.send(text)

    held = hold(script.TECHFLOW, meanwhile=wrong)
    assert held.close_code == 1005
    assert "unknown-text" in held.evidence.kinds("trouble")


def test_a_broken_socket_mid_call_is_a_fault_of_the_vendor() -> None:
    held = hold(script.TECHFLOW, faults=Faults(close_after_s=3.0, close_code=1011))
    assert held.close_code == 1011
    assert held.reason.startswith("call.in-progress.error-vapifault")


def test_a_mute_agent_tells_everything_and_says_nothing() -> None:
    held = hold(script.TECHFLOW, faults=Faults(mute=True), assistant=ASSISTANT | {"maxDurationSeconds": 20})
    assert held.evidence.downlink == b""
    assert spoken(held, "assistant") == [CLIPS["greeting"].text]


def test_only_the_messages_the_assistant_asked_for_are_sent() -> None:
    held = hold(script.PLAIN, assistant=ASSISTANT | {"clientMessages": ["user-interrupted"], "serverMessages": []})
    assert {text["type"] for text in held.line.texts} == {"status-update"}
    assert held.hooks == []


def test_the_same_seed_gives_the_same_call() -> None:
    first, second = hold(script.PLAIN), hold(script.PLAIN)
    assert first.evidence.chunks == second.evidence.chunks
    assert first.line.texts == second.line.texts


def test_ten_minutes_pass_in_a_moment() -> None:
    started = time.process_time()
    held = hold(script.TEN_MINUTES, assistant=ASSISTANT | {"maxDurationSeconds": 1800})
    assert held.reason == "assistant-ended-call"
    assert held.lasted_s > 600
    assert len(held.evidence.uplink) > 600 * 8000
    assert time.process_time() - started < 8


# ---- the script


def test_the_agent_asks_twice_and_then_no_more() -> None:
    agent = Agent(script.TECHFLOW)
    unknown = Final(None, "", 1.0, 0.0, 0.9, 0.0)
    assert [agent.answer(unknown) for _ in range(3)] == [(Speak("say_again"),), (Speak("say_again"),), ()]


def test_answers_to_the_same_words_are_used_in_order() -> None:
    scenario = Scenario("two", (), answers={"ask_hours": ((Speak("opening_hours"),), (Speak("goodbye"), End()))})
    agent = Agent(scenario)
    heard = Final("ask_hours", CLIPS["ask_hours"].text, 1.0, 0.0, 0.9, 1.0)
    assert [agent.answer(heard) for _ in range(3)] == [(Speak("opening_hours"),), (Speak("goodbye"), End()), (Speak("goodbye"), End())]


def test_a_caller_waits_for_each_moment_in_turn() -> None:
    caller = Caller((Step(Start(1.0), Press("1")), Step(Heard("greeting", then_s=0.5), Say("ask_hours"))))
    caller.connected(10.0)
    assert caller.deeds(10.9) == []
    assert caller.deeds(11.0) == [Press("1")]
    assert caller.next_deadline() is None
    caller.heard(Final("goodbye", "", 12.0, 11.0, 11.9, 1.0))
    assert caller.next_deadline() is None
    caller.heard(Final("greeting", "", 15.0, 12.0, 14.7, 1.0))
    assert caller.next_deadline() == pytest.approx(15.2)
    assert caller.deeds(15.2) == [Say("ask_hours")]
    assert caller.done


# ---- over the network


class House:
    """Our side of Vapi: takes the webhooks and answers tool calls from a real customer database."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Message]] = []
        self.secrets: list[str | None] = []
        self.fail_first: set[str] = set()
        self.url = ""
        self._crm = ""

    async def hook(self, request: web.Request) -> web.Response:
        body = await request.json()
        message = body["message"]
        self.secrets.append(request.headers.get("X-Vapi-Secret"))
        if message["type"] in self.fail_first:
            self.fail_first.remove(message["type"])
            return web.Response(status=500)
        self.got.append((message["type"], message))
        if message["type"] != "tool-calls":
            return web.Response()
        call = message["toolCallList"][0]
        async with aiohttp.ClientSession() as http, http.post(self._crm, json=call["function"]["arguments"]) as answer:
            result = await answer.text()
        return web.json_response({"results": [{"toolCallId": call["id"], "name": call["function"]["name"], "result": result}]})


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    ours = House()
    app = web.Application()
    app.add_routes([web.post("/webhook/vapi", ours.hook), *crm.routes()])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    ours.url, ours._crm = f"{base}/webhook/vapi", f"{base}/crm/get_user_account"
    yield ours
    await runner.cleanup()


@asynccontextmanager
async def client(vapi: VapiSandbox, key: str = KEY) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(vapi.base_url, headers={"Authorization": f"Bearer {key}"}) as session:
        yield session


async def create(http: aiohttp.ClientSession, body: Message = CALL) -> Message:
    async with http.post("/call", json=body) as answer:
        assert answer.status == 201, await answer.text()
        made: Message = await answer.json()
        return made


async def test_a_short_call_over_real_sockets_is_told_to_our_server() -> None:
    short = Scenario("short", (), opening=(Speak("one_moment"), script.ACCOUNT, Speak("goodbye"), End()))
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
        assert CLIPS["account_locked"].ulaw in audio
        assert all("message" not in text for text in texts)
        kinds = [kind for kind, _ in ours.got]
        assert kinds.count("end-of-call-report") == 1
        assert [posted.status for posted in vapi.calls[made["id"]].posted if posted.kind == "end-of-call-report"] == [500, 200]
        assert set(ours.secrets) == {"s3cret"}
        final_report = next(message for kind, message in ours.got if kind == "end-of-call-report")
        assert final_report["call"]["id"] == made["id"]
        assert final_report["artifact"]["transcript"].startswith("AI: One moment, please.\n")
        assert final_report["durationMs"] > 8000
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


async def test_faults_refuse_and_the_line_limit_holds() -> None:
    async with VapiSandbox(faults=Faults(create_status=503, create_delay_s=0.0), concurrency_limit=1) as vapi, client(vapi) as http:
        async with http.post("/call", json=CALL) as answer:
            assert answer.status == 503
        vapi.faults.create_status = None
        await create(http)
        async with http.post("/call", json=CALL) as answer:
            assert (await answer.json())["message"] == ["Over Concurrency Limit"]


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
