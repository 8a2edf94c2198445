"""The bad network, over real sockets: what each kind of weather does to who is connected, and that it can change meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from bridge.sandbox.proxy import CLEAR, Proxy, Weather

SOON_S = 5.0


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """In front of a server that says everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while said := await reader.read(65536):
                writer.write(said)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()[:2]) as between:
        yield between


async def connect(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def said_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: bytes) -> bytes:
    writer.write(words)
    async with asyncio.timeout(SOON_S):
        return await reader.readexactly(len(words))


async def is_silent(reader: asyncio.StreamReader, for_s: float = 0.3) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(reader.read(1), for_s)
        return False
    return True


async def is_reset(reading: Callable[[], Awaitable[bytes]]) -> bool:
    with suppress(ConnectionResetError):
        async with asyncio.timeout(SOON_S):
            await reading()
        return False
    return True


async def test_on_a_clear_day_everything_comes_through_and_an_end_is_passed_on(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    words = bytes(range(256)) * 4000
    writer.write(words)
    writer.write_eof()
    async with asyncio.timeout(SOON_S):
        assert await reader.read() == words
        while proxy.connections:
            await asyncio.sleep(0.01)
    assert proxy.carried == {"up": len(words), "down": len(words)}
    writer.close()


async def test_it_refuses_who_comes_and_lets_who_is_there_go_on(proxy: Proxy) -> None:
    before = await connect(proxy)
    assert await said_back(*before, b"one") == b"one"
    proxy.weather = Weather(refuse=True)
    with suppress(ConnectionResetError):
        reader, _ = await connect(proxy)
        assert await is_reset(lambda: reader.read(1))
    assert proxy.refused == 1
    assert await said_back(*before, b"two") == b"two"
    before[1].close()


@pytest.mark.parametrize("weather", [Weather(up_dead=True), Weather(down_dead=True)])
async def test_a_dead_direction_swallows_without_a_word_and_goes_on_later(proxy: Proxy, weather: Weather) -> None:
    reader, writer = await connect(proxy)
    assert await said_back(reader, writer, b"one") == b"one"
    proxy.weather = weather
    writer.write(b"two")
    assert await is_silent(reader)
    assert proxy.carried["up"] == (3 if weather.up_dead else 6)
    proxy.weather = CLEAR
    assert await asyncio.wait_for(reader.readexactly(3), SOON_S) == b"two"
    writer.close()


async def test_a_delay_holds_back_every_piece_and_keeps_the_order(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    proxy.weather = Weather(delay_s=0.15, jitter_s=0.05)
    began = time.monotonic()
    for piece in (b"a", b"b", b"c"):
        writer.write(piece)
        await asyncio.sleep(0.01)
    assert await asyncio.wait_for(reader.readexactly(3), SOON_S) == b"abc"
    assert time.monotonic() - began >= 0.3  # there and back
    writer.close()


async def test_a_throttle_lets_so_many_bytes_a_second_through(proxy: Proxy) -> None:
    proxy.weather = Weather(bytes_per_s=2000)
    reader, writer = await connect(proxy)
    began = time.monotonic()
    assert await said_back(reader, writer, b"x" * 3000) == b"x" * 3000
    assert time.monotonic() - began >= 1.0
    writer.close()


async def test_a_reset_ends_what_is_open_without_a_close(proxy: Proxy) -> None:
    reader, writer = await connect(proxy)
    assert await said_back(reader, writer, b"one") == b"one"
    assert proxy.reset() == 1
    assert await is_reset(lambda: reader.read(1))
    again = await connect(proxy)
    assert await said_back(*again, b"two") == b"two"
    again[1].close()
    writer.close()


async def test_a_connection_is_cut_after_so_many_bytes(proxy: Proxy) -> None:
    proxy.weather = Weather(cut_after=10)
    reader, writer = await connect(proxy)
    assert await said_back(reader, writer, b"1234") == b"1234"
    writer.write(b"5678")
    assert await is_reset(lambda: reader.readexactly(4))
    writer.close()


async def test_where_nobody_listens_the_connection_is_refused() -> None:
    async with Proxy(("127.0.0.1", 1)) as proxy:
        reader, writer = await connect(proxy)
        assert await is_reset(lambda: reader.read(1))
        assert proxy.refused == 1
        writer.close()
