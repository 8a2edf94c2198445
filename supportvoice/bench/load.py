"""The load: Twilio's and Vapi's end of many calls at once, in one process with one clock.

`python -m supportvoice.bench.load --vapi FD` reads an order (JSON) from its standard input and answers with what it measured
(JSON). A stranger to the house, like the sandbox: it shares no line with the codecs it measures. It watches itself: how much of
a core it took, and how late it was with what it sent.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import socket
import sys
import time
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha1
from hmac import digest
from typing import Any
from urllib.parse import urlsplit

import picows
import uvloop

from supportvoice.bench import processes
from supportvoice.bench.callers import Call, Tally
from supportvoice.bench.figures import spread
from supportvoice.bench.goodbye import LastWords
from supportvoice.bench.pattern import Counts
from supportvoice.bench.wheel import Wheel

OPENED_APART_S = 0.02
SETTLE_S = 1.0
END_WITHIN_S = 5.0
LATE_MS, BUSY = 10.0, 0.9  # beyond this the generator itself is the slow one
BEHIND_MS = 50.0  # a median beyond this and what is measured is a queue


@dataclass(frozen=True, slots=True)
class Order:
    """What to do to whom. `calls` are pairs of CallSid and stream token; `pid` is the root of the subject's processes."""

    url: str
    auth_token: str
    account_sid: str
    calls: Sequence[tuple[str, str]]
    pid: int
    seconds: float = 10.0
    warm_s: float = 2.0
    begin_within_s: float = 15.0
    wide: bool = False  # Vapi's leg in PCM16 at 16 kHz: converted sound is counted, it cannot be compared
    at_once: int = 0  # a soak: so many at a time, each `seconds` long; 0: all together
    vapi_secret: str = ""  # with what Vapi tells of the end of a soak's call


@dataclass(slots=True)
class Vendors:
    """Both vendors' side of the calls of one order."""

    order: Order
    wheel: Wheel = field(default_factory=Wheel)
    tally: Tally = field(default_factory=Tally)
    calls: dict[str, Call] = field(default_factory=dict)

    @property
    def signed(self) -> dict[str, str]:
        signature = digest(self.order.auth_token.encode(), self.order.url.encode(), sha1)
        return {"X-Twilio-Signature": b64encode(signature).decode()}

    def answer(self, request: picows.WSUpgradeRequest) -> Any:
        """Vapi's server: a socket for a call that is known by the last part of its path."""
        call = self.calls.get(bytes(request.path).decode().rpartition("/")[2])
        return call.vapi if call is not None else None

    async def open(self, number: int, sid: str, token: str) -> Call:
        call = Call(number, sid, self.wheel, self.tally, calls=len(self.order.calls), wide=self.order.wide)
        self.calls[sid] = call
        await picows.ws_connect(lambda: call.twilio, self.order.url, extra_headers=self.signed, max_redirects=0, use_aiofastnet=False)
        call.twilio.start(account_sid=self.order.account_sid, token=token)
        return call


async def measure(order: Order, vendors: Vendors) -> dict[str, Any]:
    """All calls together: warm up, measure for `seconds`, hang up, look at what has arrived."""
    resident = processes.resident_bytes(order.pid)
    for number, (sid, token) in enumerate(order.calls):
        await vendors.open(number, sid, token)
        await asyncio.sleep(OPENED_APART_S)
    calls = list(vendors.calls.values())
    begun = await _all([call.begun for call in calls], order.begin_within_s)
    await asyncio.sleep(order.warm_s)
    live = _Window(order.pid, vendors)
    await asyncio.sleep(order.seconds)
    figures = live.closed(calls=len(calls))
    figures["rss_per_call_kib"] = (processes.resident_bytes(order.pid) - resident) / 1024 / len(calls)
    broken = sum(call.is_over for call in calls)
    for call in calls:
        call.fall_silent()
    await asyncio.sleep(SETTLE_S)
    for call in calls:
        call.twilio.stop()
        await asyncio.sleep(OPENED_APART_S)
    await _all([call.over for call in calls], END_WITHIN_S)
    frames = {way: Counts() for way in ("up", "down")}
    for call in calls:
        frames["up"].add(call.up.settle())
        frames["down"].add(call.down.settle())
    figures["frames"] = {way: asdict(counts) for way, counts in frames.items()}
    figures["right"] = all(counts.right for counts in frames.values()) and not vendors.tally.unanswered
    figures["why_not"] = _why_not(figures, begun=begun, calls=len(calls), broken=broken)
    return figures


