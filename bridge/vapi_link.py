"""The outgoing audio socket to Vapi: binary is sound, text is JSON, both ways.

Sends never wait and both directions are bounded. Towards Vapi, sound that would pile up behind a slow socket is dropped
and counted, control messages never are. From Vapi, each message is a plain call to whoever listens; while nobody does it
waits, and reading pauses when many wait, so a burst is no error. A message no sane Vapi would send is thrown away here,
before anybody copies or parses it.

Between turns Vapi sends nothing, as a dead socket does; so it is asked. Looks are counted and not seconds: a process that slept
takes nobody for gone. A peer that has never answered is not judged by it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import picows

from bridge import vapi_messages
from bridge.errors import VapiRefused, VapiUnavailable
from bridge.manners import Garbage
from bridge.ports import Link, LinkClosed
from bridge.wideband import WIDER, Wideband

CONNECT_WITHIN_S = 2.0
UNSENT_LIMIT = 32 * 1024  # 4 s of telephone sound; Vapi's own advice is to watch above 32 KB
UNREAD_LIMIT = 400  # messages: about 20 s of agent sound in the vendor's chunk sizes
UNREAD_BYTES = 512 * 1024
FRAME_LIMIT = 16 * 1024 * 1024  # a larger frame ends the socket; up to here it is only thrown away
SOUND_LIMIT = 60 * 8000  # one minute: no more is ever held for a caller
TEXT_LIMIT = 256 * 1024  # a hundred times the largest that we ask for
FRAGMENT_LIMIT = 64
LOOK_EVERY_S = 1.0
SILENT_LOOKS, GONE_LOOKS = 3, 8  # in a row at which nothing had come: between 3 and 4 s, 8 and 9 s after the last word
CLOSED_ABNORMALLY = 1006
TEXT, BINARY = picows.WSMsgType.TEXT, picows.WSMsgType.BINARY
CONTINUATION, CLOSE, PONG = picows.WSMsgType.CONTINUATION, picows.WSMsgType.CLOSE, picows.WSMsgType.PONG


class VapiConversations:
    """Opens links, each with the key of its account. The socket URL itself is a capability: it is never logged, not even in errors."""

    def __init__(self, *, api_key: str = "", keys: Mapping[str, str] | None = None) -> None:
        """`keys` are those of the accounts by name; `api_key` alone is the main one's."""
        self._keys = keys if keys is not None else {"main": api_key}

    def _headers(self, account: str) -> dict[str, str]:
        key = self._keys.get(account, "")
        return {"Authorization": f"Bearer {key}", "User-Agent": "supportvoice"} if key else {"User-Agent": "supportvoice"}

    async def open(self, socket_url: str, *, wideband: bool = False, account: str = "main") -> Link:
        """Connected within 2 s. Raises VapiUnavailable, or VapiRefused when Vapi answered no."""
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                link = VapiLink(wider=WIDER if wideband else 1)
                transport, _ = await picows.ws_connect(
                    lambda: link,
                    socket_url,
                    extra_headers=self._headers(account),
                    websocket_handshake_timeout=CONNECT_WITHIN_S,
                    max_frame_size=FRAME_LIMIT,
                    max_redirects=0,
                    use_aiofastnet=socket_url.startswith("wss:"),
                    enable_auto_pong=True,
                    logger_name=None,
                )
        except picows.WSInvalidStatusError as error:
            raise VapiRefused("Vapi refused the audio socket.", status=_status(error)) from None
        except (picows.WSError, OSError, TimeoutError) as error:
            raise VapiUnavailable(f"Vapi's audio socket could not be opened ({type(error).__name__}).") from None
        if transport.response is None:  # picows takes a connection that was cut before an answer for an open one
            raise VapiUnavailable("Vapi's audio socket was cut before it opened.")
        if transport.response.headers.get("Sec-WebSocket-Protocol"):  # none was offered: RFC 6455 §4.1 has us fail
            transport.disconnect(graceful=False)
            raise VapiUnavailable("Vapi's audio socket speaks a protocol that was not offered.")
        return Wideband(link) if wideband else link


def _status(error: picows.WSInvalidStatusError) -> int | None:
    response = getattr(error, "response", None)
    return int(response.status) if response is not None else None


