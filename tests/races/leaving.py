"""A process that carries a stream, and leaves."""

from __future__ import annotations

import time
from functools import cache

from bridge import stream_token
from bridge.ports import CallRef, Closing, Note
from calls import patience
from calls.entries import Closed
from calls.ledger import DatabaseLedger
from calls.models import CallSession, Status
from calls.storing import the_keeper
from tests.builders import FakeVapi, a_call

WITHIN_S = 10.0


@cache
def ledger() -> DatabaseLedger:
    patience.serving()
    return DatabaseLedger(token_key=stream_token.key_from("tests"), client=FakeVapi())


def ref_of(call: CallSession) -> CallRef:
    return CallRef(call.call_sid, 0, call.short_id)


def carry() -> str:
    """A stream of which something is written down. Returns its CallSid."""
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    ledger().note(ref_of(call), Note(kind="clear-sent", source="bridge", at=time.time(), now=time.monotonic(), detail={}))
    until = time.monotonic() + WITHIN_S
    while not ledger().writer.counts.written and time.monotonic() < until:
        time.sleep(0.01)
    return call.call_sid


def leave(sid: str) -> list[str]:
    """The stream ends, and then the process. Returns what it kept for others, as soon as it may be gone."""
    ledger().writer.put(Closed(CallRef(sid, 0, "call-000000"), Closing("stop"), time.time(), time.monotonic()), urgent=True)
    ledger().close()
    return [str(line.told["kind"]) for line in the_keeper().spool.unread()]
