"""The agents of one stream, one after the other: found, listened to, lost, and kept for the next stream.

The first may wait here since the stream before (`bridge.parking`). Else its Vapi session is a row that somebody makes; who it is
does not matter, so one that nobody claims within a second is claimed here, and sooner where an agent was lost. An agent that is
lost is followed by another one as long as the ledger has one. What an agent says is a plain call, sound like words; what must
wait is the task of `talk`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from bridge import vapi_messages
from bridge.actions import Action, Leave, Noted
from bridge.audio import ms
from bridge.core import BridgeCore
from bridge.errors import BadMessage, VapiError
from bridge.lately import Lately
from bridge.manners import VAPI, Garbage, Manners, OutOfPatience
from bridge.outbox import Outbox
from bridge.parked import LeftOff
from bridge.parking import Over, Parking, Spot
from bridge.ports import Admission, Conversation, Conversations, Ledger, LedgerAway, Link, LinkClosed
from bridge.voice import NOTHING_YET

log = logging.getLogger(__name__)

CLAIM_AFTER_S = 1.0
CLAIM_SOON_AFTER_S = 0.2  # when agents are lost it is many at once, which a worker would make one after the other
CLAIM_AGAIN_AFTER_S = 1.0  # where the row still says that nobody makes it: the claim did not get into a database that many write to
# Vapi has 3 s for its answer to a create, and storing it takes moments. Whoever is still at it then died, or waits for the database:
# if that one comes back it finds its claim gone, and ends its own Vapi call. So nobody waits for it longer.
CREATED_WITHIN_S = 3.5
CONVERSATION_POLL_S = 0.1
LET_GO_WITHIN_S = 1.0  # it takes two turns of the loop; whoever kept the agent has ended if it takes so long
TWILIO_READS_WITHIN_S = 5.0  # half a minute of the agent may be waiting then, and the caller hears nothing of it
WAITS_ELSEWHERE = "its agent waited in another process"


class EndedFirst(VapiError):
    """A session that was over before it was connected to."""


class AgentLeg:
    """`link` is the socket of the agent that is there; `spot` where it waits, once the stream is lost.

    `do` performs actions, `play` gives the caller sound. Without a `parking` no agent is kept.
    """

    def __init__(
        self,
        admission: Admission,
        *,
        ledger: Ledger,
        conversations: Conversations,
        parking: Parking | None,
        core: BridgeCore,
        outbox: Outbox,
        do: Callable[[Sequence[Action]], None],
        play: Callable[[bytes, str, bytes], None],
        clock: Callable[[], float],
    ) -> None:
        self._ref, self._wideband = admission.ref, admission.wideband
        self._ledger, self._conversations, self._parking = ledger, conversations, parking
        self._core, self._outbox, self._do, self._play, self._clock = core, outbox, do, play, clock
        self.link: Link | None = None
        self.spot: Spot | None = None
        self._n = 0  # of the session whose link we have, or had, or wait for
        self._lately = Lately()
        self._lost: str | None = None  # how the agent was lost, until another one is asked for
        self._links_before: list[Link] = []  # of agents that were lost
        self._dropped_before = (0, 0)  # on the first link, by the stream before this one: bytes and frames
        self._news = asyncio.Event()
        self.manners = Manners(VAPI)

    @property
    def is_there(self) -> bool:
        """Who is told something hears it."""
        return self.link is not None and self._lost is None

    def look(self) -> None:
        """There may be news of the session."""
        self._news.set()

    def heard_lately(self) -> Lately:
        """Who said what."""
        return self._lately

    # -- one agent after the other ---------------------------------------------------------------------------------

    async def talk(self) -> None:
        """As long as there is an agent for this stream."""
        spot = self._parking.take(self._ref.call_sid) if self._parking is not None else None
        while await (self._find() if spot is None else self._take_up(spot)):
            spot = None
            raw, self._lost = self._lost, None
            if raw is None:  # the core is leaving: nobody is missed
                return
            if self.link is not None:
                self._links_before.append(self.link)
                self.link = None
            if not await self._another(raw):
                self._do(self._core.no_other_agent(self._clock(), raw=raw))
                return

    async def _find(self) -> bool:
        """The call's Vapi session: connect, and carry what it says until it is gone. False when the stream is done with agents."""
        try:
            conversation = await self._live_session()
        except EndedFirst as error:
            self._do(self._core.agent_lost(self._clock(), raw=str(error)))
            return True
        except VapiError as error:
            self._do(self._core.no_agent(self._clock(), raw=str(error)))
            return False
        try:
            self.link = await self._conversations.open(conversation.socket_url, wideband=self._wideband, account=conversation.account)
        except VapiError as error:
            self._do(self._core.agent_lost(self._clock(), raw=str(error)))
            return True
        self._do([Noted("vapi-connected", "bridge", {"n": conversation.n}), *self._core.agent_connected(self._clock())])
        return await self._listen(self.link)

    async def _take_up(self, spot: Spot) -> bool:
        """As `_find`, with the agent that was parked here."""
        self.link, self._n, self._lately = spot.link, spot.n, spot.lately
        self._dropped_before = spot.link.dropped_bytes, spot.link.dropped_frames
        if not await self._is_ours(spot):
            await self.end()
            self.link, self._dropped_before = None, (0, 0)
            return await self._find()
        left, since = spot.left_off, spot.meanwhile
        detail = {"n": spot.n, "gap_ms": spot.waited_ms, "kept_ms": ms(len(left.rest) + since.sound_bytes), **since.dropped}
        self._do([Noted("re-attached", "bridge", detail), *self._core.take_up(left, self._clock())])
        return await self._listen(spot.link, first=since)

    async def _is_ours(self, spot: Spot) -> bool:
        """Whoever kept it listens to it no more, and nobody has asked for another one."""
        try:
            async with asyncio.timeout(LET_GO_WITHIN_S):
                await spot.let_go.wait()
        except TimeoutError:
            log.error("a parked agent was not let go", extra={"call": self._ref.short_id})
            return False
        try:
            return await self._ledger.taken_up(self._ref)
        except LedgerAway:  # then nobody else could be told so either
            return True

    async def _another(self, raw: str) -> bool:
        try:
            return await self._ledger.resume(self._ref, raw=raw, n=self._n, said=self._lately)
        except LedgerAway:
            return False

    async def _live_session(self) -> Conversation:
        """Asked for again at every hint and every 100 ms. Raises VapiError when there will be none."""
        opened, claimed, claimed_at = self._clock(), -1, 0.0
        being_made, since = -1, 0.0
        while True:
            self._news.clear()
            with suppress(LedgerAway):
                conversation = await self._ledger.conversation(self._ref)
                if conversation is None or conversation.state == "failed":
                    raise VapiError("There is no Vapi session for this call.")
                self._n = conversation.n
                if conversation.state == "ended":
                    raise EndedFirst("Vapi ended the call before it was heard.")
                if conversation.state == "live":
                    return conversation
                if conversation.state == "parked" and not await self._ledger.resume(self._ref, raw=WAITS_ELSEWHERE, n=conversation.n):
                    raise EndedFirst(WAITS_ELSEWHERE)
                patience_s = CLAIM_SOON_AFTER_S if self._ref.epoch or conversation.n else CLAIM_AFTER_S
                is_new = claimed != conversation.n and self._clock() - opened >= patience_s
                is_nobodys = is_new or (claimed == conversation.n and self._clock() - claimed_at >= CLAIM_AGAIN_AFTER_S)
                if conversation.state == "asked" and is_nobodys and await self._ledger.claim(self._ref, conversation.n):
                    claimed, claimed_at = conversation.n, self._clock()
                if conversation.state == "claimed" and being_made != conversation.n:
                    being_made, since = conversation.n, self._clock()
                is_late = conversation.state == "claimed" and self._clock() - since >= CREATED_WITHIN_S
                if is_late and await self._ledger.claim(self._ref, conversation.n, from_another=True):
                    since = float("inf")
                    self._do(self._core.agent_asked_anew(self._clock()))
            with suppress(TimeoutError):
                async with asyncio.timeout(CONVERSATION_POLL_S):
                    await self._news.wait()

    # -- what it says ----------------------------------------------------------------------------------------------

    async def _listen(self, link: Link, *, first: Iterable[bytes | str | Garbage] = ()) -> bool:
        try:
            for message in first:
                self._hear(message)
            while True:
                await link.carry(self._hear, on_silence=self._hear_nothing)
                if not await self._outbox.room(within_s=TWILIO_READS_WITHIN_S):
                    self._do([Leave("stream-dead", "Twilio does not read")])
                    return False
        except LinkClosed as closed:
            if self.spot is not None:
                self.spot.agent_gone()
                return False
            if self._lost is None:
                self._do(self._core.agent_lost(self._clock(), raw=f"socket closed with {closed.code}"))
        except OutOfPatience:
            self._do(self._core.agent_lost(self._clock(), raw="bad messages on Vapi's socket"))
            await self.end()
        return True

    def _hear(self, message: bytes | str | Garbage) -> bool:
        """One message, and whether Twilio takes more. Raises OutOfPatience."""
        if self.spot is not None:
            return self.spot.hear(message)
        if isinstance(message, bytes):
            now = self._clock()
            sound = self._core.relays_agent(message, now)
            if sound is None:
                self._do(self._core.agent_audio(message, now))
            elif sound is not NOTHING_YET:
                self._play(*sound)
        else:
            self._hear_words(message, self._clock())
        return not self._outbox.full

    def _hear_nothing(self) -> None:
        """It is there, and answers nothing."""
        if self.spot is None:
            self._do(self._core.agent_unreachable(self._clock()))

    def _hear_words(self, message: str | Garbage, now: float) -> None:
        """One message that is no sound. Raises OutOfPatience."""
        if isinstance(message, Garbage):
            return self.manners.bad(message.kind, now)
        if not self.manners.keeps_pace("text", now):
            return None
        try:
            said = vapi_messages.read(message)
        except BadMessage as error:
            return self.manners.bad(error.kind, now)
        if isinstance(said, vapi_messages.Other):  # a new type of message is no bad message
            self.manners.ignored += 1
            return None
        if isinstance(said, vapi_messages.FinalHeard):
            self._lately.add(said.role, said.text)
        return self._do(self._core.vapi_said(said, now))

    # -- its end ---------------------------------------------------------------------------------------------------

    def lose(self, raw: str) -> None:
        """Another one is wanted. This one may be there and say nothing."""
        self._lost = raw
        if self.link is not None:
            self.link.send_control(vapi_messages.END_CALL)
            self.link.drop()

    async def end(self) -> None:
        if self.link is not None:
            self.link.send_control(vapi_messages.END_CALL)
            await self.link.close()

    def park(self, left_off: LeftOff | None) -> None:
        """The stream is lost, the agent need not be."""
        if self._parking is not None and self.link is not None and left_off is not None:
            sid, lately = self._ref.call_sid, self._lately
            self.spot = self._parking.park(call_sid=sid, n=self._n, link=self.link, left_off=left_off, lately=lately)

    async def keep(self, spot: Spot, *, listening: asyncio.Task[None]) -> None:
        """Until the next stream takes our agent up, or its wait is over (`bridge.parking`)."""
        over = await spot.wait()
        if over is Over.TAKEN:
            self.link = None
            listening.cancel()
            await asyncio.wait({listening})
            spot.let_go.set()
            return
        waited = spot.in_vain()
        log.info("an agent waits no more", extra={"call": self._ref.short_id, "why": over.value, **waited})
        await self.end()
        with suppress(LedgerAway):  # the stream that comes asks for another one by itself
            await self._ledger.given_up(self._ref, waited)

    def figures(self) -> dict[str, int]:
        """What was dropped on the way to them, once there was one."""
        links = [*self._links_before, *([self.link] if self.link else [])]
        if not links:
            return {}
        dropped_bytes = sum(link.dropped_bytes for link in links) - self._dropped_before[0]
        dropped_frames = sum(link.dropped_frames for link in links) - self._dropped_before[1]
        return {"to_agent_dropped": dropped_bytes, "to_agent_dropped_frames": dropped_frames}
