"""The least a bridge can do: picows on both legs, no framework. It holds nothing back, counts nothing and remembers nothing.

`python -m supportvoice.bench.relays.bare --listening FD --vapi ws://…`: a call's audio socket is at that address and its CallSid.
A mark every 200 ms, a clear when the caller interrupts, and both sockets end together.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from base64 import b64decode, b64encode
from typing import Any

import orjson
import picows
import uvloop

MARK_EVERY = 1600  # bytes
TEXT, BINARY, CLOSE = picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CLOSE


class FromTwilio(picows.WSListener):  # type: ignore[misc]
    """The caller's leg; it opens the other one when it knows whose call it is."""

    def __init__(self, vapi_url: str) -> None:
        self.stream = ""
        self.socket: picows.WSTransport | None = None
        self.vapi: picows.WSTransport | None = None
        self._vapi_url = vapi_url
        self._opening: asyncio.Task[None] | None = None

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.socket = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type is CLOSE:
            transport.send_close(1000)
            transport.disconnect()
        elif frame.msg_type is TEXT:
            self.hear(orjson.loads(frame.get_payload_as_memoryview()))

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.socket = None
        if self.vapi is not None:
            self.vapi.disconnect()

    def hear(self, message: dict[str, Any]) -> None:
        event = message["event"]
        if event == "media" and self.vapi is not None:
            self.to_vapi(b64decode(message["media"]["payload"]))
        elif event == "start":
            self.stream = message["start"]["streamSid"]
            self._opening = asyncio.create_task(self._open(message["start"]["callSid"]))
        elif event == "stop" and self.socket is not None:
            self.socket.send_close(1000)

    def to_vapi(self, sound: bytes) -> None:
        if self.vapi is not None:
            self.vapi.send(BINARY, sound)

    async def _open(self, call_sid: str) -> None:
        self.vapi, _ = await picows.ws_connect(lambda: FromVapi(self), f"{self._vapi_url}/{call_sid}", use_aiofastnet=False)


class FromVapi(picows.WSListener):  # type: ignore[misc]
    def __init__(self, caller: FromTwilio) -> None:
        self._caller = caller
        self._sent = self._marked = 0

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        caller, stream = self._caller, self._caller.stream
        if frame.msg_type is CLOSE:
            transport.send_close(1000)
            transport.disconnect()
        elif caller.socket is None:
            return
        elif frame.msg_type is BINARY:
            sound = frame.get_payload_as_memoryview()
            payload = b64encode(sound).decode()
            caller.socket.send(TEXT, f'{{"event":"media","streamSid":"{stream}","media":{{"payload":"{payload}"}}}}'.encode())
            self._sent += len(sound)
            if self._sent - self._marked >= MARK_EVERY:
                self._marked = self._sent
                caller.socket.send(TEXT, f'{{"event":"mark","streamSid":"{stream}","mark":{{"name":"{self._sent}"}}}}'.encode())
        elif frame.msg_type is TEXT and orjson.loads(frame.get_payload_as_memoryview())["type"] == "user-interrupted":
            caller.socket.send(TEXT, f'{{"event":"clear","streamSid":"{stream}"}}'.encode())


async def serve(listening: socket.socket, vapi_url: str, leg: type[FromTwilio] = FromTwilio) -> None:
    server = await picows.ws_create_server(lambda _: leg(vapi_url), sock=listening, use_aiofastnet=False)
    await server.serve_forever()


def main(leg: type[FromTwilio] = FromTwilio) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listening", type=int, required=True)
    parser.add_argument("--vapi", required=True)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(socket.socket(fileno=given.listening), given.vapi, leg))


if __name__ == "__main__":
    main()
