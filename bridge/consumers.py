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
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from channels.consumer import AsyncConsumer
from channels.layers import get_channel_layer

from bridge import live, twilio_media, vapi_messages, wakeups
from bridge.actions import Action, AskForAgent, AskForPerson, Leave, Noted, TellAgent, ToAgent
from bridge.audio import Clip, ms
from bridge.carried import Carried
from bridge.core import BridgeCore
from bridge.errors import BadMessage, VapiError
from bridge.express import express
from bridge.lately import Lately
from bridge.manners import TWILIO, VAPI, Garbage, Manners, OutOfPatience
from bridge.outbox import Outbox, Send
from bridge.parking import Over, Parking, Spot
from bridge.ports import (
    WIRE,
    Admission,
    Closing,
    Command,
    Conversation,
    Conversations,
    Ledger,
    LedgerAway,
    Link,
    LinkClosed,
    Note,
    Proof,
    Wire,
)
from bridge.rules import Rules
from bridge.stuck import Stuck
from bridge.voice import FlushCaller, MarkCaller, ToCaller

log = logging.getLogger(__name__)

START_WITHIN_S = 5.0
CLAIM_AFTER_S = 1.0
CREATED_WITHIN_S = 3.5  # a create takes 3 s at most: whoever is still at it then died
CONVERSATION_POLL_S = 0.1
HEARTBEAT_EVERY_S = 5.0
POLICY_VIOLATION = 1008
WAITS_ELSEWHERE = "its agent waited in another process"
OUR_OWN_END = (1001, 1012)  # the server that carries us closes its sockets
DUTIES_END_WITHIN_S = 1.0
CLOSE_WITHIN_S = 1.0
TWILIO_READS_WITHIN_S = 5.0  # half a minute of the agent may be waiting then, and the caller hears nothing of it

Receive = Callable[[], Awaitable[Any]]


class Refused(Exception):
    """This is not a stream we carry; the sentence says why, for the log."""


