"""A vendor's open socket, cut into messages by picows: half the processor time of a call went into doing that in Python.

uvicorn reads the upgrade and our application accepts or refuses it; `Framed.take_over` then answers it and has the
connection. What picows leaves to its user is here: messages of several fragments, reserved bits, text that is text, and
who must be told of an end. Whoever carries a call listens by callback (`bridge.ports.Wire`): one message costs no task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import picows
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # what `picows.ws_create_server` makes of each connection; uvicorn has accepted ours

log = logging.getLogger("picows.server")

MESSAGE_BYTES = 64 * 1024
MESSAGE_FRAGMENTS = 64
UNHEARD_MESSAGES = 32  # before anybody listens; more are left to TCP
UPGRADE = "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
TEXT, BINARY = picows.WSMsgType.TEXT, picows.WSMsgType.BINARY
CONTINUATION, CLOSE, PING = picows.WSMsgType.CONTINUATION, picows.WSMsgType.CLOSE, picows.WSMsgType.PING
NO_CODE, ABNORMAL = 1005, 1006
NEVER_SENT = (0, NO_CODE, ABNORMAL)  # picows lets the first and the last one pass


class Owner(Protocol):
    """The uvicorn protocol that had the connection before and still answers for it."""

    def tell(self, event: Mapping[str, Any]) -> None:
        """An ASGI event for the application."""

    def told_messages(self) -> list[Mapping[str, Any]]:
        """The messages among them that the application has not read; it will not find them any more."""

    def message_goes_on(self, unfinished: bool) -> None:
        """Bytes came; `unfinished` when a message that began is not complete."""

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


def _takes_nothing(message: bytes) -> bool:
    return False


class Framed(picows.WSListener):  # type: ignore[misc]
    """One socket. `closing` is true from the first close frame in either direction on: no message follows it."""

    def __init__(self, owner: Owner) -> None:
        self.closing = False
        self.whole = True  # no message is under way
        self._owner = owner
        self._on_text: Callable[[str], None] | None = None
        self._first: Callable[[bytes], bool] = _takes_nothing
        self.waited_for = False  # the application has not taken what came; until it does, nothing more is read
        self._writable = True
        self._unheard = 0
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._kind: picows.WSMsgType | None = None  # of the message whose fragments are coming
        self._socket: picows.WSTransport
        self._send: Callable[[picows.WSMsgType, str], None]

    def take_over(self, transport: asyncio.Transport, key: str) -> None:
        """Answer the upgrade whose `Sec-WebSocket-Key` this is, and read the connection from now on."""
        cutter = _Cutter(self)
        cutter.connection_made(transport)
        request = (UPGRADE % key).encode()
        cutter.get_buffer(len(request))[: len(request)] = request
        WSProtocol.buffer_updated(cutter, len(request))
        transport.pause_reading()  # uvloop looks how a protocol wants its bytes when reading begins
        transport.set_protocol(cutter)
        transport.resume_reading()

    # -- the application's side ----------------------------------------------------------------------------------------

    def listen(self, on_text: Callable[[str], None], *, first: Callable[[bytes], bool]) -> None:
        """See `bridge.ports.Wire`."""
        for event in self._owner.told_messages():
            on_text(event.get("text", ""))
        self._on_text, self._first = on_text, first
        self.heard()

    def write(self, text: str) -> bool:
        """See `bridge.ports.Wire`."""
        if not self._writable or self.closing:
            return False
        self._send(TEXT, text)
        return True

    def send(self, text: str | None, data: bytes | None) -> None:
        """An ASGI message; nothing when the socket is closing."""
        if not self.closing:
            self._socket.send(TEXT if data is None else BINARY, text if data is None else data)

    def heard(self) -> None:
        """The application took what came so far."""
        self._unheard = 0
        if self.waited_for:
            self.waited_for = False
            self._socket.underlying_transport.resume_reading()

    def close(self, code: int, reason: str) -> None:
        """Say goodbye; the peer's answer ends the connection. What it still sends is read and thrown away."""
        self.heard()
        self.closing = True
        self._socket.send_close(code, reason[:120])

    # -- picows' side --------------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._socket, self._send = transport, transport.send

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        self.whole = frame.tail_size == 0
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            raise picows.WSProtocolError(picows.WSCloseCode.PROTOCOL_ERROR, "no extension was agreed on")
        kind = frame.msg_type
        if kind is TEXT and frame.fin and self._kind is None and not self.closing:  # nearly every one
            message = frame.get_payload_as_bytes()
            if not self._first(message):
                self._hear_text(message)
        elif kind is CLOSE:
            self._closed_by_peer(transport, frame)
        elif self.closing:
            return
        elif kind is PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind in (TEXT, BINARY, CONTINUATION):
            self._piece(kind, frame)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        said = transport.close_handshake and (transport.close_handshake.recv or transport.close_handshake.sent)
        if not self.closing:
            self._owner.tell({"type": "websocket.disconnect", "code": int(said.code) if said else ABNORMAL, "reason": ""})
        self.closing = True
        self._owner.connection_lost(None)

    def pause_writing(self) -> None:
        self._writable = False
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._writable = True
        self._owner.resume_writing()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _piece(self, kind: picows.WSMsgType, frame: picows.WSFrame) -> None:
        if (kind is CONTINUATION) is (self._kind is None):
            raise picows.WSProtocolError(picows.WSCloseCode.PROTOCOL_ERROR, "a fragment is not of the message before it")
        self._kind = kind if self._kind is None else self._kind
        self._parts.append(frame.get_payload_as_bytes())
        self._parts_bytes += frame.payload_size
        if self._parts_bytes > MESSAGE_BYTES or len(self._parts) > MESSAGE_FRAGMENTS:
            raise picows.WSProtocolError(picows.WSCloseCode.MESSAGE_TOO_BIG, "a message is too long, or has too many fragments")
        if not frame.fin:
            self.whole = False
            return
        data, kind = b"".join(self._parts), self._kind
        self._parts, self._parts_bytes, self._kind = [], 0, None
        if kind is TEXT:
            self._hear_text(data)
        else:
            self._hear({"type": "websocket.receive", "bytes": data})

    def _hear_text(self, data: bytes) -> None:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise picows.WSProtocolError(picows.WSCloseCode.INVALID_TEXT, "a text is not UTF-8") from None
        if self._on_text is not None:
            self._on_text(text)
        else:
            self._hear({"type": "websocket.receive", "text": text})

    def _hear(self, event: Mapping[str, Any]) -> None:
        if self._on_text is not None:  # who listens for text has no use for bytes
            self._on_text("")
            return
        self._owner.tell(event)
        self._unheard += 1
        if self._unheard >= UNHEARD_MESSAGES and not self.waited_for:
            self.waited_for = True
            self._socket.underlying_transport.pause_reading()

    def _closed_by_peer(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        code = int(frame.get_close_code())
        if frame.payload_size and code in NEVER_SENT:
            raise picows.WSProtocolError(picows.WSCloseCode.PROTOCOL_ERROR, "a close has a code that is never sent")
        if not self.closing:
            self.closing = True
            self._owner.tell({"type": "websocket.disconnect", "code": code or NO_CODE, "reason": frame.get_close_reason() or ""})
            transport.send_close(code or picows.WSCloseCode.OK)
        transport.disconnect()


cut = WSProtocol.buffer_updated


class _Cutter(WSProtocol):  # type: ignore[misc]
    """picows' side of the connection. Watches for messages that do not become complete: it is not told of those."""

    def __init__(self, framed: Framed) -> None:
        usual = picows.WSAutoPingStrategy.PING_WHEN_IDLE
        super().__init__(None, None, False, lambda _: framed, log, True, None, False, 10, 10, usual, False, MESSAGE_BYTES, None, 2048)
        self._framed = framed

    def buffer_updated(self, nbytes: int) -> None:
        framed = self._framed
        was_whole, framed.whole = framed.whole, False
        cut(self, nbytes)
        if not (was_whole and framed.whole):
            framed._owner.message_goes_on(not framed.whole)
