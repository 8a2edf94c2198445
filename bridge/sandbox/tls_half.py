"""The sandbox's front door: plain HTTP goes through to the server, TLS gets half of a handshake and then nothing.

The sandbox has no certificate, so whoever comes with https:// or wss:// can only be played this: a vendor whose address takes
the connection and whose handshake never completes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from aiohttp import web

HANDSHAKE = b"\x16"  # the first byte of a TLS connection; no method of HTTP begins so
SERVER_HELLO_BEGINS = bytes.fromhex("160303007a02000076")  # of 122 bytes that never come


class Door(asyncio.Protocol):
    """Looks at the first byte of a connection. Those left half-way stand in `held` until they give up."""

    def __init__(self, serve: Callable[[], asyncio.Protocol], held: set[asyncio.Transport]) -> None:
        self._serve, self._held = serve, held
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._transport in self._held:
            return
        if data.startswith(HANDSHAKE):
            self._held.add(self._transport)
            self._transport.write(SERVER_HELLO_BEGINS)
            return
        server = self._serve()
        self._transport.set_protocol(server)
        server.connection_made(self._transport)
        server.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._held.discard(self._transport)


class Site(web.BaseSite):
    """aiohttp's TCPSite behind such a door."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        super().__init__(runner)
        self._host, self._port = host, port
        self.held: set[asyncio.Transport] = set()

    @property
    def name(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        await super().start()
        server = cast(Callable[[], asyncio.Protocol], self._runner.server)
        self._server = await asyncio.get_running_loop().create_server(lambda: Door(server, self.held), self._host, self._port)

    async def stop(self) -> None:
        for transport in self.held:
            transport.abort()
        await super().stop()
