"""What only a server can enforce: it gives up on peers that never finish a header, a message or a read.

Two protocol classes for uvicorn. HTTP is uvicorn's own. A WebSocket begins as uvicorn's own too; one that a vendor opens is
then cut into messages by picows (`supportvoice.framing`), which takes half of what a call costs off the processor.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import uvicorn
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame

from bridge.ports import WIRE
from supportvoice.framing import MESSAGE_FRAGMENTS, Framed

log = logging.getLogger(__name__)

HEADER_SECONDS = 5.0
HEADER_BYTES = 32 * 1024
MESSAGE_SECONDS = 10.0
UNREAD_BYTES = 64 * 1024
UNREAD_SECONDS = 5.0
SLOWEST_BYTES_S = 1000
GOODBYE_SECONDS = 1.0


class SlowReader:
    """Drops a peer that leaves more than 64 KiB unread for 5 s: it would otherwise hold our memory for as long as it likes.

    `patient`: a peer that read at least 1 kB/s of it meanwhile (a large page over a thin line) gets another 5 s.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, *, patient: bool) -> None:
        self._loop, self._transport, self._patient = loop, transport, patient
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0
        transport.set_write_buffer_limits(high=UNREAD_BYTES)

    def falls_behind(self) -> None:
        if self._timer is None:
            self._unread = self._transport.get_write_buffer_size()
            self._timer = self._loop.call_later(UNREAD_SECONDS, self._judge)

    def caught_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _judge(self) -> None:
        self._timer = None
        unread = self._transport.get_write_buffer_size()
        if self._patient and unread <= self._unread - SLOWEST_BYTES_S * UNREAD_SECONDS:
            self.falls_behind()
            return
        log.warning("dropped a peer that does not read", extra={"unread_bytes": unread})
        self._transport.abort()


