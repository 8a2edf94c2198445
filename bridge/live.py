"""Door 2: telling a running call, or a page that watches it, that there is something to look at.

Only hints travel here, and a channel layer may lose any of them: the rows are the truth. A group's name is made from the
CallSid, so nobody keeps a dictionary of calls and nothing can leak.
"""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Protocol

SAFE = re.compile(r"[A-Za-z0-9_-]{1,80}", re.ASCII)  # what a channel layer takes as part of a group's name
ROWS = "rows"  # the group of all open pages: one message tells of many calls

SESSION = "session"  # the Vapi session became live, failed or ended
COMMANDS = "commands"  # a command row waits
INTERRUPTED = "interrupted"  # Vapi's webhook says: the caller interrupted
SPEECH = "speech"  # Vapi's webhook says: the caller started to speak
OF_THE_MOMENT = (INTERRUPTED, SPEECH)
FRESH_S = 0.4  # of those two; the socket's own word has led to a clear by then, and after 0.5 s the next may follow

STRAGGLERS = 100  # channels that are looked at once more, when so many others are over: what was on its way to them has come by then

_over: deque[str] = deque()


class Layer(Protocol):
    """What we need of a channel layer."""

    async def new_channel(self) -> str: ...

    async def group_add(self, group: str, channel: str) -> None: ...

    async def group_discard(self, group: str, channel: str) -> None: ...

    async def group_send(self, group: str, message: dict[str, Any]) -> None: ...

    async def receive(self, channel: str) -> dict[str, Any]: ...


def group(call_sid: str) -> str:
    """The group a call's media consumer listens to."""
    if SAFE.fullmatch(call_sid):
        return f"call.{call_sid}"
    return f"call.{hashlib.sha256(call_sid.encode()).hexdigest()}"


async def tell(layer: Layer, call_sid: str, hint: str, *, at: float) -> None:
    """Hint a live call to look; `at`: seconds since 1970. Never raises for a call that is not there: nobody listens, nothing happens."""
    await layer.group_send(group(call_sid), {"type": "live.hint", "hint": hint, "at": at})


async def listen(layer: Layer, call_sid: str, *, wall: Callable[[], float] = time.time) -> AsyncGenerator[str]:
    """The hints for a call, as they come, until the caller closes the iterator or the layer fails.

    A layer that hung may hand out what is seconds old: speech of then would cut the agent's next turn, and is left out.
    """
    channel = await layer.new_channel()
    await layer.group_add(group(call_sid), channel)
    try:
        while True:
            message = await layer.receive(channel)
            hint, at = str(message.get("hint", "")), message.get("at")
            if hint in OF_THE_MOMENT and at is not None and wall() - at > FRESH_S:
                continue
            yield hint
    finally:
        try:
            await layer.group_discard(group(call_sid), channel)
        finally:
            forget(layer, channel)


def forget(layer: Any, channel: str) -> None:
    """Nobody listens on this channel any more. A layer on Redis keeps 2 KiB of it for ever if its listener was cancelled while it
    read, or if something came too late."""
    kept = getattr(layer, "receive_buffer", {})  # a layer in memory has none
    kept.pop(channel, None)
    _over.append(channel)
    while len(_over) > STRAGGLERS:
        kept.pop(_over.popleft(), None)


async def give_back_idle(layer: Any) -> None:
    """Close what this loop has open to Redis and nobody uses: a layer keeps one for each of the most that ever listened at once."""
    for index in range(getattr(layer, "ring_size", 0)):  # a layer in memory has none
        await layer.connection(index).connection_pool.disconnect(inuse_connections=False)


async def tell_rows(layer: Layer, written: Mapping[uuid.UUID, int]) -> None:
    """Hint the pages that the rows of each of these calls go up to that event number."""
    await layer.group_send(ROWS, {"type": "rows.written", "calls": {str(public_id): seq for public_id, seq in written.items()}})
