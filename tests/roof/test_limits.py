"""What strangers may do to a socket of ours, on real sockets. Time limits are shortened; each is a number of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bridge.ports import WIRE
from supportvoice import guards
from supportvoice.duty import Duty
from supportvoice.limits import BODY_LIMIT, BodyLimits, no_browsers
from tests.roof.raw_sockets import WHATEVER_FRAMES_IT, serving, upgraded
from tests.roof.toy_child import house, toy

WEBHOOK = b"POST /webhook/twilio HTTP/1.1\r\nHost: x\r\n"


async def answer_to(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Everything the server says to these bytes until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reading = asyncio.create_task(reader.read())
    try:
        for part in parts:
            if not reading.done():
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
        return await asyncio.wait_for(reading, 10)
    finally:
        writer.close()


async def test_a_header_that_never_ends_is_answered_408_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "HEADER_SECONDS", 1.0)  # long enough for a busy machine to send it all before
    async with serving(toy) as port:
        assert b" 408 " in await answer_to(port, WEBHOOK, b"X-Slow: ", b"1", b"2", pause=0.02)


async def test_a_connection_that_never_says_anything_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "HEADER_SECONDS", 0.2)
    async with serving(toy) as port:
        assert b" 408 " in await answer_to(port)


async def test_a_slow_header_of_a_second_request_is_closed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "HEADER_SECONDS", 0.2)
    async with serving(toy) as port:
        said = await answer_to(port, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /b HTTP/1.1\r\n", pause=0.1)
    assert b"/a 0" in said
    assert said.count(b"HTTP/1.1 ") == 2
    assert b" 408 " in said


async def test_a_header_longer_than_32_kib_is_refused_before_it_ends() -> None:
    async with serving(toy) as port:
        said = await answer_to(port, WEBHOOK, b"X-Long: ", *[b"y" * 8192] * 5, pause=0.01)
    assert b" 431 " in said


async def test_a_long_header_in_one_piece_is_refused() -> None:
    async with serving(toy) as port:
        said = await answer_to(port, WEBHOOK + b"X-Long: " + b"y" * 40_000 + b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 4")


async def test_a_body_announced_too_long_is_refused_unread() -> None:
    async with serving(BodyLimits(toy)) as port:
        said = await answer_to(port, WEBHOOK + b"Content-Length: %d\r\n\r\n" % (BODY_LIMIT + 1))
    assert b" 413 " in said
    assert b"longer than 262144 bytes." in said


async def test_a_chunked_body_is_counted_while_it_is_read() -> None:
    chunk = b"10000\r\n" + b"z" * 65_536 + b"\r\n"
    async with serving(BodyLimits(toy)) as port:
        said = await answer_to(port, WEBHOOK + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 40)
    assert b" 413 " in said


async def test_a_body_of_exactly_the_limit_is_read_whole() -> None:
    head = WEBHOOK + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % BODY_LIMIT
    async with serving(BodyLimits(toy)) as port:
        assert (await answer_to(port, head, b"z" * BODY_LIMIT)).endswith(b"/webhook/twilio 262144")


async def test_a_wide_door_takes_more_and_only_there() -> None:
    body = b"Connection: close\r\nContent-Length: 300000\r\n\r\n" + b"z" * 300_000
    async with serving(BodyLimits(toy, wide={"/webhook/vapi": 8 << 20})) as port:
        assert (await answer_to(port, b"POST /webhook/vapi HTTP/1.1\r\nHost: x\r\n" + body)).endswith(b"/webhook/vapi 300000")
        assert b" 413 " in await answer_to(port, WEBHOOK + body)


async def test_a_body_that_drips_is_answered_408() -> None:
    async with serving(BodyLimits(toy, seconds=0.2)) as port:
        said = await answer_to(port, WEBHOOK + b"Content-Length: 100\r\n\r\n", *[b"z"] * 5, pause=0.06)
    assert b" 408 " in said


@pytest.mark.parametrize(("under", "by_picows"), [("", False), ("/webhook", True)])
async def test_a_vendors_socket_is_framed_by_picows_and_any_other_by_uvicorn(under: str, by_picows: bool) -> None:
    seen = asyncio.get_running_loop().create_future()

    async def looks(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.set_result("wire" in (scope["extensions"] or {}).get(WIRE, {}))

    async with serving(looks) as port, connect(f"ws://127.0.0.1:{port}{under}/live", proxy=None):
        assert await asyncio.wait_for(seen, 10) is by_picows


@WHATEVER_FRAMES_IT
async def test_a_message_of_64_kib_passes_and_one_byte_more_closes_with_1009(under: str) -> None:
    async with serving(toy) as port, connect(f"ws://127.0.0.1:{port}{under}/live", proxy=None) as socket:
        await socket.send("a" * 65_536)
        assert await socket.recv() == "65536"
        await socket.send("a" * 65_537)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


@WHATEVER_FRAMES_IT
async def test_more_than_64_fragments_close_with_1009(under: str) -> None:
    async def crumbs() -> AsyncIterator[str]:
        for _ in range(200):
            yield ""

    async with serving(toy) as port, connect(f"ws://127.0.0.1:{port}{under}/live", proxy=None) as socket:
        with contextlib.suppress(ConnectionClosed):
            await socket.send(crumbs())
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


HALF_A_FRAME = b"\x81\xfe\x01\x00aaaa" + b"x" * 10  # 256 bytes announced, 10 sent
FIRST_FRAGMENT = b"\x01\x81aaaa" + b"x"


@WHATEVER_FRAMES_IT
@pytest.mark.parametrize("begun", [HALF_A_FRAME, FIRST_FRAGMENT], ids=["half a frame", "a fragment"])
async def test_a_message_that_is_never_finished_closes_with_1008(monkeypatch: pytest.MonkeyPatch, begun: bytes, under: str) -> None:
    monkeypatch.setattr(guards, "MESSAGE_SECONDS", 0.2)
    async with serving(toy) as port, connect(f"ws://127.0.0.1:{port}{under}/live", proxy=None) as socket:
        socket.transport.write(begun)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


@WHATEVER_FRAMES_IT
async def test_compression_is_not_agreed_to(under: str) -> None:
    async with serving(toy) as port, connect(f"ws://127.0.0.1:{port}{under}/live", compression="deflate", proxy=None) as socket:
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" not in socket.response.headers
        assert "server" not in socket.response.headers


@WHATEVER_FRAMES_IT
async def test_a_peer_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch, under: str) -> None:
    monkeypatch.setattr(guards, "UNREAD_SECONDS", 0.3)
    gone = asyncio.Event()

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        try:
            await toy(scope, receive, send)
        except Exception:
            gone.set()
            raise

    async with serving(watched) as port, connect(f"ws://127.0.0.1:{port}{under}/flood", proxy=None, max_queue=1) as socket:
        try:
            await asyncio.wait_for(gone.wait(), 10)
        finally:
            socket.transport.abort()


# -- a close that gets no answer ---------------------------------------------------------------------------------------------

MEDIA, PAGE = "/webhook/twilio/media", "/ws/console/live/"
GOODBYE = b"\x88\x02\x03\xe8"  # a close frame with 1000
ANSWER = b"\x88\x82\x00\x00\x00\x00\x03\xe8"  # the same, masked as a client's


async def says_goodbye(scope: Any, receive: Any, send: Any) -> None:
    """Takes the socket, closes it, and stays for a while: the application's own end hastens nothing."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 1000})
    await asyncio.sleep(5)


