"""A bad network between two programs: a TCP proxy that refuses, swallows, delays, throttles, resets or cuts, switched while it carries.

`async with Proxy(("127.0.0.1", 8090)) as proxy:` listens on `proxy.port`; `proxy.weather` may be changed at any time and holds for
connections that are open as well. Directions are seen from who connects: `up` is what they send, `down` what they get.
No data is lost within a connection unless it ends: a direction that is swallowed waits, as behind a dead link, and goes on afterwards.
"""

from __future__ import annotations

import asyncio
import random
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from bridge.sandbox.web import LINGER_0

CHUNK = 16 * 1024
STEP_S = 0.02  # how soon a change of the weather is felt


@dataclass(frozen=True, slots=True)
class Weather:
    """What the network does. Times in seconds; all off is a clear day."""

    refuse: bool = False  # whoever connects is reset at once
    up_dead: bool = False  # nothing gets through that way any more, and nobody is told
    down_dead: bool = False
    delay_s: float = 0.0  # each piece comes so much later, in order ...
    jitter_s: float = 0.0  # ... and by up to so much more
    bytes_per_s: float = 0.0  # 0: as fast as it goes
    cut_after: int | None = None  # a connection ends, by a reset, after so many bytes, both directions together


CLEAR = Weather()


class Proxy:
    """Listens on 127.0.0.1 and passes everything on to `to`: host and port."""

    def __init__(self, to: tuple[str, int], *, port: int = 0, rng: random.Random | None = None) -> None:
        self.to = to
        self.port = port
        self.weather = CLEAR
        self.carried = {"up": 0, "down": 0}  # bytes, of all connections
        self.refused = 0
        self._rng = rng or random.Random()
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._server is not None:
            self._server.close()
        for task in (carrying := list(self._open)):
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)

    @property
    def connections(self) -> int:
        return len(self._open)

    def reset(self) -> int:
        """Every open connection is reset at both ends, now. Returns how many there were."""
        for task, writers in self._open.items():
            for writer in writers:
                _abort(writer)
            task.cancel()
        return len(self._open)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._open[task] = (writer,)
        try:
            if self.weather.refuse:
                raise ConnectionRefusedError
            far_reader, far_writer = await self._reach()
            self._open[task] = (writer, far_writer)
            both = _Both()
            await asyncio.gather(self._pass("up", reader, far_writer, both), self._pass("down", far_reader, writer, both))
        except ConnectionRefusedError:
            self.refused += 1
            _abort(writer)
        except (OSError, asyncio.CancelledError):
            for each in self._open[task]:
                _abort(each)
        finally:
            for each in self._open.pop(task):
                each.close()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises OSError when nobody is there."""
        return await asyncio.open_connection(*self.to)

    async def _pass(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, both: _Both) -> None:
        """One direction, to its end. Raises OSError when the connection is to be reset."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)
        reading = asyncio.create_task(self._read(reader, pieces))
        try:
            while True:
                read_at, piece = await pieces.get()
                late_s = self.weather.delay_s + self._rng.uniform(0, self.weather.jitter_s)
                await asyncio.sleep(read_at + late_s - loop.time())
                while self.weather.up_dead if way == "up" else self.weather.down_dead:  # noqa: ASYNC110 - the weather is an attribute, nobody tells of it
                    await asyncio.sleep(STEP_S)
                if not piece:
                    await reading  # raises what ended it
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                await self._send(way, piece, writer, both)
        finally:
            reading.cancel()

    async def _send(self, way: str, piece: bytes, writer: asyncio.StreamWriter, both: _Both) -> None:
        limit = self.weather.cut_after
        if limit is not None:
            piece = piece[: max(limit - both.bytes, 0)]
        writer.write(piece)
        await writer.drain()
        both.bytes += len(piece)
        self.carried[way] += len(piece)
        if limit is not None and both.bytes >= limit:
            raise ConnectionResetError
        if self.weather.bytes_per_s:
            await asyncio.sleep(len(piece) / self.weather.bytes_per_s)

    async def _read(self, reader: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]]) -> None:
        now = asyncio.get_running_loop().time
        try:
            while piece := await reader.read(int(min(CHUNK, self.weather.bytes_per_s or CHUNK)) or 1):
                await pieces.put((now(), piece))
        finally:
            await pieces.put((now(), b""))


@dataclass(slots=True)
class _Both:
    """What has passed in a connection, both directions together."""

    bytes: int = 0


def _abort(writer: asyncio.StreamWriter) -> None:
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
    writer.transport.abort()
