"""`<Connect><Stream>` as the caller's leg goes through it: the signed upgrade, the stream, its status callbacks, and what follows.

A stream is over when the server closes, when the caller leaves, when the REST API turns the call elsewhere, or when the socket dies.
What Twilio does after the last of these is told in three ways by users of it, so `on_abnormal_close` may be any of them.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urljoin, urlsplit

from bridge.sandbox.asking import Next
from bridge.sandbox.fields import stream_event
from bridge.sandbox.leg import Ended, HungUp, Interrupted, Leg, Turned
from bridge.sandbox.media import MediaSide, Pipe, StreamFacts, Violation
from bridge.sandbox.twiml import Verb
from bridge.sandbox.web import WebFailure

AFTER_ABNORMAL_CLOSE = ("next_verb", "stay", "hangup")
LEAVING = ("stop", "no-stop", "vanish", "half-open")
DIED = ("broken", "vanished")


async def connect(leg: Leg, verb: Verb) -> Next | None:
    noun, sid = verb.children[0], leg.sid("MZ")
    leg.phone.remember("stream-connecting")
    opened: list[Pipe] = []
    try:
        await leg.while_up(_open(leg, noun, opened))
    except Interrupted:
        for pipe in opened:  # in the very moment the caller left
            pipe.abort()
        raise
    except WebFailure as failure:
        leg.seen.streams.append(StreamFacts(sid, started_at=leg.phone.now(), end="refused"))
        leg.seen.problem(failure.code, failure.why, noun.get("url"))
        leg.phone.remember("stream-refused", code=failure.code)
        _tell(leg, noun, sid, "stream-error", f"{failure.code} Stream - WebSocket - {failure.why}")
    else:
        facts = await _carry(leg, noun, sid, opened[0])
        if facts.end in DIED:
            await _after_abnormal_close(leg)
    action = verb.get("action")
    return Next(action, verb.get("method", "POST")) if action else None


async def _after_abnormal_close(leg: Leg) -> None:
    if leg.manners.on_abnormal_close == "stay":
        await leg.while_up(asyncio.Event().wait())
    elif leg.manners.on_abnormal_close == "hangup":
        raise Ended


async def _open(leg: Leg, noun: Verb, opened: list[Pipe]) -> None:
    """The signed upgrade; the pipe is added to `opened`. Raises WebFailure."""
    url = noun.get("url")
    if not urlsplit(url).scheme:
        url = "ws" + urljoin(leg.asking.base_url, url).removeprefix("http")
    parts = urlsplit(url)
    if parts.scheme != "wss" and not (leg.manners.allow_ws and parts.scheme == "ws"):
        raise WebFailure(31922, "stream URL is not wss")
    if parts.query or parts.fragment:
        raise WebFailure(31920, "stream URL carries a query")
    pipe = await leg.asking.web.socket(url, leg.asking.signed(url, {}))
    opened.append(pipe)
    if pipe.extensions:
        leg.seen.offences.append(Violation(31924, "server agreed to compression", leg.phone.now()))


async def _carry(leg: Leg, noun: Verb, sid: str, pipe: Pipe) -> StreamFacts:
    side = MediaSide(
        pipe,
        leg.phone,
        stream_sid=sid,
        call_sid=leg.parties.call_sid,
        account_sid=leg.parties.account_sid,
        parameters={child.get("name"): child.get("value") for child in noun.children},
        first_timestamp_ms=leg.rng.randint(59, 79),
    )
    leg.side = side
    leg.seen.streams.append(side.facts)
    _tell(leg, noun, sid, "stream-started")
    leg.phone.remember("stream-started")
    ailments = _ailments(leg, side)
    try:
        await leg.while_up(side.run())
    except Interrupted as interrupted:
        await _leave(leg, side, interrupted)
        raise
    finally:
        for ailment in ailments:
            ailment.cancel()
        leg.side = None
        facts = side.facts
        if not facts.end:  # the whole call was cancelled
            side.vanish()
        leg.phone.remember("stream-ended", how=facts.end, code=facts.close_code)
        if facts.end in DIED:
            _tell(leg, noun, sid, "stream-error", "31903 Stream - WebSocket - Broken Pipe")
        else:
            _tell(leg, noun, sid, "stream-stopped")
    return facts


async def _leave(leg: Leg, side: MediaSide, interrupted: Interrupted) -> None:
    """The stream ends at Twilio's side; only a caller who hangs up does so in a bad manner."""
    manner = leg.leaving if isinstance(interrupted, HungUp) else "stop"
    if manner == "half-open" or side.is_half_open:
        side.abandon()
        leg.errands.run(side.give_up())
    elif manner == "vanish":
        side.vanish()
    elif isinstance(interrupted, Turned):
        leg.errands.run(side.leave("turned"))  # the server may stand still, which is why the call is turned elsewhere
    else:
        await side.leave("hung-up" if isinstance(interrupted, HungUp) else "turned", stop=manner == "stop")


def _ailments(leg: Leg, side: MediaSide) -> list[asyncio.TimerHandle]:
    """What befalls the first stream, each at its time."""
    later, manners, slow = asyncio.get_running_loop().call_later, leg.manners, leg.manners.slow_reader_after_s
    coming: list[asyncio.TimerHandle] = []
    if len(leg.seen.streams) > 1:
        return coming
    if slow is not None:
        coming += [later(slow, side.stop_reading), later(slow + manners.slow_reader_for_s, side.read_again)]
    if manners.half_open_after_s is not None:
        coming.append(later(manners.half_open_after_s, side.half_open))
    return coming


def _tell(leg: Leg, noun: Verb, sid: str, event: str, error: str = "") -> None:
    form = stream_event(leg.parties, sid, noun.get("name"), event, error=error, wall=leg.wall())
    leg.callbacks.tell(noun.get("statusCallback"), form, noun.get("statusCallbackMethod", "POST"))
