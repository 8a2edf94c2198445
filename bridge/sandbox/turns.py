"""One conversation as Vapi holds it: hears the caller, answers, stops when interrupted, calls tools, ends.

It knows no HTTP and no WebSocket. A `Pipe` is the audio socket, `post` delivers a webhook; time is the running loop's only,
so that an in-memory pipe on a virtual-time loop can carry ten minutes in a moment. What it understood comes from the ear on
the caller's audio; the script only says what to answer to that. Audio is 8 kHz mu-law, 8 bytes to the millisecond.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from bridge.sandbox import mouth, tooling
from bridge.sandbox.alignment import Alignment, Timed, even_times
from bridge.sandbox.clips import CLIPS
from bridge.sandbox.conversation import Conversation
from bridge.sandbox.ear import Final, Recogniser
from bridge.sandbox.evidence import Entry, Evidence, Message
from bridge.sandbox.faults import Faults
from bridge.sandbox.hearing import Hearing
from bridge.sandbox.mouth import CHUNKS, Speech
from bridge.sandbox.plan import Plan
from bridge.sandbox.report import Latency
from bridge.sandbox.script import Agent, CallTool, End, Recall, Scenario, Speak, Turn
from bridge.sandbox.strike import Strike
from bridge.sandbox.telling import Pipe, Post, Teller
from bridge.sandbox.tooling import tool_result

__all__ = ["CHUNKS", "Entry", "Evidence", "Faults", "Message", "Pipe", "Plan", "Post", "Turns", "tool_result"]

FIRST_AUDIO_S = 0.55  # after connect; 0.53 to 0.70 was measured on live calls
REPORT_AFTER_S = 1.0
BREATHE = 5  # messages taken in a row before everybody else gets a turn, this agent's own voice among them
WORKER_DIED = "call.in-progress.error-vapifault-worker-died"
WORKER_LEFT = "worker-shutdown"
NOT_ACTIVE = "call.in-progress.error-vapifault-transport-connected-but-call-not-active"


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
        voice: Callable[[str], bytes] = mouth.voice,
        times: Callable[[str], Sequence[Timed]] | None = None,
    ) -> None:
        """`post` delivers {"type": …} as a webhook and returns the answer's JSON, or None. `wall` is seconds since 1970.

        `on_end` is told the endedReason once, before anybody else is. `voice` makes the audio of words,
        `times` says when it speaks which; without it each word is as long as it is written.
        """
        self._pipe = pipe
        self._agent = Agent(scenario)
        self._plan = plan
        self._rng = rng
        self._wall = wall
        self._faults = faults
        self._on_end = on_end
        self._end_call_reason = end_call_reason
        self._voice = voice
        self._times = times
        self._teller = Teller(pipe=pipe, post=post, plan=plan, evidence=evidence)
        self._strike = Strike(faults, pipe=pipe, teller=self._teller, rng=rng)
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[str] = self._loop.create_future()
        self._listening: asyncio.Task[None] | None = None
        self._turn_task: asyncio.Task[None] | None = None
        self._turn_no = 0
        self._agent_turn = 0
        self._speech: Speech | None = None
        self._alignment = Alignment(())
        self._asked: Final | None = None  # what the next turn answers
        self._backoff_until = 0.0
        self._last_word_at = 0.0
        self._started_at = self._loop.time()
        self._muted = False
        self.conversation = Conversation(wall=wall, elapsed=lambda: self._loop.time() - self._started_at, prompt=plan.prompt)
        self._caller = Hearing(
            ear=ear,
            teller=self._teller,
            conversation=self.conversation,
            evidence=evidence,
            faults=faults,
            turn=lambda: self._agent_turn,
            on_words=self._interrupt_if_meant,
            on_final=self._understood,
        )
        self.started_wall = self.ended_wall = wall()
        self.interruptions = 0
        self.latencies: list[Latency] = []

    # ---- the call's life

    async def run(self) -> str:
        """Hold the call until somebody ends it; the report is posted before this returns."""
        self._started_at = self._last_word_at = self._loop.time()
        self.started_wall = self._wall()
        timers = self._set_timers()
        self._listening = asyncio.create_task(self._listen())
        await self._strike_in(0)
        if not self.over:
            await self._begin()
        reason = await self._over
        for timer in timers:
            timer.cancel()
        self._listening.cancel()
        self._last_words()
        self.ended_wall = self._wall()
        self._on_end(reason)
        await self._teller.tell("status-update", status="ended", endedReason=reason)
        await self._teller.hang_up(1000)
        await asyncio.sleep(REPORT_AFTER_S)
        if not self._faults.no_report:
            await self._teller.tell("end-of-call-report", endedReason=reason)
        await self._teller.finish()
        return reason

    async def _begin(self) -> None:
        await self._teller.tell("status-update", status="in-progress")
        await self._teller.tell("assistant.started", newAssistant={})
        if self._plan.speaks_first:
            self._take_turn(self._opening(), wait_s=FIRST_AUDIO_S, interruptible=self._plan.greeting_interruptible)

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
            timers.append(self._loop.call_later(self._faults.close_after_s, self._break_now))
        if self._plan.silence_timeout_s is not None:
            self._watch_silence(self._plan.silence_timeout_s)
        return timers

    def _watch_silence(self, timeout_s: float) -> None:
        quiet_s = 0.0 if self._speech or self._caller.voiced_ms else self._loop.time() - self._last_word_at
        if quiet_s >= timeout_s:
            self.end("silence-timed-out")
        elif not self.over:
            self._loop.call_later(max(timeout_s - quiet_s, 0.05), self._watch_silence, timeout_s)

    def _last_words(self) -> None:
        """What was being said when the line went dead: no final tells of it any more, the report does."""
        speech, self._speech = self._speech, None
        if speech is not None:
            speech.stopped = True
            if speech.said:
                self.conversation.remember("bot", speech.said, self._loop.time() - speech.started_at)
        self._caller.close()

    async def _strike_in(self, turn: int, speech: Speech | None = None) -> None:
        """The fault whose place this is strikes: of the call, only a death and a freeze are ours to carry out."""
        if not await self._strike.at(turn, speech):
            return
        if self._faults.freezes and self._listening is not None:
            self._listening.cancel()
        if self._faults.dies_with is not None:
            await self._break(self._faults.dies_with)

    def _break_now(self) -> None:
        self._teller.later(self._break(self._faults.close_code))

    async def _break(self, code: int) -> None:
        """The socket goes away in the middle of the call."""
        if self._speech is not None:
            self._speech.stopped = True
        await self._teller.hang_up(code)
        self.end(WORKER_LEFT if code in (1001, 1012) else WORKER_DIED)

    # ---- what the caller's side sends

    async def _listen(self) -> None:
        for number in itertools.count():
            if number % BREATHE == 0:  # after a silence much is there at once, and nothing is waited for
                await asyncio.sleep(0)
            message = await self._pipe.receive()
            if message is None:
                self._teller.note("in", "close")
                self._teller.closed = True
                self.end("customer-ended-call")
                return
            if not isinstance(message, bytes):
                await self._control_text(message)
            elif self._faults.swapped:
                await self._pipe.send_bytes(message)
            else:
                await self._hear(message)

    async def _hear(self, ulaw: bytes) -> None:
        await self._caller.hear(ulaw)
        if self._speech is not None and not self._plan.stop_words and self._caller.voiced_ms >= self._plan.stop_voice_s * 1000:
            await self._interrupt(self._speech)

    def _understood(self, final: Final) -> None:
        """The caller is done: whatever else was waiting to be said gives way to the answer."""
        if not final.text and self._plan.stop_words:  # an assistant that wants words takes all else for noise
            return
        self._last_word_at = self._loop.time()
        self._asked = final
        turn = self._answer(final)
        if turn:
            self._take_turn(turn, wait_s=self._plan.wait_s, interruptible=True)

    def _answer(self, final: Final) -> tuple[Any, ...]:
        """The script's answer; but an agent that waited for the caller says its fixed first words, whatever was asked."""
        fixed = self._plan.first_message
        if not self._plan.speaks_first and fixed and not self._agent_turn:
            return (fixed,)
        return self._agent.answer(final)

    async def _interrupt_if_meant(self, words: str) -> None:
        if self._speech is not None and self._plan.interrupted_by(words):
            await self._interrupt(self._speech)

    async def _interrupt(self, speech: Speech) -> None:
        """The caller spoke long enough over the agent: stop at once and wait."""
        if not speech.interruptible:
            return
        speech.stopped = True
        self._speech = None
        self._turn_no += 1
        self._backoff_until = self._loop.time() + self._plan.backoff_s
        self.interruptions += 1
        await self._teller.tell("user-interrupted", turnId=f"turn_{speech.turn:04x}")
        await self._stopped(speech)

    async def _control_text(self, raw: str) -> None:
        try:
            message = json.loads(raw)
        except ValueError:
            message = None
        if not await self.control(message):
            self._teller.note("trouble", "unknown-text", raw[:200])
            await self._teller.hang_up(1005)
            self.end(NOT_ACTIVE)

    async def control(self, message: object) -> bool:
        """A control message, from the socket or the control URL. False: Vapi knows no such message."""
        if not isinstance(message, dict):
            return False
        kind = message.get("type")
        self._teller.note("in", str(kind), message)
        match message:
            case {"type": "end-call" | "hangup"}:
                self.end(self._end_call_reason)
            case {"type": "say", "content": str(words)}:
                self._say(words, message)
            case {"type": "add-message", "message": {"role": str(role), "content": str(words)}}:
                self._told(role, words, triggers=message.get("triggerResponseEnabled", True))
                await self._teller.tell("conversation-update", **self.conversation.so_far())
            case {"type": "control", "control": "mute-assistant" | "unmute-assistant" as verb}:
                self._muted = verb.startswith("mute")
            case {"type": "control", "control": "mute-customer" | "unmute-customer" as verb}:
                self._caller.muted = verb.startswith("mute")
            case {"type": "control", "control": "say-first-message"}:
                self._take_turn(self._opening(), wait_s=0.0, interruptible=self._plan.greeting_interruptible)
            case {"type": "transfer" | "handoff" | "send-transport-message" | "append-context"}:
                self._teller.note("trouble", "inert-on-this-transport", kind)
            case _:
                return False
        return True

    def _told(self, role: str, words: str, *, triggers: bool) -> None:
        """Words for the model that nobody spoke; it may answer to them as to the caller's."""
        self.conversation.remember(role, words, 0.0)
        turn = self._agent.told(words) if triggers else ()
        if turn:
            self._take_turn(turn, wait_s=0.0, interruptible=True)

    def _say(self, words: str, message: Message) -> None:
        if message.get("interruptAssistantEnabled") and self._speech is not None:
            speech, self._speech = self._speech, None
            speech.stopped = True
            self._turn_no += 1
            self._teller.later(self._stopped(speech))
        after: Turn = (End("assistant-ended-call-after-message-spoken", silent=True),) if message.get("endCallAfterSpoken") else ()
        self._take_turn((words, *after), wait_s=0.0, interruptible=message.get("interruptionsEnabled", True))

    # ---- what the agent does

    def _opening(self) -> tuple[Any, ...]:
        """The assistant's own first message; the scenario's opening when the model is to find one."""
        fixed = self._plan.first_message
        return (fixed,) if fixed and not self._plan.mode.endswith("model-generated-message") else self._agent.opening()

    def _take_turn(self, turn: tuple[Any, ...], *, wait_s: float, interruptible: bool) -> None:
        """Start a turn after `wait_s`. A turn that is still waiting gives way; one that speaks or works is let finish."""
        self._turn_no += 1
        before = self._turn_task
        self._turn_task = self._teller.later(self._do_turn(turn, self._turn_no, wait_s, interruptible, before))

    async def _do_turn(
        self, turn: tuple[Any, ...], number: int, wait_s: float, interruptible: bool, before: asyncio.Task[None] | None
    ) -> None:
        ready_at = max(self._loop.time() + wait_s, self._backoff_until)
        if before is not None:
            await asyncio.wait([before])
        await asyncio.sleep(ready_at - self._loop.time())
        await self._caller.quiet.wait()
        if number != self._turn_no:
            return
        self._agent_turn += 1
        await self._strike_in(self._agent_turn)
        for act in turn:
            match act:
                case str(words):
                    done = await self._speak(words, interruptible)
                case Speak(clip):
                    done = await self._speak(CLIPS[clip].text, interruptible)
                case Recall(words, clip, otherwise):
                    done = await self._speak(CLIPS[clip if self._plan.remembers(words) else otherwise].text, interruptible)
                case CallTool():
                    done = await self._use_tool(act, interruptible)
                case End():
                    await self._say_goodbye(act)
                    self.end(act.reason)
                    return
            if not done:
                return

    async def _say_goodbye(self, end: End) -> None:
        words = self._plan.end_message or (CLIPS[end.clip].text if end.clip else "")
        if not end.silent:
            await self._speak(words, interruptible=False)

    async def _speak(self, text: str, interruptible: bool, source: str = "model") -> bool:
        """Speak to the last byte; False when the caller or the end of the call cut it off."""
        if self.over:
            return False
        if not text:
            return True
        tell, turn_id = self._teller.tell, f"turn_{self._agent_turn:04x}"
        for word in text.split():
            await tell("model-output", output=f"{word} ", turnId=turn_id)
        await tell("voice-input", input=text)
        await tell("assistant.speechStarted", text=text, turn=self._agent_turn, source=source)
        await tell("speech-update", status="started", role="assistant", turn=self._agent_turn)
        speech = self._begin_speech(text, interruptible, source)
        await mouth.speak(speech, send=self._send, between=self._between, faults=self._faults, rng=self._rng)
        if speech.stopped or self._teller.closed:
            return False
        self._speech = None
        await self._stopped(speech)
        if self._plan.ended_by(text):
            self.end("assistant-said-end-call-phrase")
        return not self.over

    def _begin_speech(self, text: str, interruptible: bool, source: str) -> Speech:
        ulaw = self._voice(text)
        times = self._times(text) if self._times is not None else ()
        self._speech = Speech(text, ulaw, self._agent_turn, interruptible, self._loop.time(), times, source)
        self._alignment = Alignment((times or even_times(text, len(ulaw) // 8)) if self._plan.tells_words else ())
        return self._speech

    async def _between(self, speech: Speech) -> None:
        if timing := self._alignment.upto(speech.sent // 8):
            said = {"text": speech.text, "turn": speech.turn, "source": speech.source, "timing": timing}
            await self._teller.tell("assistant.speechStarted", **said)
        if self._asked is not None and not speech.sent:
            asked, self._asked = self._asked, None
            decided_ms = round((asked.at - asked.ended_at) * 1000)
            self.latencies.append(Latency(decided_ms, round((self._loop.time() - asked.at) * 1000)))
        await self._strike_in(speech.turn, speech)

    async def _send(self, ulaw: bytes) -> None:
        if not (self._muted or self._faults.mute):
            await (self._hear(ulaw) if self._faults.swapped else self._teller.audio(ulaw))

    async def _stopped(self, speech: Speech) -> None:
        """The agent is silent again: say so, and what of its words were spoken."""
        self._last_word_at = self._loop.time()
        await self._teller.tell("speech-update", status="stopped", role="assistant", turn=speech.turn)
        if speech.said:
            self.conversation.remember("bot", speech.said, self._loop.time() - speech.started_at)
            await self._teller.tell("transcript", role="assistant", transcriptType="final", transcript=speech.said)
            await self._teller.tell("conversation-update", **self.conversation.so_far())

    async def _use_tool(self, act: CallTool, interruptible: bool) -> bool:
        """Ask our server and answer with what it said. A tool the assistant does not have cannot be called."""

        async def speak(words: str) -> bool:
            return await self._speak(words, interruptible)

        async def wait(words: str) -> bool:
            return await self._speak(words, interruptible, source="force-say")

        tool = self._plan.tools.get(act.name)
        if tool is None:
            self._teller.note("trouble", "no-such-tool", act.name)
            return await speak(CLIPS[act.otherwise].text)
        call = tooling.new_call(act, self._faults, self._rng)
        if "tool-calls" in self._plan.client_messages:
            await self._teller.text(tooling.tool_message(tool, call))
        answered = await tooling.use(tool, call, teller=self._teller, speak=wait)
        if answered is None:
            return False
        self._teller.note("heard", "tool-result", answered.result)
        self.conversation.remember_tool(call, act.name, answered.result)
        clip = next((clip for sign, clip in act.answers.items() if sign in answered.result.lower()), act.otherwise)
        return await speak(answered.says or CLIPS[clip].text)
