"""Placing the calls: row after row, many callers at once where the fault allows it, each judged once everything about it is known."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from bridge.sandbox.dial import Human
from bridge.sandbox.faults import Faults
from bridge.sandbox.media import Pipe
from bridge.sandbox.proxy import CLEAR, Proxy
from bridge.sandbox.script import TECHFLOW
from bridge.sandbox.twilio import STALLED_MS, TwilioCall
from bridge.sandbox.vapi import SandboxCall, VapiSandbox
from bridge.sandbox.web import Answer, Internet, SocketPipe, WebFailure
from supportvoice.demo import COLLEAGUE, LINE
from supportvoice.laboratory import judge, witness
from supportvoice.laboratory.ground import Ground
from supportvoice.laboratory.matrix import MID_S, Row
from supportvoice.laboratory.person import Person
from supportvoice.laboratory.strikes import MISSED, Strike

AT_ONCE = 6  # callers of one house
RING_APART_S = 0.5
APART_S = 2.2  # more than four failures in ten seconds are no longer one call's, but the account's
CALM_S = 12.0  # after a fault of the account: until the house tries it again
PATIENCE_S = 100.0  # a call takes half a minute
LEAVES_AFTER_S = 3.0  # after their first words, in the rows where the caller leaves
LOOK_S = 3.0
TRIES = 3  # of a call during which this machine stood still
ANYONE_S = 1.5
MID_WITHIN_S = 40.0
REFUSED_BY_US = ("stream-refused", 31920)  # answered, with something else than an upgrade

Tell = Callable[[str], None]


class Ways(Internet):
    """The network of one call. Every request is a connection of its own, as through a load balancer.

    `tunnel` is the way of media sockets alone, or of the first of them (`only_once`); the first `refuses_streams` of these are not opened.
    """

    def __init__(self, *, tunnel: Mapping[str, str] | None = None, only_once: bool = False, refuses_streams: int = 0) -> None:
        super().__init__(tunnel=tunnel)
        self._only_once, self._opened = only_once, 0
        self._straight = Internet()
        self.port = 0  # the media stream's, by which its carrier is found
        self._refuses = refuses_streams

    async def request(self, method: str, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        return await self._straight.request(method, url, params, {**headers, "Connection": "close"})

    async def close(self) -> None:
        await self._straight.close()
        await super().close()

    async def socket(self, url: str, headers: Mapping[str, str]) -> Pipe:
        if self._refuses:
            self._refuses -= 1
            raise WebFailure(31902, "Twilio does not connect")
        self._opened += 1
        way = self._straight.socket if self._only_once and self._opened > 1 else super().socket
        pipe = await way(url, headers)
        if isinstance(pipe, SocketPipe):
            self.port = pipe.port
        return pipe


@dataclass(slots=True)
class Placed:
    """A call of a row, from dialling to its verdicts. `struck_at` is loop time; None while no fault has reached it."""

    row: Row
    phone: TwilioCall
    ways: Ways
    healthy: str
    person: Person = field(default_factory=Person)
    answers_lost: list[judge.Span] = field(default_factory=list)  # loop time: while a fault might swallow the answer to a create
    struck_at: float | None = None
    gave_up: bool = False
    unkept: list[str] = field(default_factory=list)
    verdicts: list[judge.Verdict] = field(default_factory=list)
    noticed_s: float | None = None
    served_s: float | None = None
    first_sounds_s: tuple[float, ...] = ()
    stopped_at: list[float] = field(default_factory=list)  # the process that carried it was made to stand still
    late_sounds: tuple[str, ...] = ()  # whose doing each of those is that came too late
    documents_s: tuple[float, ...] = ()
    hand_overs: tuple[witness.HandOver, ...] = ()
    jitter_s: tuple[float, ...] = ()
    well_again_s: float | None = None  # after a burst, of which this is one call; the others have None
    rung_again: int = 0  # so many calls before this one would count as lost, had this machine not stood still

    @property
    def port(self) -> int:
        return self.ways.port

    @property
    def call_sid(self) -> str:
        return self.phone.call_sid

    @property
    def stalled(self) -> bool:
        """This machine kept its phone from ticking: what is held against the house may be the machine's doing. A dead wire does so too."""
        return self.row.wire is None and self.phone.late_ms > STALLED_MS

    def hit(self, *, stands_still: bool = False) -> None:
        if self.phone.over:
            return
        now = asyncio.get_running_loop().time()
        self.struck_at = self.struck_at or now
        self.healthy = max(self.healthy, self.row.healthy)
        if stands_still:
            self.stopped_at.append(now)
        if self.row.may_repeat_a_create:
            self.answers_lost.append((now, now + self.row.lasts_s))

    def break_stream(self) -> None:
        self.phone.break_stream()

    def held_against(self, what: str) -> None:
        self.unkept.append(what)


