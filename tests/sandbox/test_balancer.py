"""The load balancer over real sockets: who is well gets what is new, in turn, and who is not gets nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

from bridge.sandbox.balancer import ASK_EVERY_S, Balancer

WITHIN_S = 10 * ASK_EVERY_S


class Named:
    """A server that says its name to whoever connects, and whether it is well to whoever asks."""

    def __init__(self, name: bytes) -> None:
        self.name, self.is_well, self.hangs = name, True, False
        self.asked, self.misses = 0, 0
        self.server: asyncio.Server | None = None

    async def start(self) -> tuple[str, int]:
        self.server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return self.place

    @property
    def place(self) -> tuple[str, int]:
        assert self.server is not None
        host, port = self.server.sockets[0].getsockname()[:2]
        return host, port

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = b""
        with suppress(ConnectionResetError):  # whoever is only open
            line = await reader.readline()
        if b"/readyz" not in line:
            writer.write(self.name)
        elif self.hangs or self.misses:
            self.asked, self.misses = self.asked + 1, max(0, self.misses - 1)
            await reader.read()
        else:
            self.asked += 1
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if self.is_well else b"HTTP/1.1 503 No\r\n\r\n")
        writer.close()


@pytest.fixture
async def servers() -> AsyncIterator[tuple[Named, Named]]:
    both = Named(b"one"), Named(b"two")
    for server in both:
        await server.start()
    yield both
    for server in both:
        assert server.server is not None
        server.server.close()


@pytest.fixture
async def balancer(servers: tuple[Named, Named]) -> AsyncIterator[Balancer]:
    async with AsyncExitStack() as left:
        yield await left.enter_async_context(Balancer([server.place for server in servers]))


async def answers(balancer: Balancer) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
    writer.write(b"hello\n")
    try:
        return await asyncio.wait_for(reader.read(), WITHIN_S)
    finally:
        writer.close()


async def until_well(balancer: Balancer, *wanted: Named) -> None:
    async with asyncio.timeout(WITHIN_S):
        while balancer.well != {server.place for server in wanted}:
            await asyncio.sleep(0.01)


async def test_those_who_are_well_take_turns(balancer: Balancer) -> None:
    assert [await answers(balancer) for _ in range(4)] == [b"one", b"two"] * 2


@pytest.mark.parametrize("how", ["says so", "says nothing"])
async def test_who_is_not_well_gets_nothing_new_until_it_is(balancer: Balancer, servers: tuple[Named, Named], how: str) -> None:
    first, second = servers
    first.is_well, first.hangs = how != "says so", how == "says nothing"
    await until_well(balancer, second)
    assert {await answers(balancer) for _ in range(4)} == {b"two"}
    first.is_well, first.hangs = True, False
    await until_well(balancer, first, second)
    assert {await answers(balancer) for _ in range(4)} == {b"one", b"two"}


async def test_one_answer_that_does_not_come_takes_nobody_out(balancer: Balancer, servers: tuple[Named, Named]) -> None:
    first, _ = servers
    first.asked, first.misses = 0, 1
    async with asyncio.timeout(WITHIN_S):
        while first.asked < 3:
            assert first.place in balancer.well
            await asyncio.sleep(0.02)
    assert first.misses == 0


async def test_when_all_say_nothing_they_are_sent_to_all_the_same(balancer: Balancer, servers: tuple[Named, Named]) -> None:
    for server in servers:
        server.hangs, server.asked = True, 0
    async with asyncio.timeout(WITHIN_S):
        while min(server.asked for server in servers) < 4:
            await asyncio.sleep(0.02)
    assert balancer.well == {server.place for server in servers}
    servers[0].hangs, servers[0].is_well = False, False
    async with asyncio.timeout(WITHIN_S):
        while servers[0].place in balancer.well:
            await asyncio.sleep(0.02)
    assert balancer.well == {servers[1].place}, "who says no gets nothing, whoever is left"


async def test_who_meets_a_server_that_is_gone_is_led_to_the_next(balancer: Balancer, servers: tuple[Named, Named]) -> None:
    first, _ = servers
    assert first.server is not None
    first.server.close()
    assert {await answers(balancer) for _ in range(4)} == {b"two"}


async def test_who_is_spared_gets_nothing_and_when_nobody_is_left_one_is_reset(balancer: Balancer, servers: tuple[Named, Named]) -> None:
    first, second = servers
    balancer.spared = {second.place}
    assert {await answers(balancer) for _ in range(4)} == {b"one"}
    balancer.spared = {first.place, second.place}
    with pytest.raises(ConnectionResetError):
        await answers(balancer)


async def test_whoever_serves_fewer_gets_the_next(balancer: Balancer, servers: tuple[Named, Named]) -> None:
    first, _ = servers
    _, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
    for _ in range(3):
        async with asyncio.timeout(WITHIN_S):
            while balancer.connections != 1 or balancer.server_of(writer.get_extra_info("sockname")[1]) != first.place:
                await asyncio.sleep(0.01)
        assert await answers(balancer) == b"two"
    writer.close()


async def test_it_knows_who_serves_an_open_connection(balancer: Balancer, servers: tuple[Named, Named]) -> None:
    first, _ = servers
    _, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
    async with asyncio.timeout(WITHIN_S):
        while balancer.server_of(writer.get_extra_info("sockname")[1]) != first.place:
            await asyncio.sleep(0.01)
    assert balancer.server_of(1) is None
    writer.close()
