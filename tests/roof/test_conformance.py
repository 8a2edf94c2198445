"""RFC 6455 on raw sockets, after the groups of the Autobahn test suite: framing, pings, reserved bits, opcodes, fragments, UTF-8,
closes, sizes; and the same around the sound of a call.

Every case is played three times: at a browser's door, whose frames are uvicorn's, and at a vendor's, whose frames picows cuts, once
with an application that awaits its messages and once with one that listens as a call does. The peer says its bytes, waits for the
answers and closes, unless the server has to close for what it said.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from bridge.express import express
from bridge.ports import WIRE, Wire
from tests.roof.raw_sockets import serving, upgraded

MASK = b"\x37\xfa\x21\x3d"
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
LIMIT = 64 * 1024
OUR_CLOSE = (CLOSE, struct.pack("!H", 1000))
Reply = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Case:
    """What the peer sends, in such pieces, and what must come back. `close`: the last piece makes the server close with this code."""

    name: str
    sent: Sequence[bytes]
    replies: Sequence[Reply] = ()
    close: int | None = None  # the peer closes, with 1000


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True, length: bytes = b"") -> bytes:
    """`length` overrides how the size is written."""
    size = len(data)
    short = size if size < 126 else 126 if size < 65_536 else 127
    written = length or (
        bytes([short | (0x80 if masked else 0)]) + (b"" if short < 126 else struct.pack("!H" if short == 126 else "!Q", size))
    )
    body = bytes(byte ^ MASK[at % 4] for at, byte in enumerate(data)) if masked else data
    return bytes([(0x80 if fin else 0) | rsv << 4 | opcode]) + written + (MASK if masked else b"") + body


def goodbye(code: int = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def framing() -> Iterator[Case]:
    for kind in (TEXT, BINARY):
        for size in (0, 1, 2, 4, 7, 8, 16, 63, 64, 124, 125, 126, 127, 128, 129, 1000, 4096, 32_767, 65_534, 65_535, 65_536):
            data = b"*" * size
            yield Case(f"{size} of {kind}", [frame(kind, data)], [(kind, data)])
        for size in (1, 3, 7, 97, 997):
            data = b"*" * 2000
            yield Case(
                f"{kind} chopped to {size}",
                in_pieces(frame(kind, data), size) if size > 4 else [frame(kind, data)[:size], frame(kind, data)[size:]],
                [(kind, data)],
            )
        many = [bytes([65 + number % 26]) * number for number in range(1, 60)]
        yield Case(f"many of {kind} in one piece", [b"".join(frame(kind, each) for each in many)], [(kind, each) for each in many])


def pings() -> Iterator[Case]:
    for size in (0, 1, 5, 64, 124, 125):
        data = bytes(range(size))
        yield Case(f"ping of {size}", [frame(PING, data)], [(PONG, data)])
        yield Case(f"pong of {size} that nobody asked for", [frame(PONG, data)])
    for size in (126, 200):
        yield Case(f"ping of {size}", [frame(PING, b"x" * size)], close=1002)
        yield Case(f"pong of {size}", [frame(PONG, b"x" * size)], close=1002)
    yield Case("ten pings", [b"".join(frame(PING, bytes([at])) for at in range(10))], [(PONG, bytes([at])) for at in range(10)])
    yield Case("ping cut to bytes", [*in_pieces(frame(PING, b"payload"), 1)], [(PONG, b"payload")])
    yield Case("pong, then ping", [frame(PONG, b"a") + frame(PING, b"b")], [(PONG, b"b")])


def reserved_bits() -> Iterator[Case]:
    for rsv in range(1, 8):
        for kind in (TEXT, BINARY, PING, PONG, CLOSE):
            yield Case(f"rsv {rsv} on {kind}", [frame(kind, b"", rsv=rsv)], close=1002)
        yield Case(f"rsv {rsv} after a good message", [frame(TEXT, b"good"), frame(TEXT, b"bad", rsv=rsv)], [(TEXT, b"good")], close=1002)


def opcodes() -> Iterator[Case]:
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Case(f"opcode {opcode}", [frame(opcode)], close=1002)
        yield Case(f"opcode {opcode} with data", [frame(opcode, b"data")], close=1002)
        yield Case(f"opcode {opcode} after a good message", [frame(TEXT, b"good"), frame(opcode, b"data")], [(TEXT, b"good")], close=1002)
    for kind in (TEXT, BINARY, PING, CLOSE):
        yield Case(f"{kind} without a mask", [frame(kind, b"", masked=False)], close=1002)


def fragments() -> Iterator[Case]:
    for kind in (TEXT, BINARY):
        for parts in (2, 3, 5, 64):
            pieces = [bytes([97 + at % 26]) * at for at in range(parts)]
            sent = [frame(kind if at == 0 else CONT, piece, fin=at == parts - 1) for at, piece in enumerate(pieces)]
            yield Case(f"{kind} in {parts} fragments", [*sent], [(kind, b"".join(pieces))])
            yield Case(f"{kind} in {parts} fragments at once", [b"".join(sent)], [(kind, b"".join(pieces))])
            pinged = [each + frame(PING, b"in between") for each in sent[:-1]] + sent[-1:]
            yield Case(
                f"{kind} in {parts} fragments with pings",
                [b"".join(pinged)],
                [(PONG, b"in between")] * (parts - 1) + [(kind, b"".join(pieces))],
            )
        yield Case(f"empty fragments of {kind}", [frame(kind, fin=False) + frame(CONT, fin=False) + frame(CONT)], [(kind, b"")])
        yield Case(f"{kind} inside a message", [frame(kind, b"a", fin=False) + frame(kind, b"b")], close=1002)
        yield Case(f"{kind} inside a message, fragmented too", [frame(kind, b"a", fin=False) + frame(kind, b"b", fin=False)], close=1002)
        yield Case(f"65 fragments of {kind}", [b"".join(frame(kind if at == 0 else CONT, b"", fin=False) for at in range(66))], close=1009)
    for fin in (True, False):
        yield Case(f"a continuation of nothing, fin {fin}", [frame(CONT, b"x", fin=fin)], close=1002)
        yield Case(
            f"a continuation after a whole message, fin {fin}", [frame(TEXT, b"a"), frame(CONT, b"x", fin=fin)], [(TEXT, b"a")], close=1002
        )
    for kind in (PING, PONG, CLOSE):
        yield Case(f"{kind} in fragments", [frame(kind, b"", fin=False)], close=1002)


GOOD = (
    "",
    "κόσμε",
    "Hello-µ@ßöäüàá-UTF-8!!",
    "\x00",
    "\x7f",
    "\u0080",
    "\u07ff",
    "\u0800",
    "\ufffd",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
    "\ud7ff\ue000",
    "\ufdd0",
)
BAD = (
    *(b"\x80", b"\xbf", b"\x80\xbf\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf"),
    *(b"\xf0\x8f\xbf\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\x80\xed\xb0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80"),
    *(b"\xfe", b"\xff", b"\xfe\xfe\xff\xff", b"\xc0", b"\xc2", b"\xe0\xa0", b"\xf0\x90\x80", b"ok\xce"),
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
)  # fmt: skip


def utf8() -> Iterator[Case]:
    for text in GOOD:
        data = text.encode()
        yield Case(f"good {data!r}", [frame(TEXT, data)], [(TEXT, data)])
        pieces = in_pieces(data, 1) or [b"", b""]
        sent = [frame(TEXT if at == 0 else CONT, piece, fin=at == len(pieces) - 1) for at, piece in enumerate(pieces)]
        yield Case(f"good {data!r} in fragments of one byte", [b"".join(sent)], [(TEXT, data)])
    for data in BAD:
        yield Case(f"bad {data!r}", [frame(TEXT, data)], close=1007)
        yield Case(f"bad {data!r} in two fragments", [frame(TEXT, data[:1], fin=False) + frame(CONT, data[1:])], close=1007)
        yield Case(f"{data!r} as binary is not bad", [frame(BINARY, data)], [(BINARY, data)])


def closes() -> Iterator[Case]:
    yield Case("without a code", [frame(CLOSE)], close=1000)
    yield Case("with one byte", [frame(CLOSE, b"\x03")], close=1002)
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
        yield Case(f"{code}", [goodbye(code)], close=code)
    for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999):
        yield Case(f"{code} is not for the wire", [goodbye(code)], close=1002)
    yield Case("a reason", [goodbye(1000, b"Thank you")], close=1000)
    yield Case("the longest reason", [goodbye(1000, b"x" * 123)], close=1000)
    yield Case("a reason that is too long", [goodbye(1000, b"x" * 124)], close=1002)
    yield Case("a reason that is not UTF-8", [goodbye(1000, b"\xce\xba\xed\xa0\x80")], close=1007)
    yield Case("messages after a close are not heard", [goodbye() + frame(TEXT, b"late") + frame(PING, b"late")], close=1000)


def sizes() -> Iterator[Case]:
    for size in (LIMIT + 1, 2 * LIMIT, 1 << 20):
        yield Case(f"a header that says {size}", [frame(TEXT, b"", length=b"\xff" + struct.pack("!Q", size))], close=1009)
    yield Case("a header that says a gigabyte", [frame(BINARY, b"", length=b"\xff" + struct.pack("!Q", 1 << 30))], close=1009)
    yield Case("fragments that add up to too much", [frame(TEXT, b"x" * 40_000, fin=False) + frame(CONT, b"x" * 40_000)], close=1009)


def by_chance() -> Iterator[Case]:
    """Well-formed conversations, cut anywhere: what was said comes back, in its order."""
    for seed in range(40):
        draw = Random(seed)
        messages = [
            (draw.choice((TEXT, BINARY, PING)), bytes(draw.choices(range(32, 127), k=draw.randrange(0, 120))))
            for _ in range(draw.randrange(1, 30))
        ]
        whole = b"".join(frame(*each) for each in messages)
        cuts = sorted({0, len(whole), *(draw.randrange(len(whole)) for _ in range(draw.randrange(1, 40)))})
        replies = [(PONG if kind == PING else kind, data) for kind, data in messages]
        yield Case(f"seed {seed}", [whole[start:end] for start, end in pairwise(cuts)], replies)


STREAM = "MZ18ad3ab5a668481ce02b83e7395059f0"


def sound(number: int = 1, payload: bytes = b"/v7+/g==", stream: bytes = STREAM.encode()) -> bytes:
    """A message that a call takes before anybody looks whether it is text."""
    return (
        b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d","timestamp":"%d","payload":"%s"},"streamSid":"%s"}'
        % (number, number, 20 * number, payload, stream)
    )


def sounds() -> Iterator[Case]:
    """Nothing passes because sound is around it, or because it looks like sound."""
    good, said = frame(TEXT, sound()), (TEXT, sound())
    many = [sound(number) for number in range(1, 60)]
    yield Case("many at once", [b"".join(frame(TEXT, each) for each in many)], [(TEXT, each) for each in many])
    for size in (1, 7, 97):
        yield Case(f"cut to {size}", in_pieces(good, size), [said])
    for parts in (2, 3, 60):
        pieces = in_pieces(sound(), len(sound()) // parts + 1)
        sent = [frame(CONT if at else TEXT, piece, fin=at == len(pieces) - 1) for at, piece in enumerate(pieces)]
        yield Case(f"in {len(pieces)} fragments", sent, [said])
        yield Case(f"in {len(pieces)} fragments, sound behind it", [b"".join(sent) + good], [said, said])
    for kind in (TEXT, BINARY):
        yield Case(f"inside a message of {kind}", [frame(kind, b"a", fin=False) + good], close=1002)
    yield Case("as binary", [frame(BINARY, sound())], [(BINARY, sound())])
    yield Case("a ping before and behind it", [frame(PING, b"a") + good + frame(PING, b"b")], [(PONG, b"a"), said, (PONG, b"b")])
    for rsv in range(1, 8):
        yield Case(f"with rsv {rsv}", [good, frame(TEXT, sound(), rsv=rsv)], [said], close=1002)
    yield Case("without a mask", [good, frame(TEXT, sound(), masked=False)], [said], close=1002)
    yield Case("after a close", [goodbye() + good], close=1000)
    for data in BAD:
        for name, bad in {
            "for sound": sound(payload=data),
            "in sound": sound(payload=b"/v7+" + data + b"/g=="),
            "for its stream": sound(stream=data),
            "before it": data + sound(),
            "behind it": sound() + data,
        }.items():
            yield Case(f"{data!r} {name}", [good, frame(TEXT, bad)], [said], close=1007)
        yield Case(f"{data!r} between sound", [good, frame(TEXT, data) + good], [said], close=1007)


GROUPS = {
    group.__name__: list(group()) for group in (framing, pings, reserved_bits, opcodes, fragments, utf8, closes, sizes, sounds, by_chance)
}


async def awaits(scope: Any, receive: Any, send: Any) -> None:
    """Echoes what it awaits."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def listens(scope: Any, receive: Any, send: Any) -> None:
    """Echoes what it is told as a call is: its sound first, as it came, and all else as text, which is empty for binary."""
    await receive()
    await send({"type": "websocket.accept"})
    wire: Wire = scope["extensions"][WIRE]["wire"]
    sound_of = express(STREAM)

    def echo(text: str) -> None:
        assert wire.write(text)

    def takes(message: bytes) -> bool:
        if is_sound := sound_of(message) is not None:
            echo(message.decode())
        return is_sound

    wire.listen(echo, first=takes)
    while (await receive())["type"] == "websocket.receive":
        raise AssertionError("a message was not told")