class EndedFirst(VapiError):
    """A session that was over before it was connected to."""


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
        self._spot: Spot | None = None  # where our agent waits for the next stream
        self._spot_is_told = False
        self._n = 0  # of the session whose link we have, or had
        self._lately = Lately()
        self._dropped_before = (0, 0)  # on that link, by the stream before this one: bytes and frames
        self._clock = clock
        self._wall = wall
        self._outbox = Outbox()
        self._link: Link | None = None
        self._wakeups, self._loop_time = wakeups.of_this_loop(), asyncio.get_running_loop().time
        self._slot: int | None = None  # in which we are woken
        self._wake_at = float("inf")
        self._stuck = Stuck(Rules().stuck_after)
        self._left: asyncio.Future[Leave] = asyncio.get_running_loop().create_future()
        self._conversation_news = asyncio.Event()
        self._command_news = asyncio.Event()
        self._lost: str | None = None  # how the agent was lost, until another one is asked for
        self._links_before: list[Link] = []  # of agents that were lost
        self._twilio, self._vapi = Manners(TWILIO), Manners(VAPI)
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
        rules = Rules(
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
        self._wideband = admission.wideband
        self._core = BridgeCore(rules, clips=self._clips, now=self._clock())
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
            admission = await self._ledger.admit(
                call_sid=start.call_sid, account_sid=start.account_sid, stream_sid=start.stream_sid, token=start.token
            )
        except LedgerAway:
            raise Refused("the history could not be asked") from None
        if admission is None:
            raise Refused("the stream's token is not valid for its call")
        return admission, start.stream_sid

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
        self._arm(self._core.next_deadline())
        if wire is not None:
            wire.listen(self._hear)
        duties = [self._listen_to_caller(), self._converse(), self._obey(), self._hear_hints(), self._beat(), self._outbox.deliver(send)]
        tasks = [asyncio.create_task(duty) for duty in duties]
        try:
            with self._carried.during(self._hand_on):
                leave = await self._first_end(tasks)
            if self._spot is None:
                await self._close(leave, send)
            else:
                await asyncio.gather(self._keep_agent(self._spot, listening=tasks[1]), self._close(leave, send))
        finally:
            if self._slot is not None:
                self._wakeups.forget(self._slot, self._tick)
            for task in tasks:
                task.cancel()
            await self._end_conversation()  # first: nothing else of a call costs money
            await asyncio.wait(tasks, timeout=DUTIES_END_WITHIN_S)

    async def _first_end(self, tasks: Sequence[asyncio.Task[None]]) -> Leave:
        """How the call was left. A duty that breaks ends the call too: Twilio then asks the resume door, nobody waits in silence."""
        waiting: set[asyncio.Future[Any]] = {self._left, *tasks}
        while not self._left.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for broken in (task for task in done if task is not self._left and task.exception()):
                log.error("a duty of the stream broke", exc_info=broken.exception(), extra={"call": self._ref.short_id})
                return Leave("agent-lost", "bridge error")
        return self._left.result()

    async def _close(self, leave: Leave, send: Send) -> None:
        """Store why before the socket closes: Twilio may ask the resume door at once."""
        why = leave.why if self._spot is None else "parked"
        try:
            await self._ledger.ended(self._ref, Closing(why=why, raw=leave.raw, figures=self._all_figures()))
            if self._spot is not None:
                self._spot_is_told = True
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
        bad = self._twilio.counts.total() + self._vapi.counts.total()
        figures["audio"]["to_caller_overtaken"] = self._outbox.overtaken_bytes
        figures["audio"]["to_caller_overtaken_frames"] = self._outbox.overtaken_frames
        figures["audio"]["to_caller_held_most"] = self._outbox.held_most
        figures["audio"] |= {**self._twilio.as_figures("from_twilio"), **self._vapi.as_figures("from_vapi"), "bad_messages": bad}
        links = [*self._links_before, *([self._link] if self._link else [])]
        if links:
            figures["audio"]["to_agent_dropped"] = sum(link.dropped_bytes for link in links) - self._dropped_before[0]
            figures["audio"]["to_agent_dropped_frames"] = sum(link.dropped_frames for link in links) - self._dropped_before[1]
        return figures

    async def _end_conversation(self) -> None:
        if self._link is not None:
            self._link.send_control(vapi_messages.END_CALL)
            await self._link.close()

    async def _keep_agent(self, spot: Spot, *, listening: asyncio.Task[None]) -> None:
        """Until the next stream takes our agent up, or its wait is over (`bridge.parking`)."""
        over = await spot.wait()
        if over is Over.TAKEN:
            self._link = None
            listening.cancel()
            await asyncio.wait({listening})
            spot.let_go.set()
            return
        log.info("an agent waits no more", extra={"call": self._ref.short_id, "why": over.value})
        await self._end_conversation()
        with suppress(LedgerAway):  # the stream that comes asks for another one by itself
            await self._ledger.given_up(self._ref)

    async def _listen_to_caller(self) -> None:
        """Twilio's messages, until the socket is gone or left."""
        while not self._left.done():
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                why = "drained" if message.get("code") in OUR_OWN_END else "stream-lost"
                self._do(self._core.stream_lost(why, self._clock()))
                return
            self._hear(message.get("text") or "")

    def _hear(self, text: str) -> None:
        if self._left.done():
            return
        try:
            sound = self._sound_of(text)
            if sound is None:
                self._on_twilio(text)
                return
            now = self._clock()
            if not self._sound_in_time(now):
                self._twilio.bad("flood", now)
            elif self._link is not None and not self._outbox.is_waiting and self._core.relays_caller(len(sound), now):
                self._link.send_audio(sound)  # nearly all of it is handed on, and nothing else changes
            else:
                self._do(self._core.caller_audio(sound, now))
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
                self._do(self._core.mark_returned(name, now))
            case twilio_media.Stop():
                self._do(self._core.caller_left(now))
            case twilio_media.Dtmf(digit):
                self._do(self._core.key_pressed(digit, now))
            case _:
                self._twilio.bad("said-twice", now)
        return None

    async def _converse(self) -> None:
        """One agent after the other, as long as there is one for this stream. The first may wait here since the stream before."""
        parked = self._parking.take(self._ref.call_sid) if self._parking is not None else None
        while await (self._talk_with_agent() if parked is None else self._take_up(parked)):
            parked = None
            raw, self._lost = self._lost, None
            if raw is None:  # the core is leaving: nobody is missed
                return
            if self._link is not None:
                self._links_before.append(self._link)
                self._link = None
            if not await self._another_agent(raw):
                self._do(self._core.no_other_agent(self._clock(), raw=raw))
                return

    async def _take_up(self, spot: Spot) -> bool:
        """As `_talk_with_agent`, with the agent that was parked here."""
        self._link, self._n, self._lately = spot.link, spot.n, spot.lately
        self._dropped_before = spot.link.dropped_bytes, spot.link.dropped_frames
        await spot.let_go.wait()
        try:
            is_ours = await self._ledger.taken_up(self._ref)
        except LedgerAway:  # then nobody else could be told so either
            is_ours = True
        if not is_ours:
            await self._end_conversation()
            self._link, self._dropped_before = None, (0, 0)
            return await self._talk_with_agent()
        left, since = spot.left_off, spot.meanwhile
        detail = {"n": spot.n, "gap_ms": spot.waited_ms, "kept_ms": ms(len(left.rest) + since.sound_bytes)}
        if since.dropped_bytes:
            detail["dropped_ms"] = ms(since.dropped_bytes)
        self._note(Noted("re-attached", "bridge", detail))
        self._do(self._core.take_up(left, self._clock()))
        return await self._listen_to_agent(spot.link, first=since)

    async def _talk_with_agent(self) -> bool:
        """Find the call's Vapi session, connect, and carry what it says until it is gone. False when the stream is done with agents."""
        try:
            conversation = await self._await_conversation()
        except EndedFirst as error:
            self._do(self._core.agent_lost(self._clock(), raw=str(error)))
            return True
        except VapiError as error:
            self._do(self._core.no_agent(self._clock(), raw=str(error)))
            return False
        self._n = conversation.n
        try:
            self._link = await self._conversations.open(conversation.socket_url, wideband=self._wideband, account=conversation.account)
        except VapiError as error:
            self._do(self._core.agent_lost(self._clock(), raw=str(error)))
            return True
        self._note(Noted("vapi-connected", "bridge", {"n": conversation.n}))
        self._do(self._core.agent_connected(self._clock()))
        return await self._listen_to_agent(self._link)

    async def _listen_to_agent(self, link: Link, *, first: Iterable[bytes | str | Garbage] = ()) -> bool:
        try:
            for message in first:
                self._hear_agent(message)
            while True:
                await link.carry(self._hear_agent)
                if not await self._outbox.room(within_s=TWILIO_READS_WITHIN_S):
                    self._leave(Leave("stream-dead", "Twilio does not read"))
                    return False
        except LinkClosed as closed:
            if self._spot is not None:
                self._spot.agent_gone()
                return False
            if self._lost is None:
                self._do(self._core.agent_lost(self._clock(), raw=f"socket closed with {closed.code}"))
        except OutOfPatience:
            self._do(self._core.agent_lost(self._clock(), raw="bad messages on Vapi's socket"))
            await self._end_conversation()
        return True

    async def _another_agent(self, raw: str) -> bool:
        try:
            return await self._ledger.resume(self._ref, raw=raw, n=self._n, said=self._lately)
        except LedgerAway:
            return False

    def _hear_agent(self, message: bytes | str | Garbage) -> bool:
        """One message, and whether Twilio takes more. Raises OutOfPatience."""
        if self._spot is not None:
            return self._spot.hear(message)
        if isinstance(message, bytes):
            self._do(self._core.agent_audio(message, self._clock()))
        else:
            self._on_vapi(message, self._clock())
        return not self._outbox.full

    def _on_vapi(self, message: str | Garbage, now: float) -> None:
        """One message that is no sound. Raises OutOfPatience."""
        if isinstance(message, Garbage):
            return self._vapi.bad(message.kind, now)
        if not self._vapi.keeps_pace("text", now):
            return None
        try:
            said = vapi_messages.read(message)
        except BadMessage as error:
            return self._vapi.bad(error.kind, now)
        if isinstance(said, vapi_messages.Other):  # a new type of message is no bad message
            self._vapi.ignored += 1
            return None
        if isinstance(said, vapi_messages.FinalHeard):
            self._lately.add(said.role, said.text)
        return self._do(self._core.vapi_said(said, now))

    async def _await_conversation(self) -> Conversation:
        """The live session; asked for again at every hint and every 100 ms. Raises VapiError when there will be none."""
        opened, claimed = self._clock(), -1
        being_made, since = -1, 0.0
        while True:
            self._conversation_news.clear()
            with suppress(LedgerAway):
                conversation = await self._ledger.conversation(self._ref)
                if conversation is None or conversation.state == "failed":
                    raise VapiError("There is no Vapi session for this call.")
                if conversation.state == "ended":
                    raise EndedFirst("Vapi ended the call before it was heard.")
                if conversation.state == "live":
                    return conversation
                if conversation.state == "parked" and not await self._ledger.resume(self._ref, raw=WAITS_ELSEWHERE, n=conversation.n):
                    raise EndedFirst(WAITS_ELSEWHERE)
                if conversation.state == "asked" and claimed != conversation.n and self._clock() - opened >= CLAIM_AFTER_S:
                    claimed = conversation.n
                    await self._ledger.claim(self._ref, conversation.n)
                if conversation.state == "claimed" and being_made != conversation.n:
                    being_made, since = conversation.n, self._clock()
                elif conversation.state == "claimed" and self._clock() - since >= CREATED_WITHIN_S:
                    since = float("inf")
                    await self._ledger.claim(self._ref, conversation.n, from_another=True)
                    self._do(self._core.agent_asked_anew(self._clock()))
            with suppress(TimeoutError):
                async with asyncio.timeout(CONVERSATION_POLL_S):
                    await self._conversation_news.wait()

    async def _obey(self) -> None:
        """Commands are rows; a hint makes us look at once, a lost hint costs 2 s. So does the news that the call is no longer ours."""
        last = 0
        with self._ledger.watching(self._ref, self._command_news.set):
            while True:
                await self._command_news.wait()
                self._command_news.clear()
                with suppress(LedgerAway):
                    for command in await self._ledger.commands(self._ref, after=last):
                        last = command.id
                        self._carry_out(command)
                        self._ledger.done(self._ref, command.id)
                    if await self._ledger.conversation(self._ref) is None:  # over, or another epoch has taken it
                        self._do(self._core.caller_left(self._clock()))
                    if self._spot is not None and self._spot_is_told and not await self._ledger.is_parked(self._ref):
                        self._spot.end(Over.NOT_OURS)

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
                self._conversation_news.set()
                self._command_news.set()
            case "commands":
                self._command_news.set()
            case "speech":
                self._do(self._core.vapi_said(vapi_messages.CallerSpoke(), now))
            case "interrupted":
                self._do(self._core.vapi_said(vapi_messages.CallerInterrupted(), now))

    async def _beat(self) -> None:
        while True:
            self._ledger.heartbeat(self._ref)
            await asyncio.sleep(HEARTBEAT_EVERY_S)

    # -- performing ----------------------------------------------------------------------------------------------------

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case ToCaller():
                    self._outbox.put(twilio_media.media(self._stream_sid, action.ulaw), sound=len(action.ulaw))
                case MarkCaller():
                    self._outbox.put(twilio_media.mark(self._stream_sid, action.name))
                case ToAgent(ulaw):
                    if self._link is not None:
                        self._link.send_audio(ulaw)
                case FlushCaller():
                    self._outbox.put_clear(twilio_media.clear(self._stream_sid))
                case Noted():
                    self._note(action)
                case TellAgent(message):
                    if self._link is not None:
                        self._link.send_control(message)
                case AskForPerson():
                    self._ledger.person_asked(self._ref)
                case AskForAgent(raw):
                    self._lost = raw
                    if self._link is not None:  # it may be there and say nothing
                        self._link.send_control(vapi_messages.END_CALL)
                        self._link.drop()
                case Leave():
                    self._leave(action)
        if self._outbox.is_waiting or self._stuck.is_looking:
            self._look_after_outbox()
        self._arm(self._core.next_deadline())

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
        if leave.why == "stream-lost" and self._parking is not None and self._link is not None and self._core.left_off is not None:
            sid, left_off = self._ref.call_sid, self._core.left_off
            self._spot = self._parking.park(call_sid=sid, n=self._n, link=self._link, left_off=left_off, lately=self._lately)

    def _note(self, noted: Noted) -> None:
        if noted.kind == "audio-stuck":
            log.error("sound is queued and nothing is sent", extra={"call": self._ref.short_id, "ms": noted.detail["ms"]})
        note = Note(kind=noted.kind, source=noted.source, at=self._wall(), now=self._clock(), detail=noted.detail)
        self._ledger.note(self._ref, note)

    def _arm(self, at: float | None) -> None:
        """Be woken when the core wants it, moved only when that is earlier; a late wake-up just finds nothing due."""
        if at is None or at >= self._wake_at or self._left.done():
            return
        if self._slot is not None:
            self._wakeups.forget(self._slot, self._tick)
        self._wake_at = at
        self._slot = self._wakeups.at(self._loop_time() + at - self._clock(), self._tick)

    def _tick(self) -> None:
        """Most of the time what we were to wake for has been put off: a frame comes every 20 ms."""
        self._slot, self._wake_at = None, float("inf")
        now, at = self._clock(), self._core.next_deadline()
        if at is not None and at <= now:
            self._do(self._core.tick(now))
        else:
            self._arm(at)