class VapiLink(picows.WSListener):  # type: ignore[misc]
    """One open socket; see `bridge.ports.Link`. `wider`: how many bytes it has for one of the telephone's."""

    def __init__(self, *, wider: int = 1) -> None:
        self.dropped_bytes = self.dropped_frames = 0
        self._unsent_limit, self._sound_limit = wider * UNSENT_LIMIT, wider * SOUND_LIMIT
        self._inbox: deque[bytes | str | Garbage] = deque()
        self._unread_bytes = 0
        self._on_message: Callable[[bytes | str | Garbage], bool] | None = None
        self._on_silence: Callable[[], None] | None = None
        self._heard_out: asyncio.Future[None]  # while somebody listens
        self._quiet_looks = 0
        self._answers = False
        self._looking: asyncio.TimerHandle
        self._reading = True
        self._closed: int | None = None
        self._takes_sound = False  # open, and not too much waits
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._parts_are_text = False
        self._transport: picows.WSTransport | None = None
        self._send: Callable[[picows.WSMsgType, bytes], None]

    # -- picows calls these ------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport, self._send, self._takes_sound = transport, transport.send, True
        transport.underlying_transport.set_write_buffer_limits(high=self._unsent_limit, low=self._unsent_limit)
        transport.send_ping()  # so that it is known soon whether this peer answers
        self._looking = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def pause_writing(self) -> None:
        self._takes_sound = False

    def resume_writing(self) -> None:
        self._takes_sound = self._closed is None

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if self._closed is not None:  # picows goes on with what it read together with the last word
            return
        self._quiet_looks = 0
        kind = frame.msg_type
        message: bytes | str | Garbage | None
        if kind is BINARY and frame.fin and 0 < frame.payload_size <= self._sound_limit and not self._parts:  # nearly every one
            message = frame.get_payload_as_bytes()
        else:
            message = self._any_other(kind, transport, frame)
            if message is None:
                return
        on_message = self._on_message
        if on_message is None:
            self._keep(message)
            return
        try:
            if on_message(message):
                return
            self._heard_out.set_result(None)
        except Exception as error:  # whoever awaits `carry` has it
            self._heard_out.set_exception(error)
        self._on_message = None

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._looking.cancel()
        if self._closed is None:
            self._closed, self._takes_sound = CLOSED_ABNORMALLY, False
        if self._on_message is not None:
            self._on_message = None
            self._heard_out.set_exception(LinkClosed(self._closed))

    # -- the bridge calls these --------------------------------------------------------------------------------------

    def send_audio(self, ulaw: bytes) -> None:
        if self._takes_sound:
            self._send(BINARY, ulaw)
        elif self._transport is not None:  # also between Vapi's close and whoever is told of it
            self.dropped_bytes += len(ulaw)
            self.dropped_frames += 1

    def send_control(self, message: Mapping[str, Any]) -> None:
        if self._transport is not None and self._closed is None:
            self._transport.send(TEXT, vapi_messages.dump(message).encode())

    async def carry(self, on_message: Callable[[bytes | str | Garbage], bool], *, on_silence: Callable[[], None] | None = None) -> None:
        """See `bridge.ports.Link`. What arrived before the socket closed is told first."""
        while self._inbox:
            if not on_message(self._next()):
                return
        if self._closed is not None:
            raise LinkClosed(self._closed)
        self._on_message, self._heard_out = on_message, asyncio.get_running_loop().create_future()
        self._on_silence = on_silence
        try:
            await self._heard_out
        finally:
            self._on_message = self._on_silence = None

    def drop(self) -> None:
        if self._transport is not None and self._closed is None:
            self._closed, self._takes_sound = CLOSED_ABNORMALLY, False
            self._inbox.clear()
            self._transport.disconnect(graceful=False)

    async def close(self) -> None:
        """Say goodbye and be gone within a second."""
        if self._transport is None or self._closed is not None:
            return
        self._transport.send_close(picows.WSCloseCode.OK)
        try:
            async with asyncio.timeout(1.0):
                await self._transport.wait_disconnected()
        except TimeoutError:
            self._transport.disconnect(graceful=False)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _any_other(self, kind: picows.WSMsgType, transport: picows.WSTransport, frame: picows.WSFrame) -> bytes | str | Garbage | None:
        """The message that this frame ends, if it does."""
        if kind is CLOSE:
            self._closed, self._takes_sound = int(frame.get_close_code()), False
            transport.send_close(self._closed if self._closed >= 1000 else 1000)
            transport.disconnect()
            return None
        if kind not in (BINARY, TEXT, CONTINUATION):
            self._answers |= kind is PONG
            return None
        if kind is not CONTINUATION:
            self._parts_are_text = kind is TEXT
        self._add_part(frame)
        if len(self._parts) > FRAGMENT_LIMIT:
            transport.disconnect(graceful=False)
            return None
        return self._whole() if frame.fin else None

    @property
    def _limit(self) -> int:
        return TEXT_LIMIT if self._parts_are_text else self._sound_limit

    def _add_part(self, frame: picows.WSFrame) -> None:
        """Of a message that is too long only its length is kept."""
        self._parts_bytes += len(frame.get_payload_as_memoryview())
        self._parts.append(frame.get_payload_as_bytes() if self._parts_bytes <= self._limit else b"")

    def _whole(self) -> bytes | str | Garbage:
        parts, size, self._parts, self._parts_bytes = self._parts, self._parts_bytes, [], 0
        if size == 0 or size > self._limit:
            return Garbage("empty" if size == 0 else "too-long")
        message = parts[0] if len(parts) == 1 else b"".join(parts)
        if not self._parts_are_text:
            return message
        try:
            return message.decode()
        except UnicodeDecodeError:
            return Garbage("not-text")

    def _look(self) -> None:
        """Once a second: has anything come since the last look? While reading pauses nothing can."""
        if self._closed is not None or self._transport is None:
            return
        self._looking = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)
        quiet, self._quiet_looks = self._quiet_looks, self._quiet_looks + 1 if self._reading else 0
        if not quiet:
            return
        if self._answers and quiet >= GONE_LOOKS:
            self._transport.disconnect(graceful=False)
            return
        self._transport.send_ping()
        if self._answers and quiet >= SILENT_LOOKS and self._on_silence is not None:
            self._on_silence()

    def _keep(self, message: bytes | str | Garbage) -> None:
        """Until somebody listens; beyond a limit the network waits too."""
        self._inbox.append(message)
        if not isinstance(message, Garbage):
            self._unread_bytes += len(message)
        if self._reading and self._behind() and self._transport is not None:
            self._reading = False
            self._transport.underlying_transport.pause_reading()

    def _next(self) -> bytes | str | Garbage:
        message = self._inbox.popleft()
        if not isinstance(message, Garbage):
            self._unread_bytes -= len(message)
        if not self._reading and self._caught_up() and self._transport is not None:
            self._reading = True
            self._transport.underlying_transport.resume_reading()
        return message

    def _behind(self) -> bool:
        return len(self._inbox) >= UNREAD_LIMIT or self._unread_bytes >= UNREAD_BYTES

    def _caught_up(self) -> bool:
        return len(self._inbox) < UNREAD_LIMIT // 2 and self._unread_bytes < UNREAD_BYTES // 2
