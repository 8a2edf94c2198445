"""One conversation as Vapi holds it: hears the caller, answers, stops when interrupted, calls tools, ends.

It knows no HTTP and no WebSocket. A `Pipe` is the audio socket, `post` delivers a webhook; time is the running loop's only,
so that an in-memory pipe on a virtual-time loop can carry ten minutes in a moment. What it understood comes from the ear on
the caller's audio; the script only says what to answer to that. Audio is 8 kHz mu-law, 8 bytes to the millisecond.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from bridge.sandbox import sound
from bridge.sandbox.clips import CLIPS, by_text
from bridge.sandbox.dto import CLIENT_DEFAULTS, FINAL_TRANSCRIPTS, SERVER_DEFAULTS
from bridge.sandbox.ear import Final, Partial, Recogniser, SpeechStarted, Utterance, words_heard
from bridge.sandbox.script import Agent, CallTool, End, Scenario, Speak, Turn

FIRST_AUDIO_S = 0.55  # after connect; 0.53 to 0.70 was measured on live calls
REPORT_AFTER_S = 1.0
MAX_GAP_S = 0.103
# Measured sizes of audio messages in bytes, never 160, and how often each comes: about 46 ms of audio in the mean.
CHUNKS = (170, 185, 186, 371, 372, 557, 558, 743)
CHUNK_WEIGHTS = (1, 2, 3, 5, 5, 2, 1, 1)
SILENT_UPLINK_S = 0.3  # a longer hole in the caller's audio is heard as silence
UNKNOWN_SPEECH_S = 0.3  # shorter sounds that nobody understood are noise

Message = dict[str, Any]
Post = Callable[[Message], Awaitable[Message | None]]


class Pipe(Protocol):
    """The audio socket, seen from Vapi."""

    async def send_bytes(self, data: bytes) -> None: ...

    async def send_text(self, text: str) -> None: ...

    async def receive(self) -> bytes | str | None:
        """The next message of the client; None once the socket is closed."""

    async def close(self, code: int) -> None:
        """Close with this code; 1006 breaks the connection without a word."""


@dataclass(slots=True)
class Faults:
    """Things that go wrong on purpose; may be changed while the sandbox runs."""

    create_status: int | None = None  # refuse POST /call with this status
    create_delay_s: float = 0.3
    close_after_s: float | None = None  # close the audio socket this long after connect ...
    close_code: int = 1006  # ... with this code
    mute: bool = False  # the agent makes no sound, its messages go on
    deaf: bool = False  # the caller's audio is thrown away
    swapped: bool = False  # the two directions are crossed: everybody hears themselves
    no_report: bool = False
    tool_arguments_as_text: bool = False  # as the schema says; live traffic mostly sends an object


@dataclass(frozen=True, slots=True)
class Plan:
    """What the engine needs of an assistant, with Vapi's defaults."""

    first_message: str = ""
    speaks_first: bool = True
    greeting_interruptible: bool = False
    wait_s: float = 0.4
    stop_words: int = 0
    stop_voice_s: float = 0.2
    backoff_s: float = 1.0
    max_duration_s: float = 600.0
    silence_timeout_s: float | None = None
    client_messages: frozenset[str] = frozenset(CLIENT_DEFAULTS)
    server_messages: frozenset[str] = frozenset(SERVER_DEFAULTS)
    tools: Mapping[str, Message] = field(default_factory=dict)

    @classmethod
    def of(cls, assistant: Message) -> Plan:
        """Read an assistant as the API takes it (`dto.ASSISTANT`), overrides already merged."""
        start = assistant.get("startSpeakingPlan", {})
        stop = assistant.get("stopSpeakingPlan", {})
        tools = [*assistant.get("model", {}).get("tools", []), *assistant.get("tools:append", [])]
        return cls(
            first_message=assistant.get("firstMessage", ""),
            speaks_first=assistant.get("firstMessageMode") != "assistant-waits-for-user",
            greeting_interruptible=assistant.get("firstMessageInterruptionsEnabled", False),
            wait_s=start.get("waitSeconds", 0.4),
            stop_words=stop.get("numWords", 0),
            stop_voice_s=stop.get("voiceSeconds", 0.2),
            backoff_s=stop.get("backoffSeconds", 1.0),
            max_duration_s=assistant.get("maxDurationSeconds", 600),
            silence_timeout_s=assistant.get("silenceTimeoutSeconds"),
            client_messages=frozenset(assistant.get("clientMessages", CLIENT_DEFAULTS)),
            server_messages=frozenset(assistant.get("serverMessages", SERVER_DEFAULTS)),
            tools={tool["function"]["name"]: tool for tool in tools if tool.get("type") == "function"},
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that passed, at loop time `at`. `way`: in | out (socket), hook (webhook), heard, trouble."""

    at: float
    way: str
    kind: str
    detail: Any = None


@dataclass(slots=True)
class Evidence:
    """What an outside observer at Vapi could swear to: every message with its time, and all audio both ways."""

    entries: list[Entry] = field(default_factory=list)
    uplink: bytearray = field(default_factory=bytearray)
    downlink: bytearray = field(default_factory=bytearray)
    chunks: list[tuple[float, int]] = field(default_factory=list)  # (time, bytes) of each audio message sent
    uplink_messages: int = 0
    understood: list[Final] = field(default_factory=list)

    def kinds(self, way: str) -> list[str]:
        return [entry.kind for entry in self.entries if entry.way == way]

    def details(self, way: str, kind: str) -> list[Any]:
        return [entry.detail for entry in self.entries if entry.way == way and entry.kind == kind]


@dataclass(slots=True)
class _Speech:
    """The words being spoken. `sent` counts bytes put on the wire; `stopped` ends it at once."""

    text: str
    ulaw: bytes
    turn: int
    interruptible: bool
    started_at: float
    sent: int = 0
    stopped: bool = False

    @property
    def said(self) -> str:
        ms, whole_ms = self.sent // 8, len(self.ulaw) // 8
        if ms >= whole_ms:
            return self.text
        return " ".join(self.text.split()[: words_heard(self.text, ms, of_ms=whole_ms)])


class Turns:
    """The engine of one call. `await run()` holds the whole conversation and returns Vapi's endedReason."""

    def __init__(
        self,
        *,
        pipe: Pipe,
        post: Post,
        scenario: Scenario,
        ear: Recogniser,
        plan: Plan,
        rng: random.Random,
        wall: Callable[[], float],
        evidence: Evidence,
        faults: Faults,
        on_end: Callable[[str], None] = lambda _reason: None,
        end_call_reason: str = "customer-ended-call",
    ) -> None:
        """`post` delivers {"type": …} as a webhook and returns the answer's JSON, or None. `wall` is seconds since 1970.

        `on_end` is told the endedReason once, before anybody else is.
        """
        self._pipe = pipe
        self._post = post
        self._agent = Agent(scenario)
        self._ear = ear
        self._plan = plan
        self._rng = rng
        self._wall = wall
        self._evidence = evidence
        self._faults = faults
        self._on_end = on_end
        self._end_call_reason = end_call_reason
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[str] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn_task: asyncio.Task[None] | None = None
        self._turn_no = 0
        self._agent_turn = 0
        self._speech: _Speech | None = None
        self._caller_quiet = asyncio.Event()
        self._caller_quiet.set()
        self._backoff_until = 0.0
        self._last_uplink_at = 0.0
        self._last_word_at = 0.0
        self._started_at = 0.0
        self._muted = False
        self._caller_muted = False
        self._closed = False
        self.messages: list[Message] = []
        self.started_wall = 0.0
        self.ended_wall = 0.0
        self.interruptions = 0

    # ---- the call's life

    async def run(self) -> str:
        """Hold the call until somebody ends it; the report is posted before this returns."""
        self._started_at = self._last_uplink_at = self._last_word_at = self._loop.time()
        self.started_wall = self._wall()
        timers = self._set_timers()
        listening = asyncio.create_task(self._listen())
        await self._tell("status-update", status="in-progress")
        await self._tell("assistant.started", newAssistant={})
        if self._plan.speaks_first:
            self._take_turn(self._opening(), wait_s=FIRST_AUDIO_S, interruptible=self._plan.greeting_interruptible)
        reason = await self._over
        for timer in timers:
            timer.cancel()
        self.ended_wall = self._wall()
        self._on_end(reason)
        if self._speech is not None:
            self._speech.stopped = True
        listening.cancel()
        await self._tell("status-update", status="ended", endedReason=reason)
        await self._hang_up(1000)
        for utterance in self._ear.close(self._loop.time()):
            if isinstance(utterance, Final):
                self._evidence.understood.append(utterance)
        await asyncio.sleep(REPORT_AFTER_S)
        if not self._faults.no_report:
            await self._tell("end-of-call-report", endedReason=reason)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return reason

    def end(self, reason: str) -> None:
        """End the call for this reason; the first reason stays."""
        if not self._over.done():
            self._over.set_result(reason)

    @property
    def over(self) -> bool:
        return self._over.done()

    def _set_timers(self) -> list[asyncio.TimerHandle]:
        timers = [self._loop.call_later(self._plan.max_duration_s, self.end, "exceeded-max-duration")]
        if self._faults.close_after_s is not None:
            timers.append(self._loop.call_later(self._faults.close_after_s, self._break))
        if self._plan.silence_timeout_s is not None:
            self._watch_silence(self._plan.silence_timeout_s)
        return timers

    def _watch_silence(self, timeout_s: float) -> None:
        quiet_s = 0.0 if self._speech or self._ear.voiced_ms else self._loop.time() - self._last_word_at
        if quiet_s >= timeout_s:
            self.end("silence-timed-out")
        elif not self.over:
            self._loop.call_later(max(timeout_s - quiet_s, 0.05), self._watch_silence, timeout_s)

    def _break(self) -> None:
        """The fault: the socket goes away in the middle of the call."""
        self._later(self._hang_up(self._faults.close_code))
        self.end("call.in-progress.error-vapifault-worker-died")

    async def _hang_up(self, code: int) -> None:
        if not self._closed:
            self._closed = True
            self._note("out", "close", code)
            await self._pipe.close(code)

    # ---- what the caller's side sends

    async def _listen(self) -> None:
        while True:
            message = await self._pipe.receive()
            if message is None:
                self._note("in", "close")
                self._closed = True
                self.end("customer-ended-call")
                return
            if not isinstance(message, bytes):
                await self._control_text(message)
            elif self._faults.swapped:
                await self._pipe.send_bytes(message)
            else:
                await self._hear(message)

    async def _hear(self, ulaw: bytes) -> None:
        now = self._loop.time()
        self._evidence.uplink += ulaw
        self._evidence.uplink_messages += 1
        hole_s = now - self._last_uplink_at
        self._last_uplink_at = now
        if self._caller_muted or self._faults.deaf:
            return
        if hole_s > SILENT_UPLINK_S:
            await self._understand(self._ear.hear(sound.silence(int(hole_s * 1000)), now))
        utterances = self._ear.hear(ulaw, now)
        if utterances:
            await self._understand(utterances)
        speech = self._speech
        if (
            speech is not None
            and speech.interruptible
            and self._ear.voiced_ms >= self._plan.stop_voice_s * 1000
            and not self._plan.stop_words
        ):
            await self._interrupt(speech)

    async def _understand(self, utterances: list[Utterance]) -> None:
        for utterance in utterances:
            match utterance:
                case SpeechStarted():
                    self._caller_quiet.clear()
                    await self._tell("speech-update", status="started", role="user", turn=self._agent_turn)
                case Partial(text=text):
                    await self._tell("transcript", role="user", transcriptType="partial", transcript=text)
                    speech = self._speech
                    if speech and speech.interruptible and self._plan.stop_words and len(text.split()) >= self._plan.stop_words:
                        await self._interrupt(speech)
                case Final():
                    await self._understood(utterance)

    async def _understood(self, final: Final) -> None:
        self._evidence.understood.append(final)
        self._last_word_at = self._loop.time()
        self._caller_quiet.set()
        await self._tell("speech-update", status="stopped", role="user", turn=self._agent_turn)
        if final.text:
            self._remember("user", final.text, final.ended_at - final.started_at)
            await self._tell("transcript", role="user", transcriptType="final", transcript=final.text)
            await self._tell("conversation-update", **self.conversation())
        elif final.ended_at - final.started_at < UNKNOWN_SPEECH_S:
            return
        turn = self._agent.answer(final)
        if turn:
            self._take_turn(turn, wait_s=self._plan.wait_s, interruptible=True)

    async def _interrupt(self, speech: _Speech) -> None:
        """The caller spoke long enough over the agent: stop at once and wait."""
        speech.stopped = True
        self._speech = None
        self._turn_no += 1
        self._backoff_until = self._loop.time() + self._plan.backoff_s
        self.interruptions += 1
        await self._tell("user-interrupted", turnId=f"turn_{speech.turn:04x}")
        await self._stopped(speech)

    async def _control_text(self, raw: str) -> None:
        try:
            message = json.loads(raw)
        except ValueError:
            message = None
        if not await self.control(message):
            self._note("trouble", "unknown-text", raw[:200])
            await self._hang_up(1005)
            self.end("call.in-progress.error-vapifault-transport-connected-but-call-not-active")

    async def control(self, message: object) -> bool:
        """A control message, from the socket or the control URL. False: Vapi knows no such message."""
        if not isinstance(message, dict):
            return False
        kind = message.get("type")
        self._note("in", str(kind), message)
        match message:
            case {"type": "end-call" | "hangup"}:
                self.end(self._end_call_reason)
            case {"type": "say", "content": str(words)}:
                self._say(words, message)
            case {"type": "add-message", "message": {"role": str(role), "content": str(words)}}:
                self._remember(role, words, 0.0)
            case {"type": "control", "control": "mute-assistant" | "unmute-assistant" as verb}:
                self._muted = verb.startswith("mute")
            case {"type": "control", "control": "mute-customer" | "unmute-customer" as verb}:
                self._caller_muted = verb.startswith("mute")
            case {"type": "control", "control": "say-first-message"}:
                self._take_turn(self._opening(), wait_s=0.0, interruptible=self._plan.greeting_interruptible)
            case {"type": "transfer" | "handoff" | "send-transport-message" | "append-context"}:
                self._note("trouble", "inert-on-this-transport", kind)
            case _:
                return False
        return True

    def _say(self, words: str, message: Message) -> None:
        if message.get("interruptAssistantEnabled") and self._speech is not None:
            speech, self._speech = self._speech, None
            speech.stopped = True
            self._turn_no += 1
            self._later(self._stopped(speech))
        after: Turn = (End("assistant-ended-call-after-message-spoken"),) if message.get("endCallAfterSpoken") else ()
        self._take_turn((words, *after), wait_s=0.0, interruptible=message.get("interruptionsEnabled", True))

    # ---- what the agent does

    def _opening(self) -> tuple[Any, ...]:
        """The assistant's own first message when it was recorded, else the scenario's opening."""
        return (self._plan.first_message,) if by_text(self._plan.first_message) else self._agent.opening()

    def _take_turn(self, turn: tuple[Any, ...], *, wait_s: float, interruptible: bool) -> None:
        """Start a turn after `wait_s`. A turn that is still waiting gives way; one that speaks or works is let finish."""
        self._turn_no += 1
        before = self._turn_task
        self._turn_task = self._later(self._do_turn(turn, self._turn_no, wait_s, interruptible, before))

    async def _do_turn(
        self, turn: tuple[Any, ...], number: int, wait_s: float, interruptible: bool, before: asyncio.Task[None] | None
    ) -> None:
        ready_at = max(self._loop.time() + wait_s, self._backoff_until)
        if before is not None:
            await asyncio.wait([before])
        await asyncio.sleep(ready_at - self._loop.time())
        await self._caller_quiet.wait()
        if number != self._turn_no:
            return
        self._agent_turn += 1
        for act in turn:
            match act:
                case str(words):
                    done = await self._speak(words, interruptible)
                case Speak(clip):
                    done = await self._speak(CLIPS[clip].text, interruptible)
                case CallTool():
                    done = await self._speak(CLIPS[await self._call_tool(act)].text, interruptible)
                case End(reason):
                    self.end(reason)
                    return
            if not done:
                return

    async def _speak(self, text: str, interruptible: bool) -> bool:
        """Speak to the last byte; False when the caller or the end of the call cut it off."""
        if self.over:
            return False
        clip = by_text(text)
        ulaw = clip.ulaw if clip else sound.tone(60 * len(text))
        turn_id = f"turn_{self._agent_turn:04x}"
        for word in text.split():
            await self._tell("model-output", output=f"{word} ", turnId=turn_id)
        await self._tell("voice-input", input=text)
        await self._tell("assistant.speechStarted", text=text, turn=self._agent_turn, source="model")
        await self._tell("speech-update", status="started", role="assistant", turn=self._agent_turn)
        speech = _Speech(text, ulaw, self._agent_turn, interruptible, self._loop.time())
        self._speech = speech
        await self._send_audio(speech)
        if speech.stopped:
            return False
        self._speech = None
        await self._stopped(speech)
        return True

    async def _send_audio(self, speech: _Speech) -> None:
        """About real time in the mean, in odd sizes; now and then a message is late and the next one catches up."""
        start = last = self._loop.time()
        place = 0
        while place < len(speech.ulaw):
            size = self._rng.choices(CHUNKS, CHUNK_WEIGHTS)[0]
            chunk = speech.ulaw[place : place + size].ljust(size, b"\xff")
            late_s = self._rng.uniform(0.02, 0.052) if self._rng.random() < 0.12 else 0.0
            due = min(start + place / sound.RATE + late_s, last + MAX_GAP_S)
            await asyncio.sleep(due - self._loop.time())
            if speech.stopped or self._closed:
                return
            last = self._loop.time()
            place += size
            speech.sent = place
            if not (self._muted or self._faults.mute):
                self._evidence.downlink += chunk
                self._evidence.chunks.append((last, size))
                await (self._hear(chunk) if self._faults.swapped else self._pipe.send_bytes(chunk))
        await asyncio.sleep(start + len(speech.ulaw) / sound.RATE - self._loop.time())

    async def _stopped(self, speech: _Speech) -> None:
        """The agent is silent again: say so, and what of its words were spoken."""
        self._last_word_at = self._loop.time()
        await self._tell("speech-update", status="stopped", role="assistant", turn=speech.turn)
        if speech.said:
            self._remember("bot", speech.said, self._loop.time() - speech.started_at)
            await self._tell("transcript", role="assistant", transcriptType="final", transcript=speech.said)
            await self._tell("conversation-update", **self.conversation())

    async def _call_tool(self, act: CallTool) -> str:
        """Ask our server and return the clip to answer with. A tool the assistant does not have cannot be called."""
        tool = self._plan.tools.get(act.name)
        if tool is None:
            self._note("trouble", "no-such-tool", act.name)
            return act.otherwise
        call_id = "call_" + "".join(self._rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789", k=8))
        arguments: Any = json.dumps(dict(act.arguments)) if self._faults.tool_arguments_as_text else dict(act.arguments)
        call = {"id": call_id, "type": "function", "function": {"name": act.name, "arguments": arguments}}
        message = {"type": "tool-calls", "toolCallList": [call], "toolCalls": [call], "toolWithToolCallList": [{**tool, "toolCall": call}]}
        if "tool-calls" in self._plan.client_messages:
            await self._socket_text(message)
        self._note("hook", "tool-calls", message)
        result = tool_result(await self._post(message), call_id)
        self._note("heard", "tool-result", result)
        self.messages.append(
            {"role": "tool_calls", "message": "", "time": self._ms(), "secondsFromStart": self._seconds(), "toolCalls": [call]}
        )
        self.messages.append(
            {
                "role": "tool_call_result",
                "name": act.name,
                "toolCallId": call_id,
                "result": result,
                "time": self._ms(),
                "secondsFromStart": self._seconds(),
            }
        )
        return next((clip for sign, clip in act.answers.items() if sign in result.lower()), act.otherwise)

    # ---- telling the client

    async def _tell(self, kind: str, **fields: Any) -> None:
        """Send a message wherever the assistant asked for it: bare on the socket, as a webhook to the server."""
        message = {"type": kind, **fields}
        on_socket = kind in self._plan.client_messages or (kind == "status-update" and fields["status"] == "ended")
        if on_socket:
            await self._socket_text(message)
        final = kind == "transcript" and fields["transcriptType"] == "final"
        if kind in self._plan.server_messages or (final and FINAL_TRANSCRIPTS in self._plan.server_messages):
            self._note("hook", kind, message)
            self._later(self._deliver(message))

    async def _deliver(self, message: Message) -> None:
        await self._post(message)

    async def _socket_text(self, message: Message) -> None:
        if self._closed:
            return
        self._note("out", message["type"], message)
        await self._pipe.send_text(json.dumps(message))

    def _later(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _note(self, way: str, kind: str, detail: Any = None) -> None:
        self._evidence.entries.append(Entry(self._loop.time(), way, kind, detail))

    # ---- the conversation so far

    def _ms(self) -> int:
        return int(self._wall() * 1000)

    def _seconds(self) -> float:
        return round(self._loop.time() - self._started_at, 3)

    def _remember(self, role: str, words: str, lasted_s: float) -> None:
        ended = self._ms()
        self.messages.append(
            {
                "role": role,
                "message": words,
                "time": ended - int(lasted_s * 1000),
                "endTime": ended,
                "secondsFromStart": round(self._seconds() - lasted_s, 3),
                "duration": int(lasted_s * 1000),
            }
        )

    def conversation(self) -> Message:
        """The fields of a conversation-update."""
        roles = {"bot": "assistant", "user": "user", "system": "system"}
        spoken = [{"role": roles[each["role"]], "content": each["message"]} for each in self.messages if each["role"] in roles]
        return {"messages": list(self.messages), "messagesOpenAIFormatted": spoken, "conversation": spoken}


def tool_result(answer: Message | None, call_id: str) -> str:
    """The result or error text for a tool call in a webhook's answer; "" when there is none that Vapi would read."""
    results = answer.get("results") if isinstance(answer, dict) else None
    for each in results if isinstance(results, list) else []:
        if isinstance(each, dict) and each.get("toolCallId") == call_id:
            text = each.get("result", each.get("error"))
            return text if isinstance(text, str) and "\n" not in text else ""
    return ""