WAYS = {
    "uvicorn": (awaits, "/ws/console/live/"),
    "picows": (awaits, "/webhook/twilio/media"),
    "picows, as a call": (listens, "/webhook/twilio/media"),
}


async def played(port: int, door: str, case: Case) -> tuple[list[Reply], int | None]:
    """The server's messages, and the code it closed with; None when it closed without one."""
    replies: list[Reply] = []
    async with asyncio.timeout(10), upgraded(port, door) as (reader, writer):
        pieces = list(case.sent)
        last = pieces.pop() if case.close else goodbye()
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        while True:
            if len(replies) == len(case.replies):
                writer.write(last)
            try:
                opcode, data = await read_frame(reader)
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return replies, None
            if opcode == CLOSE:
                return replies, struct.unpack("!H", data[:2])[0] if data else 1000
            replies.append((opcode, data))


def in_their_order(replies: Sequence[Reply]) -> tuple[list[Reply], list[Reply]]:
    """Pongs overtake messages, which the application answers."""
    return [each for each in replies if each[0] == PONG], [each for each in replies if each[0] != PONG]


async def read_frame(reader: asyncio.StreamReader) -> Reply:
    first, second = await reader.readexactly(2)
    assert first & 0x80, "the server sends whole messages"
    assert not first & 0x70
    assert not second & 0x80, "the server masks nothing"
    size = second
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    return first & 0x0F, await reader.readexactly(size)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("group", GROUPS)
async def test_the_server_speaks_websocket_as_the_rfc_has_it(group: str, way: str) -> None:
    app, door = WAYS[way]
    wrong = []
    async with serving(app) as port:
        for case in GROUPS[group]:
            expected = [(TEXT, b"") if app is listens and kind == BINARY else (kind, data) for kind, data in case.replies]
            replies, code = await played(port, door, case)
            if (in_their_order(replies), code) != (in_their_order(expected), case.close or 1000):
                wrong.append((case.name, replies[:3], code))
    assert wrong == []


def test_there_are_more_than_three_hundred_cases() -> None:
    assert sum(map(len, GROUPS.values())) >= 300
