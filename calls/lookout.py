"""Rows that a live call has to see, looked for by all streams of a process together: one question every two seconds.

Commands are rows, and so is the news that a call is over or another epoch's. A hint tells of them at once; it may be lost, and
then this finds them. Each stream asking for itself cost more than its sound.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

from bridge.ports import CallRef, LedgerAway
from calls.models import CallSession, OutboxCommand

log = logging.getLogger(__name__)

R = TypeVar("R")

EVERY_S = 2.0


class Ask(Protocol):
    """A question for a thread that may use the database. Raises LedgerAway."""

    def __call__(self, question: Callable[[], R], /) -> Awaitable[R]: ...


class Lookout:
    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._looks: dict[CallRef, Callable[[], None]] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def watching(self, ref: CallRef, look: Callable[[], None]) -> Iterator[None]:
        """See `bridge.ports.Ledger`."""
        self._looks[ref] = look
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._keep_looking())
        try:
            yield
        finally:
            del self._looks[ref]
            if not self._looks and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _keep_looking(self) -> None:
        """All streams of the process hang on this task: nothing may end it."""
        while True:
            await asyncio.sleep(EVERY_S)
            for ref in await self._found():
                if ref in self._looks:
                    self._tell(ref)

    async def _found(self) -> Collection[CallRef]:
        """For whom there is news; while nobody knows that, all look."""
        refs = tuple(self._looks)
        try:
            return await self._ask(partial(with_news, refs))
        except LedgerAway:
            return refs
        except Exception as problem:  # whatever the database raises
            log.warning("Nobody could be asked for which streams there is news", extra={"problem": type(problem).__name__})
            return refs

    def _tell(self, ref: CallRef) -> None:
        try:
            self._looks[ref]()
        except Exception as problem:
            log.warning("A stream could not be told that there is news", extra={"call": ref.short_id, "problem": type(problem).__name__})


def with_news(refs: Collection[CallRef]) -> list[CallRef]:
    """Those for whom a command waits, or whose call is over or no longer theirs."""
    sids = [ref.call_sid for ref in refs]
    live = set(CallSession.objects.live().filter(call_sid__in=sids).values_list("call_sid", "epoch"))
    waiting = OutboxCommand.objects.filter(call__call_sid__in=sids, to="live", done_at=None)
    told = set(waiting.values_list("call__call_sid", flat=True))
    return [ref for ref in refs if ref.call_sid in told or (ref.call_sid, ref.epoch) not in live]
