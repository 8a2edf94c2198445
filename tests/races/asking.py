"""Streams that ask for their agent while their database is away, and what they are told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from bridge.ports import CallRef, LedgerAway
from calls import sessions, storing
from calls.ledger import DatabaseLedger
from calls.storing import the_keeper
from tests.builders import FakeVapi, a_call

POLL_S = 0.1  # as the bridge does
R = TypeVar("R")


def put_through() -> dict[str, str]:
    """A call with its agent."""
    call = a_call()
    sessions.start_conversation(vapi_session_pk=call.vapi_sessions.get().pk, by="worker", client=FakeVapi())
    return {"call_sid": call.call_sid, "short_id": call.short_id}


def ask_for_agent(call_sid: str, short_id: str, streams: int, for_s: float) -> dict[str, Any]:
    """So many streams at once, each again and again. `questions`: how many reached the database, `at_once` together; `found`: how many
    of the streams were told of a live agent."""
    is_away = the_keeper().ask()
    ledger, ref = DatabaseLedger(token_key=b"k" * 32, client=FakeVapi()), CallRef(call_sid, 0, short_id)
    told, waits, asked, under_way = list[str](), list[float](), list[int](), set[int]()
    found: set[int] = set()
    really = storing.in_thread

    def counted(job: Callable[[], R]) -> R:
        under_way.add(threading.get_ident())
        asked.append(len(under_way))
        try:
            return really(job)
        finally:
            under_way.discard(threading.get_ident())

    async def stream(number: int) -> None:
        until = time.monotonic() + for_s
        while (began := time.monotonic()) < until:
            state = "nobody knows"
            with suppress(LedgerAway):
                conversation = await ledger.conversation(ref)
                state = conversation.state if conversation is not None else "none"
            told.append(state)
            if state == "live":
                found.add(number)
            waits.append(time.monotonic() - began)
            await asyncio.sleep(POLL_S)

    async def all_streams() -> None:
        await asyncio.gather(*(stream(number) for number in range(streams)))

    storing.in_thread = counted
    try:
        asyncio.run(all_streams())
    finally:
        storing.in_thread = really
        ledger.close()
    figures = {"found": len(found), "questions": len(asked), "at_once": max(asked, default=0), "asked": len(told), "longest_s": max(waits)}
    return {"is_away": is_away and the_keeper().is_away, "told": sorted(set(told)), **figures}