class GuardedHttp(HttpToolsProtocol):
    """HTTP whose headers are complete within 5 s and 32 KiB, read by peers that read."""

    def __init__(self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(config, server_state, app_state, **kwargs)
        self._reader: SlowReader | None = None
        self._header_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._in_header = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._reader = SlowReader(self.loop, transport, patient=True)
        self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_done()
        if self._reader is not None:
            self._reader.caught_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._in_header and (self.cycle is None or self.cycle.response_complete):
            self._await_header()  # a further request on this connection begins
        self._header_bytes += len(data)
        super().data_received(data)
        if self._in_header and self._header_bytes > HEADER_BYTES:
            self._give_up(431, "The request header is too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_header()

    def on_headers_complete(self) -> None:
        if sum(len(name) + len(value) for name, value in self.headers) > HEADER_BYTES:
            raise ValueError("the request header is too long")  # the parser turns it into a 400
        self._header_done()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reader is not None:
            self._reader.falls_behind()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader is not None:
            self._reader.caught_up()

    def _await_header(self) -> None:
        self._in_header = True
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_SECONDS, self._header_late)

    def _header_done(self) -> None:
        self._in_header, self._header_bytes = False, 0
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _header_late(self) -> None:
        self._give_up(408, f"The request header was not complete within {HEADER_SECONDS:g} s.")

    def _give_up(self, status: int, sentence: str) -> None:
        text = f"{sentence}\n".encode()
        head = b"HTTP/1.1 %d Refused\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        if self.cycle is None or self.cycle.response_complete:  # else an earlier answer on this connection is under way
            self.transport.write(head % (status, len(text)) + text)
        self.transport.close()


class GuardedSocket(WebSocketsSansIOProtocol):
    """A WebSocket whose messages are complete within 10 s and 64 fragments, read by peers that read.

    A vendor has 1 s to answer our close. Twilio goes on with the call when its socket is gone: if it is the one that does not
    hear us any more, the usual 10 s are 10 s in which the caller hears nothing.
    """

    def __init__(self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(config, server_state, app_state, **kwargs)
        self._reader: SlowReader | None = None
        self._message_timer: asyncio.TimerHandle | None = None
        self._goodbye_timer: asyncio.TimerHandle | None = None
        self._framed: Framed | None = None  # once a vendor's socket is accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._reader = SlowReader(self.loop, self.transport, patient=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._message_done()
        if self._goodbye_timer is not None:
            self._goodbye_timer.cancel()
        if self._reader is not None:
            self._reader.caught_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated:  # an upgrade that the WebSocket parser could not read
            self.transport.close()
        else:
            self.message_goes_on(bool(self.frames or self.conn.reader.buffer))

    def send_receive_event_to_app(self) -> None:
        self._message_done()  # the next one, perhaps begun in the same bytes, has its own 10 s
        super().send_receive_event_to_app()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= MESSAGE_FRAGMENTS:
            self._fail(1009, "too many fragments")
        elif not self.close_sent:
            super().handle_cont(event)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reader is not None:
            self._reader.falls_behind()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader is not None:
            self._reader.caught_up()

    async def run_asgi(self) -> None:
        if self._is_a_vendors:
            self.scope["extensions"] = {**(self.scope["extensions"] or {}), WIRE: {}}
        await super().run_asgi()

    async def receive(self) -> ASGIReceiveEvent:
        if self._framed is None:
            return await super().receive()
        event = await self.queue.get()
        if self.queue.empty():
            self._framed.heard()
        return event

    async def send(self, message: ASGISendEvent) -> None:
        if self._framed is not None:
            await self._send_framed(self._framed, message)
        elif message["type"] == "websocket.accept" and self._may_be_framed:
            self._framed = Framed(self)
            self.scope["extensions"][WIRE]["wire"] = self._framed
            self.handshake_complete = True
            self._framed.take_over(self.transport, self.request.headers["Sec-WebSocket-Key"])
        else:
            if message["type"] == "websocket.close" and self._is_a_vendors:
                self._expect_answer()
            await super().send(message)

    def shutdown(self) -> None:
        """The server stops now."""
        if self._framed is None:
            super().shutdown()
        elif not self.close_sent:
            self.tell({"type": "websocket.disconnect", "code": 1012})
            self._framed.close(1012, "")
            self.transport.close()

    def start_keepalive(self) -> None:
        """Ping browsers only. Whether Twilio answers pings is not documented, and its media says that it is there."""
        if not self._is_a_vendors:
            super().start_keepalive()

    # -- what `supportvoice.framing` asks of us ------------------------------------------------------------------------

    def tell(self, event: Any) -> None:
        self.queue.put_nowait(event)

    def told_messages(self) -> list[Any]:
        events = [self.queue.get_nowait() for _ in range(self.queue.qsize())]
        for event in events:
            if event["type"] != "websocket.receive":
                self.tell(event)
        return [event for event in events if event["type"] == "websocket.receive"]

    def message_goes_on(self, unfinished: bool) -> None:
        if not unfinished:
            self._message_done()
        elif self._message_timer is None:
            self._message_timer = self.loop.call_later(MESSAGE_SECONDS, self._message_late)

    # -- inside --------------------------------------------------------------------------------------------------------

    @property
    def _is_a_vendors(self) -> bool:
        return self.scope["path"].startswith("/webhook/")

    @property
    def _may_be_framed(self) -> bool:
        """Only if the peer has waited for our answer, as it must: what it said before is cut already."""
        early = not self.queue.empty() or self.frames or self.conn.reader.buffer
        return self._is_a_vendors and not (early or self.handshake_complete or self.transport.is_closing())

    async def _send_framed(self, framed: Framed, message: Any) -> None:
        if message["type"] == "websocket.close":
            if not self.close_sent and not self.transport.is_closing():
                self.close_sent = True
                self._expect_answer()
                self.tell({"type": "websocket.disconnect", "code": message.get("code", 1000), "reason": ""})
                framed.close(message.get("code", 1000), message.get("reason") or "")
            return
        await self.writable.wait()
        if self.disconnected or framed.closing:
            raise ClientDisconnected
        framed.send(message.get("text"), message.get("bytes"))

    def _expect_answer(self) -> None:
        if self._goodbye_timer is None:
            self._goodbye_timer = self.loop.call_later(GOODBYE_SECONDS, self.transport.abort)  # also what the peer did not read
            self.close_timer = self.close_timer or self._goodbye_timer  # uvicorn closes at once when none runs

    def _message_late(self) -> None:
        self._message_timer = None
        if self.read_paused or (
            self._framed is not None and self._framed.waited_for
        ):  # the rest may be here already: it is our application that has not read on
            self._message_timer = self.loop.call_later(MESSAGE_SECONDS, self._message_late)
        else:
            self._fail(1008, "message not complete in time")

    def _message_done(self) -> None:
        if self._message_timer is not None:
            self._message_timer.cancel()
            self._message_timer = None

    def _fail(self, code: int, reason: str) -> None:
        self._message_done()
        if not self.handshake_complete:
            self.transport.close()
        elif self.close_sent or self.transport.is_closing():
            return
        elif self._framed is not None:
            self.tell({"type": "websocket.disconnect", "code": code, "reason": reason})
            self._framed.close(code, reason)
            self.close_sent = True
            self.transport.close()
        else:
            self.conn.fail(code, reason)
            self.handle_parser_exception()
