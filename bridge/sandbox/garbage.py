"""Nonsense on the audio socket: what a broken Vapi might put between the frames. Each kind is poured out once, mid-sentence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Protocol

MEGABYTE = 1 << 20
FLOOD, FLOOD_S = 1000, 3  # messages a second, and for how long
BAD_JSON = (
    "not json",
    "{",
    "[]",
    "null",
    "17",
    '"text"',
    "{}",
    '{"type": 7}',
    '{"type": null}',
    '{"type": "speech-update", "role": ["user"], "status": {"started": true}}',
    '{"type": "transcript", "transcript": NaN}',
    '{"type": "transcript", "transcript": "\\ud800"}',
    "[" * 10_000 + "]" * 10_000,
    '{"a":' * 3_000 + "1" + "}" * 3_000,
    '{"type": "speech-update", "n": 1' + "0" * 400 + "}",
    "\x00\x01\x02",
)
UNKNOWN = ("call.exploded", "speech-updated", "user-interrupted ", "STATUS-UPDATE", "", "a" * 5_000, "__proto__", "message")


class Wire(Protocol):
    """The two ways to put something on the socket."""

    async def send_bytes(self, data: bytes) -> None: ...

    async def send_text(self, text: str) -> None: ...


async def _bad_json(wire: Wire, _rng: Random) -> None:
    for text in BAD_JSON * 2:  # more than twenty, in much less than ten seconds
        await wire.send_text(text)


async def _huge_text(wire: Wire, _rng: Random) -> None:
    await wire.send_text(json.dumps({"type": "conversation-update", "messages": [{"role": "user", "message": "a" * MEGABYTE}]}))


async def _unknown(wire: Wire, rng: Random) -> None:
    for kind in UNKNOWN:
        await wire.send_text(json.dumps({"type": kind, "status": "started", "turn": rng.randrange(9)}))


async def _flood(wire: Wire, _rng: Random) -> None:
    for _ in range(FLOOD_S * 10):
        for number in range(FLOOD // 10):
            await wire.send_text(json.dumps({"type": "metadata", "metadata": {"n": number}}))
        await asyncio.sleep(0.1)


async def _giant_audio(wire: Wire, rng: Random) -> None:
    await wire.send_bytes(rng.randbytes(MEGABYTE) * 10)


async def _empty(wire: Wire, _rng: Random) -> None:
    for _ in range(50):
        await wire.send_bytes(b"")
        await wire.send_text("")


KINDS: Mapping[str, Callable[[Wire, Random], Awaitable[None]]] = {
    "bad-json": _bad_json,
    "huge-text": _huge_text,
    "unknown": _unknown,
    "flood": _flood,
    "giant-audio": _giant_audio,
    "empty": _empty,
}
