"""A server of ours in the test's own process, sockets of bytes to it, and where its two framings are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from supportvoice.duty import Duty
from supportvoice.parent import listen
from supportvoice.server import CallServer, configured

WHATEVER_FRAMES_IT = pytest.mark.parametrize("under", ["", "/webhook"], ids=["uvicorn", "picows"])


class Quiet(CallServer):
    """In the test's own process: leaves its signal handlers alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[int]:
    """`app` on a port of its own, behind the protocols of `serve`."""
    listening = listen("127.0.0.1", 0)
    port: int = listening.getsockname()[1]
    running = Quiet(configured(app), duty=Duty(), drain_s=0)
    task = asyncio.create_task(running.serve(sockets=[listening]))
    try:
        yield port
    finally:
        running.should_exit = running.force_exit = True
        await task


@contextlib.asynccontextmanager
async def upgraded(port: int, path: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A socket of bytes, past the WebSocket's upgrade."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    writer.write(b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (path.encode(), key))
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    try:
        yield reader, writer
    finally:
        writer.close()
