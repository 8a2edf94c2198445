"""One phone call between two sockets: moves frames, performs what the core decides, decides nothing itself.

The consumer runs its own receive loop: Channels' dispatch costs a task and a thread hop per message, and an audio frame
comes every 20 ms. Where the server offers the wire itself, a message is a plain call. Everything a frame causes is
synchronous; what must wait (the ledger, the channel layer, Vapi's socket, Twilio's socket) has a task of its own that lives
exactly as long as the call.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from channels.consumer import AsyncConsumer
from channels.layers import get_channel_layer

from bridge import live, twilio_media, vapi_messages, wakeups
from bridge.actions import Action, AskForAgent, AskForPerson, Leave, Noted, TellAgent, ToAgent
from bridge.agent_leg import AgentLeg
from bridge.audio import Clip, seconds
from bridge.carried import Carried
from bridge.core import BridgeCore
from bridge.errors import BadMessage
from bridge.express import express
from bridge.manners import TWILIO, Manners, OutOfPatience
from bridge.outbox import Outbox, Send
from bridge.parking import Over, Parking
from bridge.ports import WIRE, Admission, Closing, Command, Conversations, Ledger, LedgerAway, Note, Proof, Wire
from bridge.rules import Rules
from bridge.stuck import Stuck
from bridge.voice import FlushCaller, MarkCaller, ToCaller

log = logging.getLogger(__name__)

START_WITHIN_S = 5.0
ADMITTED_SOON_S = 0.6  # with the way to the ear, a caller hears something within a second
SAID_S = 0.2  # on the way to the ear
HEARTBEAT_EVERY_S = 5.0
POLICY_VIOLATION = 1008
OUR_OWN_END = (1001, 1012)  # the server that carries us closes its sockets
DUTIES_END_WITHIN_S = 1.0
CLOSE_WITHIN_S = 1.0

BROKEN = Leave("agent-lost", "bridge error")

Receive = Callable[[], Awaitable[Any]]


class Refused(Exception):
    """This is not a stream we carry; the sentence says why, for the log."""


class MediaStreamConsumer(AsyncConsumer):
    """Carries one phone call. `clock` is monotonic seconds, `wall` seconds since 1970. Without a `parking` no agent is kept."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        conversations: Conversations,
        proof: Proof,
        clips: Mapping[str, Clip],
        carried: Carried | None = None,
        parking: Parking | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._conversations = conversations
        self._proof = proof
        self._clips = clips
        self._carried = carried or Carried()
        self._parking = parking
        self._told_parked = False
        self._asked_to_wait: Noted | None = None
        self._said_until = 0.0  # then the caller has heard that
        self._clock = clock
        self._wall = wall
        self._outbox = Outbox()
        self._wakeups = wakeups.of_this_loop(clock)
        self._stuck = Stuck(Rules().stuck_after)
        self._left: asyncio.Future[Leave] = asyncio.get_running_loop().create_future()
        self._command_news = asyncio.Event()
        self._unsaid: list[Command] = []  # what is to be spoken, while no agent is there
        self._twilio = Manners(TWILIO)
        self._sound_in_time = self._twilio.pace("sound")

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        self._receive = receive
        try:
            admission, self._stream_sid = await self._prove(scope, receive, send)
            self._sound_of = express(self._stream_sid)
        except Refused as refusal:
            log.warning("stream refused", extra={"why": str(refusal)})
            with suppress(Exception):  # the peer may be gone already, which is what we want
                await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        wire: Wire | None = (scope.get("extensions") or {}).get(WIRE, {}).get("wire")
        if wire is not None:
            self._outbox = Outbox(wire.write)
        self._ref = admission.ref
        since = {"opened_at": self._started_at, "said_until": self._said_until}
        self._core = BridgeCore(_rules_of(admission), clips=self._clips, now=self._clock(), **since, stream=admission.ref.epoch)
        self._relays_caller = self._core.relays_caller
        self._sleeper = wakeups.Sleeper(self._core.gap, self._tick)
        self._agent = AgentLeg(
            admission,
            ledger=self._ledger,
            conversations=self._conversations,
            parking=self._parking,
            core=self._core,
            outbox=self._outbox,
            do=self._do,
            play=self._play,
            clock=self._clock,
        )
        await self._carry(send, wire)

    # -- before anything is believed -----------------------------------------------------------------------------------

    async def _prove(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> tuple[Admission, str]:
        """The upgrade's signature, then the one-time token of `start`, within 5 s. Raises Refused; nothing has changed then."""
        headers = dict(scope["headers"])
        await receive()  # websocket.connect
        if not self._proof(path=scope["path"], headers=headers):
            raise Refused("the upgrade is not signed by Twilio")
        await send({"type": "websocket.accept"})
        try:
            async with asyncio.timeout(START_WITHIN_S):
                start = await self._read_start()
        except TimeoutError:
            raise Refused("no start message in time") from None
        except BadMessage as error:
            raise Refused(str(error)) from None
        try:
            admission = await self._admitted(start, send)
        except LedgerAway:
            raise Refused("the history could not be asked") from None
        if admission is None:
            raise Refused("the stream's token is not valid for its call")
        return admission, start.stream_sid

    async def _admitted(self, start: twilio_media.Start, send: Send) -> Admission | None:
        """As the history says, which may take seconds when it is busy: then the caller hears a word meanwhile. Raises LedgerAway."""
        self._started_at = self._clock()
        stream = {"call_sid": start.call_sid, "account_sid": start.account_sid, "stream_sid": start.stream_sid, "token": start.token}
        admitting = asyncio.create_task(self._ledger.admit(**stream))
        try:
            await asyncio.wait({admitting}, timeout=ADMITTED_SOON_S)
            if not admitting.done():
                await self._ask_to_wait(start.stream_sid, send)
            return await admitting
        finally:
            admitting.cancel()

    async def _ask_to_wait(self, stream_sid: str, send: Send) -> None:
        """The agent's sound follows it at Twilio: whoever is let in meanwhile hears it to its end."""
        clip = self._clips["one_moment"]
        self._asked_to_wait = Noted("clip-played", detail={"clip": "one_moment", "text": clip.text})
        with suppress(Exception):  # the peer may be gone: whoever carries the call finds out, once it is let in
            await send({"type": "websocket.send", "text": twilio_media.media(stream_sid, clip.ulaw)})
            self._said_until = self._clock() + SAID_S + seconds(len(clip.ulaw))

    async def _read_start(self) -> twilio_media.Start:
        while True:
            match twilio_media.read(await self._next_text()):
                case twilio_media.Start() as start:
                    return start
                case twilio_media.Connected():
                    continue
            raise BadMessage("A message came before start.")

    async def _next_text(self) -> str:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise BadMessage("The stream ended before start.")
        return message.get("text") or ""

    # -- while the call lives ------------------------------------------------------------------------------------------

    async def _carry(self, send: Send, wire: Wire | None) -> None:
        self._note(Noted("stream-started", "twilio"))
        if self._asked_to_wait is not None:
            self._note(self._asked_to_wait)
        self._sleeper.at = self._core.next_but_gap()
        self._wakeups.add(self._sleeper)
        if wire is not None:
            wire.listen(self._hear, first=self._takes)
        duties = [self._listen_to_caller(), self._agent.talk(), self._obey(), self._hear_hints(), self._beat(), self._outbox.deliver(send)]
        tasks = [asyncio.create_task(duty) for duty in duties]
        try:
            with self._carried.during(self._hand_on):
                leave = await self._first_end(tasks)
            if self._agent.spot is None:
                await self._close(leave, send)
            else:
                await asyncio.gather(self._agent.keep(self._agent.spot, listening=tasks[1]), self._close(leave, send))
        finally:
            self._wakeups.remove(self._sleeper)
            for task in tasks:
                task.cancel()
            await self._agent.end()  # first: nothing else of a call costs money
            await asyncio.wait(tasks, timeout=DUTIES_END_WITHIN_S)

    async def _first_end(self, tasks: Sequence[asyncio.Task[None]]) -> Leave:
        """How the call was left. A duty that breaks ends the call too: Twilio then asks the resume door, nobody waits in silence."""
        waiting: set[asyncio.Future[Any]] = {self._left, *tasks}
        while not self._left.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for broken in (task for task in done if task is not self._left and task.exception()):
                log.error("a duty of the stream broke", exc_info=broken.exception(), extra={"call": self._ref.short_id})
                return BROKEN
        return self._left.result()

    async def _close(self, leave: Leave, send: Send) -> None:
        """Store why before the socket closes: Twilio may ask the resume door at once."""
        why = leave.why if self._agent.spot is None else "parked"
        try:
            await self._ledger.ended(self._ref, Closing(why=why, raw=leave.raw, figures=self._all_figures()))
            if self._agent.spot is not None:
                self._told_parked = True
                self._command_news.set()  # the door may have been asked before
        except LedgerAway:
            log.error("the end of a stream could not be stored in time", extra={"call": self._ref.short_id, "why": leave.why})
        heard = leave.why not in ("stream-lost", "stream-dead") and not self._outbox.over
        await self._outbox.drained(within_s=CLOSE_WITHIN_S if heard else 0.0)
        with suppress(Exception):  # Twilio's stop and close may cross ours, or it reads nothing any more: no failure of ours
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await send({"type": "websocket.close", "code": 1000})

    def _all_figures(self) -> dict[str, Any]:
        """The core's figures, and what was dropped on either wire."""
        figures = self._core.figures()
        manners = self._agent.manners
        bad = self._twilio.counts.total() + manners.counts.total()
        figures["audio"]["to_caller_overtaken"] = self._outbox.overtaken_bytes
        figures["audio"]["to_caller_overtaken_frames"] = self._outbox.overtaken_frames
        figures["audio"]["to_caller_held_most"] = self._outbox.held_most
        figures["audio"] |= {**self._twilio.as_figures("from_twilio"), **manners.as_figures("from_vapi"), "bad_messages": bad}
        figures["audio"] |= self._agent.figures()
        return figures

    async def _listen_to_caller(self) -> None:
        """Twilio's messages, until the socket is gone or left."""
        while not self._left.done():
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                why = "drained" if message.get("code") in OUR_OWN_END else "stream-lost"
                self._do(self._core.stream_lost(why, self._clock()))
                return
            text = message.get("text") or ""
            if not self._takes(text.encode()):
                self._hear(text)

    def _takes(self, message: bytes) -> bool:
        """Nearly every one: sound that comes in time. Nearly all of that is handed on, and nothing else changes."""
        sound = self._sound_of(message)
        if sound is None or self._left.done():
            return False
        now = self._clock()
        if not self._sound_in_time(now):
            return False
        link = self._agent.link
        if link is not None and not self._outbox.is_waiting and self._relays_caller(sound, now):
            link.send_audio(sound)
        else:
            self._do(self._core.caller_audio(sound, now))
        return True

    def _hear(self, text: str) -> None:
        """Any other one."""
        if self._left.done():
            return
        try:
            self._on_twilio(text)
        except OutOfPatience:
            self._do(self._core.stream_lost("stream-lost", self._clock(), raw="bad stream messages"))

    def _on_twilio(self, text: str) -> None:
        """One message. Raises OutOfPatience."""
        now = self._clock()
        try:
            event = twilio_media.read(text, self._stream_sid)
        except BadMessage as error:
            return self._twilio.bad(error.kind, now)
        if isinstance(event, twilio_media.Media):
            return self._do(self._core.caller_audio(event.ulaw, now)) if self._twilio.keeps_pace("sound", now) else None
        if not isinstance(event, twilio_media.Stop) and not self._twilio.keeps_pace("other", now):
            return None
        match event:
            case twilio_media.Mark(name):
                actions = self._core.mark_returned(name, now)
                if actions or self._outbox.is_waiting or self._stuck.is_looking or self._core.after_mark < self._sleeper.at:
                    self._do(actions)
            case twilio_media.Stop():
                self._do(self._core.caller_left(now))
            case twilio_media.Dtmf(digit):
                self._do(self._core.key_pressed(digit, now))
            case _:
                self._twilio.bad("said-twice", now)
        return None

    async def _obey(self) -> None:
        """Commands are rows; a hint makes us look at once, a lost hint costs 2 s. So does the news that the call is no longer ours."""
        last = 0
        with self._ledger.watching(self._ref, self._command_news.set, self._agent.heard_lately):
            while True:
                await self._command_news.wait()
                self._command_news.clear()
                with suppress(LedgerAway):
                    last = await self._carry_out_all(after=last)
                    if await self._ledger.conversation(self._ref) is None:  # over, or another epoch has taken it
                        self._do(self._core.caller_left(self._clock()))
                    if self._agent.spot is not None and self._told_parked and not await self._ledger.is_parked(self._ref):
                        self._agent.spot.end(Over.NOT_OURS)

    async def _carry_out_all(self, *, after: int) -> int:
        """The last one's number. A stream that is left does nothing any more: what waits came too late, or is the next one's."""
        if self._left.done():
            return after
        news = await self._ledger.commands(self._ref, after=after)
        waiting, self._unsaid = self._unsaid, []
        for command in [*waiting, *news]:
            if self._left.done():
                break
            after = max(after, command.id)
            if command.verb == "say" and not self._agent.is_there:
                self._unsaid.append(command)  # not done: if none comes to this stream, the row tells so to whoever has the call next
                continue
            self._carry_out(command)
            self._ledger.done(self._ref, command.id)
        return after

    def _carry_out(self, command: Command) -> None:
        now = self._clock()
        match command.verb:
            case "say":
                self._do([TellAgent(vapi_messages.say(str(command.detail.get("text", ""))))])
            case "flush":
                self._do(self._core.flush(now))
            case "hand-over" if command.detail.get("at_once"):
                self._do(self._core.hand_over_now(now))
            case "hand-over":
                self._do(self._core.leave_after_last_word("handed-over", now))
            case "end-call":
                self._do(self._core.leave_after_last_word("agent-ended", now))
            case "hang-up":
                self._do(self._core.leave_after_last_word("hung-up", now, wait_for_sentence=False))

    async def _hear_hints(self) -> None:
        """The channel layer only wakes us. Without it (or while it is away) the polls do."""
        layer = get_channel_layer()
        if layer is None:
            return
        while True:
            try:
                async for hint in live.listen(layer, self._ref.call_sid):
                    self._on_hint(hint)
            except Exception as error:  # each layer has its own errors, and none of them may end a call
                log.warning("the channel layer is away", extra={"call": self._ref.short_id, "error": type(error).__name__})
                await asyncio.sleep(1.0)

    def _on_hint(self, hint: str) -> None:
        now = self._clock()
        match hint:
            case "session":
                self._agent.look()
                self._command_news.set()
            case "commands":
                self._command_news.set()
            case "speech":
                self._do(self._core.speech_hinted(now))
            case "interrupted":
                self._do(self._core.vapi_said(vapi_messages.CallerInterrupted(), now, by="webhook"))

    async def _beat(self) -> None:
        while True:
            self._ledger.heartbeat(self._ref)
            await asyncio.sleep(HEARTBEAT_EVERY_S)

    # -- performing ----------------------------------------------------------------------------------------------------

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case ToCaller(ulaw):
                    self._outbox.put(twilio_media.media(self._stream_sid, ulaw), sound=len(ulaw))
                case MarkCaller():
                    self._outbox.put(twilio_media.mark(self._stream_sid, action.name))
                case ToAgent(ulaw):
                    if self._agent.link is not None:
                        self._agent.link.send_audio(ulaw)
                case FlushCaller():
                    self._outbox.put_clear(twilio_media.clear(self._stream_sid))
                case Noted():
                    self._note(action)
                case TellAgent(message):
                    if self._agent.link is not None:
                        self._agent.link.send_control(message)
                case AskForPerson():
                    self._ledger.person_asked(self._ref)
                case AskForAgent(raw):
                    self._agent.lose(raw)
                case Leave():
                    self._leave(action)
        if self._outbox.is_waiting or self._stuck.is_looking:
            self._look_after_outbox()
        self._sleep()

    def _play(self, sound: bytes, mark: str, behind: bytes) -> None:
        """`_do` for sound of the agent's. The deadlines it moves are seconds away: the next tick, which is not, looks at them."""
        self._outbox.put(twilio_media.media(self._stream_sid, sound), sound=len(sound))
        if mark:
            self._outbox.put(twilio_media.mark(self._stream_sid, mark))
        if behind:
            self._outbox.put(twilio_media.media(self._stream_sid, behind), sound=len(behind))
        if self._outbox.is_waiting or self._stuck.is_looking:
            self._look_after_outbox()

    def _hand_on(self) -> None:
        self._do(self._core.hand_on(self._clock()))

    def _look_after_outbox(self) -> None:
        if self._outbox.over:
            self._leave(Leave("stream-dead", "Twilio does not read"))
        if stuck_ms := self._stuck.look(self._clock(), waits=self._outbox.is_waiting, left=self._outbox.sent):
            self._do(self._core.stuck(stuck_ms))

    def _leave(self, leave: Leave) -> None:
        if self._left.done():
            return
        self._left.set_result(leave)
        self._wakeups.remove(self._sleeper)
        if leave.why == "stream-lost":
            self._agent.park(self._core.left_off)

    def _note(self, noted: Noted) -> None:
        if noted.kind == "audio-stuck":
            log.error("sound is queued and nothing is sent", extra={"call": self._ref.short_id, "ms": noted.detail["ms"]})
        if self._unsaid and noted.kind in ("vapi-connected", "re-attached"):
            self._command_news.set()
        note = Note(kind=noted.kind, source=noted.source, at=self._wall(), now=self._clock(), detail=noted.detail)
        self._ledger.note(self._ref, note)

    def _sleep(self) -> None:
        """Until the core wants to be woken."""
        self._sleeper.at = self._core.next_but_gap()
        self._wakeups.look_again(self._sleeper)

    def _tick(self) -> None:
        """A core that breaks ends the call, as a duty does."""
        try:
            self._do(self._core.tick(self._clock()))
        except Exception:
            log.exception("a call could not go on", extra={"call": self._ref.short_id})
            self._leave(BROKEN)


def _rules_of(admission: Admission) -> Rules:
    return Rules(
        instant=admission.barge_in == "instant",
        greeting_interruptible=admission.greeting_interruptible,
        agent_speaks_first=admission.agent_speaks_first,
        tell_heard=admission.tell_heard,
        zero_for_person=admission.zero_for_person,
        keypad_digits=admission.keypad_digits,
        keypad_end=admission.keypad_end,
        longest=admission.longest_s,
        goes_on=admission.goes_on,
        time_is_up=admission.time_is_up,
    )
