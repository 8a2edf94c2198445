"""A load balancer before several servers: of those that say at `/readyz` that they are well, the one with the fewest gets the next.

It asks twice a second; of equals it takes one after the other. A server that says it is not well gets nothing more, and one that says
nothing, as on a machine that stands still, after the second time in a row, and not if it would be the last: usual balancers take two or
three, and many send to all when none is left. A server that is gone before it is asked again is found out by whoever connects: that
connection goes to the next, as with nginx. What is open when a server dies ends. When nobody is well, who connects is reset.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import count
from types import TracebackType
from typing import Self

from bridge.sandbox.proxy import Proxy

ASK_EVERY_S = 0.5
ANSWERS_WITHIN_S = 0.5
MISSES = 2

Place = tuple[str, int]


class Balancer(Proxy):
    """Listens on 127.0.0.1 for `servers`: host and port of each. Those `spared` get nothing new: an operator took them out."""

    def __init__(self, servers: Sequence[Place], *, port: int = 0) -> None:
        super().__init__(servers[0], port=port)
        self.servers = list(servers)
        self.spared: set[Place] = set()
        self.well: set[Place] = set(servers)
        self._turn = count()
        self._missed: Counter[Place] = Counter()
        self._asking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._asking = asyncio.create_task(self._ask())
        return await super().__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        await super().__aexit__(kind, error, trace)

    def server_of(self, port: int) -> Place | None:
        """Who serves the connection that came from this port."""
        return next((_far_end(ends) for ends in list(self._open.values()) if ends[0].get_extra_info("peername")[1] == port), None)

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        turn = next(self._turn) % len(self.servers)
        in_turn = [server for server in [*self.servers[turn:], *self.servers[:turn]] if server in self.well - self.spared]
        serves = Counter(_far_end(writers) for writers in self._open.values())
        for server in sorted(in_turn, key=lambda server: serves[server]):
            try:
                return await asyncio.open_connection(*server)
            except OSError:
                self.well.discard(server)
        raise ConnectionRefusedError

    async def _ask(self) -> None:
        while True:
            answers = await asyncio.gather(*(is_well(server) for server in self.servers))
            for server, well in zip(self.servers, answers, strict=True):
                self._missed[server] = 0 if well is not None else self._missed[server] + 1
                if well:
                    self.well.add(server)
                elif well is False:
                    self.well.discard(server)
            silent = {server for server in self.servers if self._missed[server] >= MISSES}
            self.well = self.well - silent or self.well
            await asyncio.sleep(ASK_EVERY_S)


def _far_end(ends: Sequence[asyncio.StreamWriter]) -> Place | None:
    """The server of a connection; None while none is found."""
    if len(ends) < 2:
        return None
    host, port = ends[1].get_extra_info("peername")[:2]
    return host, port


async def is_well(server: Place) -> bool | None:
    """Whether it says that new calls are welcome; None when it says nothing in time."""
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            reader, writer = await asyncio.open_connection(*server)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        return None
    except OSError:
        return False
