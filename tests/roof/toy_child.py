"""A serving process around a toy application: `/live` is a stream that stays until its peer leaves, `/leaves` one that can be handed on.
`/grows` is a live one, and each message costs the process `GROWN_BY`.

All are there as a vendor's too (`/webhook/live`): then picows cuts the frames.

Whoever asks for `/stuck` has the event loop turn no more, and for `/late` not for two seconds after the answer. With `TOY_BROKEN`, the
name of a file, no process comes up while that is there; with `TOY_HANGS` one begins and comes to nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from supportvoice.duty import Duty
from supportvoice.lifeline import die_with_parent
from supportvoice.limits import BodyLimits
from supportvoice.server import serve_as_child

FLOOD = b"x" * 65_536
GROWN_BY = 64 * 1024 * 1024
DRAIN_S = 20.0
KEPT: list[bytes] = []
duty = Duty()


async def toy(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/stuck":
        threading.Event().wait()
    if scope["type"] == "http":
        message = await receive()
        text = f"{scope['path']} {len(message['body'])}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
        await send({"type": "http.response.body", "body": text})
        if scope["path"] == "/late":
            stand_still()
        return
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"].endswith("/flood"):
        while True:
            await send({"type": "websocket.send", "bytes": FLOOD})
    if scope["path"].endswith("/leaves"):
        await handed_on()
        await send({"type": "websocket.close", "code": 4000})
        return
    while (message := await receive())["type"] == "websocket.receive":
        if scope["path"].endswith("/grows"):
            KEPT.append(b"x" * GROWN_BY)
        await send({"type": "websocket.send", "text": f"{len(message.get('text') or message['bytes'])}"})


def stand_still() -> None:
    time.sleep(2.0)


async def handed_on() -> None:
    asked = asyncio.Event()
    with duty.carried.during(asked.set):
        await asked.wait()


def house(duty: Duty) -> Any:
    return duty.health(BodyLimits(duty.no_sockets_when_leaving(only_sockets_count(duty))))


def only_sockets_count(duty: Duty) -> Any:
    counted = duty.streams_counted(toy)

    async def route(scope: Any, receive: Any, send: Any) -> None:
        await (counted if scope["type"] == "websocket" else toy)(scope, receive, send)

    return route


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--listening", "--lifeline", "--parent"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--boot")
    given = parser.parse_args()
    if (broken := os.environ.get("TOY_BROKEN")) and Path(broken).exists():
        sys.exit(3)
    die_with_parent(given.parent)
    if (hangs := os.environ.get("TOY_HANGS")) and Path(hangs).exists():
        threading.Event().wait()
    serve_as_child(
        house(duty),
        duty=duty,
        listening=socket.socket(fileno=given.listening),
        lifeline=socket.socket(fileno=given.lifeline),
        drain_s=DRAIN_S,
    )


if __name__ == "__main__":
    main()