@dataclass(slots=True)
class Laboratory:
    """`run` plays rows and returns every call; `tell` hears of each as it is judged."""

    ground: Ground
    rng: random.Random
    tell: Tell
    at_once: int = AT_ONCE
    done: list[Placed] = field(default_factory=list)
    expected: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, rows: Sequence[Row], runs: int, *, among: Sequence[Row] = ()) -> list[Placed]:
        """`runs` injections of each id, shared by its rows; faults of single calls first and all at once, then those of the house.

        `among`: all rows that share them, when some are played elsewhere.
        """
        share = {row.name: max(math.ceil(runs / sum(each.id == row.id for each in among or rows)), row.in_a_second) for row in rows}
        witnesses = (math.ceil(share[row.name] / self.at_once) for row in rows if row.one_is_there)
        self.expected = len(self.done) + sum(share.values()) + sum(witnesses)
        single = [row for row in rows if not row.alone for _ in range(share[row.name])]
        self.rng.shuffle(single)
        await self._singles(deque(single))
        for row in rows:
            if row.alone:
                await self._until_injected(row, share[row.name])
        return self.done

    async def _until_injected(self, row: Row, left: int) -> None:
        """Batch after batch, until so many calls were hit; not for ever where nobody is."""
        in_vain = 0
        while left > 0 and in_vain < TRIES:
            size = row.in_a_second or min(left, self.at_once)
            hit = await self._batch(row, size)
            in_vain = 0 if hit else in_vain + 1
            left -= hit
            self.expected += max(0, min(size - hit, left))

    # ---- faults of single calls

    async def _singles(self, rows: deque[Row]) -> None:
        async def caller() -> None:
            while rows:
                row = rows.popleft()
                async with self._turn:
                    await asyncio.sleep(APART_S)
                await self._until_kept_time(row)

        await asyncio.gather(*(caller() for _ in range(min(self.at_once, len(rows)))))

    async def _until_kept_time(self, row: Row) -> None:
        for rung_again in range(TRIES):
            placed = await self._call(row)
            placed.rung_again = rung_again
            await self._judge([placed])
            if not (placed.verdicts and placed.stalled) or rung_again == TRIES - 1:
                break
            self.tell(f"{row.name}: this machine stood still for {placed.phone.late_ms} ms; the phone rings again")
        self._finish(placed)

    async def _call(self, row: Row) -> Placed:
        """One call with a fault of its own, from dialling to its end."""
        async with AsyncExitStack() as wires:
            wire = await wires.enter_async_context(Proxy(("127.0.0.1", self.ground.stack.port), rng=self.rng)) if row.wire else None
            placed = self._placed(row, row.faults(), wire)
            striking = asyncio.create_task(self._strike_one(placed, wire))
            await self._carried(placed)
            striking.cancel()
            await asyncio.gather(striking, return_exceptions=True)
        self._remember_strike(placed)
        return placed

    async def _strike_one(self, placed: Placed, wire: Proxy | None) -> None:
        """What befalls this call alone, in the middle of it."""
        row = placed.row
        await _said_something(placed)
        await asyncio.sleep(MID_S)
        if row.breaks_stream:
            placed.hit()
            placed.break_stream()
        if row.wire is not None and wire is not None:
            placed.hit()
            wire.weather = row.wire
            await asyncio.sleep(row.lasts_s)
            wire.weather = CLEAR

    # ---- faults of the house

    async def _batch(self, row: Row, size: int) -> int:
        """So many calls under one strike; all of them are judged. How many of them were hit."""
        placed = await self._struck(row, size)
        await self.ground.mend()
        await self._judge(placed)
        if row.in_a_second:
            placed[-1].well_again_s = witness.well_again_s([each.phone for each in placed])
        for each in placed:
            self._finish(each)
        if any(switch.startswith(("create", "socket", "line")) for switch in row.vapi) or "P1" in row.id:
            await asyncio.sleep(CALM_S)
        return sum(each.struck_at is not None for each in placed)

    async def _struck(self, row: Row, size: int) -> list[Placed]:
        placed: list[Placed] = []
        ringing: list[asyncio.Task[None]] = []

        async def ring(so_many: int = size) -> None:
            for number in range(so_many):
                await asyncio.sleep((1 / row.in_a_second if row.in_a_second else RING_APART_S) if number else 0)
                each = self._placed(row, row.faults(), None)
                placed.append(each)
                ringing.append(asyncio.create_task(self._carried(each)))

        if row.strike is None:
            await ring()
            await asyncio.gather(*ringing)
        elif row.rings_first:
            await ring()
            await self._strike(row.strike, placed, row.lasts_s, ringing)
        elif row.mid:
            await ring()
            await _said_something(placed[0])
            await asyncio.sleep(MID_S)
            await self._strike(row.strike, placed, row.lasts_s, ringing)
        else:
            if row.one_is_there:
                await ring(1)
                await _said_something(placed[0])
                await asyncio.sleep(MID_S)
            await self._strike_before(row.strike, placed, row.lasts_s, ring)
        await asyncio.gather(*ringing)
        for each in placed:
            self._remember_strike(each)
        return placed

    async def _strike(self, strike: Strike, placed: Sequence[Placed], lasts_s: float, ringing: Sequence[asyncio.Task[None]]) -> None:
        try:
            async with strike(self.ground, [each for each in placed if not each.phone.over]):
                await asyncio.wait(ringing, timeout=lasts_s)
        except MISSED as why:
            self.tell(f"not injected: {why}")
        await self.ground.mend()

    async def _strike_before(self, strike: Strike, placed: list[Placed], lasts_s: float, ring: Callable[[], Any]) -> None:
        """The strike comes first, and the calls find it there."""
        try:
            async with strike(self.ground, placed):
                await ring()
                for each in placed:
                    each.hit()
                await asyncio.sleep(lasts_s)
        except MISSED as why:
            self.tell(f"not injected: {why}")
        await self.ground.mend()

    # ---- a call

    def _placed(self, row: Row, faults: Faults, wire: Proxy | None) -> Placed:
        stack, secrets = self.ground.stack, self.ground.secrets
        leads_to = wire.port if wire is not None else stack.port if row.past_the_balancer else 0
        person = Person("want_person") if row.asks_for_person else Person()
        tunnel = {stack.url: f"http://127.0.0.1:{leads_to}"} if leads_to else None
        ways = Ways(tunnel=tunnel, only_once=row.first_stream_only, refuses_streams=row.refuses_streams)
        phone = TwilioCall(
            webhook_url=f"{stack.url}/webhook/twilio",
            status_url=f"{stack.url}/webhook/twilio/status",
            fallback_url=self.ground.fallback_url,
            auth_token=secrets.auth_token,
            account_sid=secrets.account_sid,
            to_number=LINE,
            caller=person,
            humans={COLLEAGUE: Human(outcome=row.person, rings_s=ANYONE_S, talks_s=2.0)},
            web=ways,
            rng=random.Random(self.rng.getrandbits(64)),
            **row.twilio,
        )
        self.ground.twilio.take(phone)
        self.ground.vapi.of_call[phone.call_sid] = (TECHFLOW, faults)
        return Placed(row, phone, ways, "R3" if row.asks_for_person else "R0", person)

    async def _carried(self, placed: Placed) -> None:
        """To the call's end: the house's doing, or the caller's who leaves as the row says, or who has had enough."""
        running = asyncio.create_task(placed.phone.run())
        leaving = asyncio.create_task(_leave(placed)) if placed.row.leaves else None
        done, _ = await asyncio.wait({running}, timeout=PATIENCE_S)
        if not done:
            placed.gave_up = True
            placed.phone.hang_up()
        await running
        if leaving is not None:
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)

    def _remember_strike(self, placed: Placed) -> None:
        """When the fault came: each vendor knows of its own (Twilio that a stream was refused); others are there when the phone rings."""
        if placed.row.past_the_balancer:
            refused = (moment.at for moment in placed.phone.timeline if (moment.what, moment.detail.get("code")) == REFUSED_BY_US)
            placed.struck_at = next(refused, None)
        elif placed.struck_at is None and placed.row.strike is None:
            entries = [entry.at for each in self._at_vapi(placed) for entry in each.evidence.entries if entry.way == "fault"]
            placed.struck_at = min(entries, default=placed.phone.phone.origin)
            placed.healthy = max(placed.healthy, placed.row.healthy)

    def _at_vapi(self, placed: Placed) -> list[SandboxCall]:
        return [*_made_at(self.ground.vapi, placed), *self._at_backup(placed)]

    def _at_backup(self, placed: Placed) -> list[SandboxCall]:
        return _made_at(self.ground.backup, placed) if self.ground.backup is not None else []

    # ---- the verdict

    async def _judge(self, placed: Sequence[Placed]) -> None:
        """Look until everything about these calls is known, or its time is up."""
        began = time.monotonic()
        while True:
            rows = await self.ground.exported()
            for each in placed:
                self._look(each, rows.get(each.call_sid, []))
            waited = time.monotonic() - began
            if waited > judge.ROW_WITHIN_S or all(self._settled(each, rows.get(each.call_sid, [])) for each in placed):
                break
            await asyncio.sleep(LOOK_S)
        for each in placed:
            self._measure(each)

    def _settled(self, placed: Placed, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Nothing can change any more: the row says its end, every Vapi call is over and told of, and no line is missing."""
        at_vapi = self._at_vapi(placed)
        told = any(row.get("status") in judge.TERMINAL and row.get("end_reason") for row in rows)
        over = all(call.done.is_set() or (call.turns is None and not call.open) for call in at_vapi)
        return told and over and not any(verdict.rule == "line" for verdict in placed.verdicts)

    def _look(self, placed: Placed, rows: Sequence[Mapping[str, Any]]) -> None:
        at_vapi, is_struck = self._at_vapi(placed), placed.struck_at is not None
        seen = witness.witnessed(
            placed.phone,
            at_vapi,
            rows,
            healthy=placed.healthy,
            looked_at_wall=time.time(),
            gave_up=placed.gave_up,
            static_url=self.ground.fallback_url if self.ground.fallback_is_static else "",
            answers_lost=placed.answers_lost,
            leads_there=is_struck and placed.row.leads_there,
            in_good_order=is_struck and placed.row.in_good_order,
            unkept=placed.unkept,
            at_backup=self._at_backup(placed),
        )
        placed.verdicts = judge.judge(seen)
        placed.first_sounds_s = tuple(witness.first_sounds_s(placed.phone))
        placed.late_sounds = tuple(witness.late_sounds(placed.phone, placed.stopped_at))
        placed.documents_s = tuple(witness.documents_s(placed.phone))
        if placed.struck_at is not None:
            placed.noticed_s = witness.noticed_s(placed.phone, at_vapi, placed.struck_at)
            placed.served_s = witness.served_again_s(placed.phone, at_vapi, placed.struck_at, placed.noticed_s)

    def _measure(self, placed: Placed) -> None:
        """What nobody is judged by."""
        placed.hand_overs = tuple(witness.hand_overs(placed.phone)) if placed.row.in_good_order else ()
        placed.jitter_s = tuple(witness.jitter_s(placed.phone, self._at_vapi(placed)))

    def _finish(self, placed: Placed) -> None:
        self.done.append(placed)
        said = "; ".join(f"{each.rule} at {each.at:.1f} s: {each.what}" for each in placed.verdicts)
        self.tell(f"{len(self.done)}/{self.expected} {placed.row.name}: {'LOST ' + said if said else 'kept'}")


def _made_at(vapi: VapiSandbox, placed: Placed) -> list[SandboxCall]:
    return [call for call in list(vapi.calls.values()) if call.name.startswith(placed.call_sid)]


async def _said_something(placed: Placed) -> None:
    with suppress(TimeoutError):
        await placed.phone.wait_for("caller-says", within=MID_WITHIN_S)


async def _leave(placed: Placed) -> None:
    await _said_something(placed)
    await asyncio.sleep(LEAVES_AFTER_S + (MID_S if placed.row.strike is not None else 0.0))
    placed.phone.hang_up()