async def test_a_vendor_that_does_not_answer_our_close_is_gone_within_a_second_and_a_half() -> None:
    async with serving(says_goodbye) as port, upgraded(port, MEDIA) as (reader, _):
        assert await reader.readexactly(4) == GOODBYE
        closed = time.monotonic()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert 0.8 < time.monotonic() - closed < 1.5


async def test_a_vendor_that_answers_our_close_is_let_go_at_once() -> None:
    async with serving(says_goodbye) as port, upgraded(port, MEDIA) as (reader, writer):
        assert await reader.readexactly(4) == GOODBYE
        closed = time.monotonic()
        writer.write(ANSWER)
        assert await asyncio.wait_for(reader.read(), 5) == b""  # and no reset
        assert time.monotonic() - closed < 0.5


async def test_a_vendor_that_reads_nothing_any_more_does_not_hold_our_close_up() -> None:
    """What it has not read stands before the close frame, which so never leaves."""
    left = asyncio.get_running_loop().create_future()

    async def stuck(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await send({"type": "websocket.send", "bytes": b"x" * 65_536})
        started = time.monotonic()
        with contextlib.suppress(Exception):  # every server has its own class for "the peer is gone"
            await send({"type": "websocket.close", "code": 1000})
        left.set_result(time.monotonic() - started)

    async with serving(stuck) as port, upgraded(port, MEDIA):
        assert await asyncio.wait_for(left, 10) < 1.5


async def test_a_page_has_more_time_to_answer_our_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "GOODBYE_SECONDS", 0.1)
    async with serving(says_goodbye) as port, upgraded(port, PAGE) as (reader, writer):
        assert await reader.readexactly(4) == GOODBYE
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(), 0.5)
        writer.write(ANSWER)
        assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_a_web_page_may_not_open_a_vendors_socket() -> None:
    async with serving(no_browsers(toy)) as port:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{port}/live", origin="https://evil.example", proxy=None)  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403


async def test_health_answers_and_readiness_ends_with_duty() -> None:
    duty = Duty()
    async with serving(house(duty)) as port:
        ask = b"GET /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert b" 200 " in await answer_to(port, ask % b"readyz")
        duty.draining = True
        assert b" 503 " in await answer_to(port, ask % b"readyz")
        assert b" 200 " in await answer_to(port, ask % b"healthz")
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{port}/live", proxy=None)
    assert refused.value.response.status_code == 503
