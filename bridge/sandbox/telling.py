"""Who is told what: each message goes to the socket and to the server only if the assistant asked for it there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from bridge.sandbox.dto import FINAL_TRANSCRIPTS
from bridge.sandbox.evidence import Entry, Evidence, Message
from bridge.sandbox.plan import Plan

Post = Callable[[Message], Awaitable[Message | None]]


class Pipe(Protocol):
    """The audio socket, seen from Vapi."""

    async def send_bytes(self, data: bytes) -> None: ...

    async def send_text(self, text: str) -> None: ...

    async def receive(self) -> bytes | str | None:
        """The next message of the client; None once the socket is closed."""

    async def close(self, code: int) -> None:
        """Close with this code; 1006 breaks the connection without a word, 0 resets it."""


class Teller:
    """The way out of one conversation. Once `silent` nothing leaves any more; once `closed` nothing can on the socket."""

    def __init__(self, *, pipe: Pipe, post: Post, plan: Plan, evidence: Evidence) -> None:
        self._pipe = pipe
        self._post = post
        self._plan = plan
        self._evidence = evidence
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.silent = False
        self.closed = False

    async def tell(self, kind: str, **fields: Any) -> None:
        """Bare on the socket, as a webhook to the server. Webhooks are not waited for."""
        message = {"type": kind, **fields}
        if kind in self._plan.client_messages or (kind == "status-update" and fields["status"] == "ended"):
            await self.text(message)
        final = kind == "transcript" and fields["transcriptType"] == "final"
        if kind in self._plan.server_messages or (final and FINAL_TRANSCRIPTS in self._plan.server_messages):
            self.later(self.post(message))

    async def post(self, message: Message) -> Message | None:
        """Deliver a webhook and return its answer."""
        if self.silent:
            return None
        self.note("hook", message["type"], message)
        return await self._post(message)

    async def text(self, message: Message) -> None:
        if not self.closed and not self.silent:
            self.note("out", message["type"], message)
            await self._pipe.send_text(json.dumps(message))

    async def audio(self, ulaw: bytes) -> None:
        if not self.closed and not self.silent:
            self._evidence.downlink += ulaw
            self._evidence.chunks.append((self._loop.time(), len(ulaw)))
            await self._pipe.send_bytes(ulaw)

    async def hang_up(self, code: int) -> None:
        if not self.closed:
            self.closed = True
            self.note("out", "close", code)
            await self._pipe.close(code)

    def later(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self) -> None:
        """Until everything that was begun is delivered, or given up."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def note(self, way: str, kind: str, detail: Any = None) -> None:
        self._evidence.entries.append(Entry(self._loop.time(), way, kind, detail))