async def soak(order: Order, vendors: Vendors) -> dict[str, Any]:
    """Short calls one after the other, `at_once` at a time, each with both vendors' last words about it."""
    last = LastWords(urlsplit(order.url).port or 80, order.auth_token, order.account_sid, order.vapi_secret)
    waiting = iter(enumerate(order.calls))
    total = {way: Counts() for way in ("up", "down")}
    failed = untold = 0

    async def place() -> None:
        nonlocal failed, untold
        for number, (sid, token) in waiting:
            call = await vendors.open(number % 100, sid, token)
            failed += 1 - await _all([call.begun], order.begin_within_s)
            await asyncio.sleep(order.seconds)
            call.fall_silent()
            await asyncio.sleep(SETTLE_S)
            call.twilio.stop()
            await _all([call.over], END_WITHIN_S)
            untold += not await last.told_of(sid)
            total["up"].add(call.up.settle())
            total["down"].add(call.down.settle())
            del vendors.calls[sid]

    await asyncio.gather(*(place() for _ in range(order.at_once)))
    frames = {way: asdict(counts) for way, counts in total.items()}
    right = all(counts.right for counts in total.values())
    return {"calls": len(order.calls), "failed": failed, "untold": untold, "frames": frames, "right": right}


class _Window:
    """The seconds that count, from its making to `closed`."""

    def __init__(self, pid: int, vendors: Vendors) -> None:
        self._pid, self._tally, self._wheel = pid, vendors.tally, vendors.wheel
        self._tally.counting = True
        self._late_from = len(self._wheel.late_ms)
        self._began, self._cpu, self._own = time.monotonic(), processes.cpu_s(pid), time.process_time()

    def closed(self, *, calls: int) -> dict[str, Any]:
        took, tally = time.monotonic() - self._began, self._tally
        cpu, own = processes.cpu_s(self._pid) - self._cpu, time.process_time() - self._own
        tally.counting = False
        return {
            "calls": calls,
            "seconds": took,
            "cpu_ms_per_call_second": 1000 * cpu / (took * calls),
            "up_ms": spread(tally.up_ms),
            "down_ms": spread(tally.down_ms),
            "cushion_ms": spread(tally.cushion_ms),
            "clear_ms": spread(tally.clear_ms),
            "silence_ms": spread(tally.silence_ms),
            "interruptions_unanswered": tally.unanswered,
            "generator": {"cores": own / took, "late_ms": spread(self._wheel.late_ms[self._late_from :])},
        }


def _why_not(figures: dict[str, Any], *, begun: int, calls: int, broken: int) -> str:
    """Why this run does not count; empty when it does. Overload looks cheap: what is not carried costs nothing."""
    generator = figures["generator"]
    if begun < calls or broken:
        return f"{calls - begun} calls did not begin and {broken} broke"
    if generator["cores"] > BUSY or generator["late_ms"]["p99"] > LATE_MS:
        return "the generator itself was late"
    if max(figures["up_ms"]["p50"], figures["down_ms"]["p50"]) > BEHIND_MS:
        return "it fell behind"
    return ""


async def _all(events: Sequence[asyncio.Event], within_s: float) -> int:
    """How many of them have happened `within_s` from now, or as soon as all have."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    done, late = await asyncio.wait(waits, timeout=within_s)
    for wait in late:
        wait.cancel()
    return len(done)


async def carry_out(order: Order, listening: socket.socket) -> dict[str, Any]:
    vendors = Vendors(order)
    server = await picows.ws_create_server(vendors.answer, sock=listening, use_aiofastnet=False)
    vendors.wheel.turn()
    gc.collect()
    gc.freeze()
    gc.disable()  # its pauses would be taken for the subject's
    try:
        return await (soak if order.at_once else measure)(order, vendors)
    finally:
        vendors.wheel.stop()
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vapi", type=int, required=True, help="descriptor of the socket to serve Vapi on")
    listening = socket.socket(fileno=parser.parse_args().vapi)
    order = Order(**json.load(sys.stdin))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(runner.run(carry_out(order, listening)), sys.stdout)


if __name__ == "__main__":
    main()
