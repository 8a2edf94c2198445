"""The outgoing audio socket against a real server that behaves well, badly, or not at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web

from bridge import vapi_link
from bridge.errors import VapiRefused, VapiUnavailable
from bridge.manners import Garbage
from bridge.ports import Link, LinkClosed
from bridge.vapi_link import GONE_LOOKS, SILENT_LOOKS, UNREAD_LIMIT, VapiConversations

PAGE = os.sysconf("SC_PAGE_SIZE")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def vapi(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/transport", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/transport"
    finally:
        await runner.cleanup()


async def the_next(link: Link) -> bytes | str | Garbage:
    """One message, and no more. Raises LinkClosed."""
    got: list[bytes | str | Garbage] = []

    def hear(message: bytes | str | Garbage) -> bool:
        got.append(message)
        return False

    await link.carry(hear)
    return got.pop()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


async def test_sound_and_texts_pass_both_ways_in_order() -> None:
    got: list[object] = []

    async def talk(request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == "Bearer key"
        assert "Sec-WebSocket-Extensions" not in request.headers
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_bytes(b"\x01" * 371)
        await socket.send_str('{"type":"hang"}')
        for _ in range(2):
            got.append((await socket.receive()).data)
        await socket.close(code=1000)
        return socket

    async with vapi(talk) as url:
        link = await VapiConversations(api_key="key").open(url)
        assert [await the_next(link), await the_next(link)] == [b"\x01" * 371, '{"type":"hang"}']
        link.send_audio(b"\xff" * 160)
        link.send_control({"type": "end-call"})
        with pytest.raises(LinkClosed) as closed:
            await the_next(link)
    assert closed.value.code == 1000
    assert got == [b"\xff" * 160, '{"type":"end-call"}']


@pytest.mark.parametrize("listens_after_s", [0.0, 0.2], ids=["told as it comes", "kept until somebody listens"])
async def test_of_a_link_that_is_dropped_nothing_more_is_told_though_it_was_read_with_the_last_word(listens_after_s: float) -> None:
    ended, got = '{"type":"status-update","status":"ended"}', list[object]()

    async def end_and_go_on(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        assert request.transport is not None
        await asyncio.sleep(0.1)
        text, sound = bytes([0x81, len(ended)]) + ended.encode(), bytes([0x82, 4]) + b"\x01" * 4
        request.transport.write(text + sound * 3)  # in one read
        await socket.receive()
        return socket

    async with vapi(end_and_go_on) as url:
        link = await VapiConversations(api_key="").open(url)
        await asyncio.sleep(listens_after_s)

        def hear(message: bytes | str | Garbage) -> bool:
            got.append(message)
            link.drop()
            return True

        with pytest.raises(LinkClosed) as closed:
            await link.carry(hear)
    assert (got, closed.value.code) == ([ended], 1006)


async def test_sound_for_a_vapi_that_has_closed_is_counted_as_dropped() -> None:
    async def leave(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close(code=1000)
        return socket

    async with vapi(leave) as url:
        link = await VapiConversations(api_key="").open(url)
        with pytest.raises(LinkClosed):
            await the_next(link)
        link.send_audio(b"\xff" * 160)
    assert (link.dropped_bytes, link.dropped_frames) == (160, 1)


@pytest.mark.parametrize("code", [1001, 1011, 1012])
async def test_the_code_of_a_close_is_told(code: int) -> None:
    async def leave(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close(code=code)
        return socket

    async with vapi(leave) as url:
        link = await VapiConversations(api_key="").open(url)
        with pytest.raises(LinkClosed) as closed:
            await the_next(link)
    assert closed.value.code == code


async def test_a_connection_that_breaks_is_1006() -> None:
    async def vanish(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        assert request.transport is not None
        request.transport.abort()
        return socket

    async with vapi(vanish) as url:
        link = await VapiConversations(api_key="").open(url)
        with pytest.raises(LinkClosed) as closed:
            await the_next(link)
    assert closed.value.code == 1006


async def test_a_no_is_refused_and_nobody_there_is_unavailable() -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    async with vapi(refuse) as url:
        with pytest.raises(VapiRefused):
            await VapiConversations(api_key="").open(url)
    with pytest.raises(VapiUnavailable) as gone:
        await VapiConversations(api_key="").open(url)
    assert "127.0.0.1" not in str(gone.value)


async def test_a_connection_that_is_cut_before_it_opens_is_no_conversation() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(VapiUnavailable):
            await VapiConversations(api_key="").open(f"ws://127.0.0.1:{port}/")


async def test_a_protocol_that_was_not_offered_is_no_conversation() -> None:
    gone = asyncio.Event()

    async def other_protocol(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        socket.headers["Sec-WebSocket-Protocol"] = "chat.v9"
        await socket.prepare(request)
        async for _ in socket:
            pass
        gone.set()
        return socket

    async with vapi(other_protocol) as url:
        with pytest.raises(VapiUnavailable):
            await VapiConversations(api_key="").open(url)
        await asyncio.wait_for(gone.wait(), 5)


async def test_a_burst_is_no_error_and_reading_pauses_while_nobody_listens() -> None:
    messages = UNREAD_LIMIT * 3

    async def burst(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for number in range(messages):
            await socket.send_bytes(number.to_bytes(2, "big") * 100)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                break
        return socket

    async with vapi(burst) as url:
        link = await VapiConversations(api_key="").open(url)
        first = await the_next(link)
        await asyncio.sleep(0)
        got = [first, *[await the_next(link) for _ in range(messages - 1)]]
        link.send_control({"type": "end-call"})
        await link.close()
    assert [int.from_bytes(each[:2], "big") for each in got if isinstance(each, bytes)] == list(range(messages))


async def test_who_has_heard_enough_gets_no_more_and_what_it_raises_is_raised_where_it_listens() -> None:
    async def talk(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for number in range(6):
            await asyncio.sleep(0.01)
            await socket.send_str(str(number))
        await socket.close()
        return socket

    got: list[object] = []

    def hear(message: object) -> bool:
        got.append(message)
        if message == "3":
            raise ValueError("three")
        return message != "1"

    async with vapi(talk) as url:
        link = await VapiConversations(api_key="").open(url)
        await link.carry(hear)
        assert got == ["0", "1"]
        with pytest.raises(ValueError, match="three"):
            await link.carry(hear)
        assert got == ["0", "1", "2", "3"]
        with pytest.raises(LinkClosed):
            await link.carry(hear)
    assert got == ["0", "1", "2", "3", "4", "5"]


async def test_who_stops_listening_is_told_nothing_more() -> None:
    said = asyncio.Event()

    async def talk(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await said.wait()
        await socket.send_str("late")
        await socket.receive()
        return socket

    got: list[object] = []

    def hear(message: object) -> bool:
        got.append(message)
        return True

    async with vapi(talk) as url:
        link = await VapiConversations(api_key="").open(url)
        listening = asyncio.create_task(link.carry(hear))
        await asyncio.sleep(0)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        said.set()
        assert await the_next(link) == "late"
        await link.close()
    assert got == []


@pytest.mark.parametrize(
    ("kind", "message"),
    [("too-long", "x" * 1_000_000), ("too-long", b"\x55" * 10_000_000), ("empty", b""), ("empty", "")],
    ids=["1 MB of text", "10 MB of sound", "no sound", "no text"],
)
async def test_a_message_no_sane_vapi_would_send_is_thrown_away(kind: str, message: bytes | str) -> None:
    async def garble(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for _ in range(3):
            await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
        await socket.send_str('{"type":"hang"}')
        await socket.receive()
        return socket

    async with vapi(garble) as url:
        link = await VapiConversations(api_key="").open(url)
        assert [await the_next(link) for _ in range(4)] == [Garbage(kind)] * 3 + ['{"type":"hang"}']
        await link.close()


async def test_text_that_is_no_text_is_thrown_away_and_fragments_are_put_together() -> None:
    async def garble(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_frame(b"\xff\xfe", WSMsgType.TEXT)
        assert request.transport is not None
        request.transport.write(b"\x01\x02{}" + b"\x00\x00" * 10 + b"\x80\x01 ")
        await socket.receive()
        return socket

    async with vapi(garble) as url:
        link = await VapiConversations(api_key="").open(url)
        assert [await the_next(link), await the_next(link)] == [Garbage("not-text"), "{} "]
        await link.close()


async def test_a_message_in_endless_fragments_ends_the_socket() -> None:
    async def garble(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        assert request.transport is not None
        request.transport.write(b"\x01\x00" + b"\x00\x00" * 10_000)
        await socket.receive()
        return socket

    async with vapi(garble) as url:
        link = await VapiConversations(api_key="").open(url)
        with pytest.raises(LinkClosed):
            await the_next(link)


async def test_a_hundred_megabytes_of_garbage_leave_no_memory_behind() -> None:
    async def garble(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        block = bytes(5_000_000)
        for _ in range(20):
            await socket.send_bytes(block)
        await socket.send_str("{}")
        await socket.receive()
        return socket

    async with vapi(garble) as url:
        link = await VapiConversations(api_key="").open(url)
        before = resident_bytes()
        while await the_next(link) != "{}":
            pass
        assert resident_bytes() - before < 60_000_000
        await link.close()


async def test_sound_for_a_vapi_that_does_not_read_is_dropped_and_counted_but_not_waited_for() -> None:
    done = asyncio.Event()

    async def stall(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        assert request.transport is not None
        request.transport.pause_reading()
        await done.wait()
        request.transport.abort()
        return socket

    async with vapi(stall) as url:
        link = await VapiConversations(api_key="").open(url)
        for _ in range(2000):
            link.send_audio(b"\x55" * 4000)
        assert link.dropped_bytes > 0
        assert link.dropped_bytes < 2000 * 4000
        done.set()
        await link.close()


async def quiet(request: web.Request, *, answers: int) -> web.StreamResponse:
    """A Vapi that says nothing, answers so many pings, and closes after thirty."""
    socket = web.WebSocketResponse(autoping=False)
    await socket.prepare(request)
    for number in range(30):
        if (message := await socket.receive()).type != WSMsgType.PING:
            return socket
        if number < answers:
            await socket.pong(message.data)
    await socket.close(code=1000)
    return socket


@pytest.mark.parametrize(
    ("answers", "silences", "code"),
    [(1, GONE_LOOKS - SILENT_LOOKS, 1006), (30, 0, 1000), (0, 0, 1000)],
    ids=["until it is gone", "always", "never"],
)
async def test_a_vapi_that_answers_no_more_is_told_of_and_then_given_up_and_one_that_only_says_nothing_is_not(
    answers: int, silences: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vapi_link, "LOOK_EVERY_S", 0.05)
    told: list[None] = []
    async with vapi(partial(quiet, answers=answers)) as url:
        link = await VapiConversations(api_key="key").open(url)
        with pytest.raises(LinkClosed) as closed:
            await link.carry(lambda message: True, on_silence=lambda: told.append(None))
    assert (len(told), closed.value.code) == (silences, code)
