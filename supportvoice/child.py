"""One serving process: `python -m supportvoice.child`, started by `serve` with two descriptors it inherits."""

from __future__ import annotations

import argparse
import socket
import threading
import uuid

from asgiref.typing import ASGI3Application
from channels.layers import get_channel_layer
from django.conf import settings

from bridge import live
from supportvoice.asgi import application, duty, lifeguard, look_after
from supportvoice.lifeline import die_with_parent
from supportvoice.server import serve_as_child


def main(app: ASGI3Application = application) -> None:
    parser = argparse.ArgumentParser()
    for name in ("--listening", "--lifeline", "--parent"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--boot", type=uuid.UUID, required=True)
    given = parser.parse_args()
    die_with_parent(given.parent)
    # Nobody waits for a database that is away.
    threading.Thread(target=look_after, args=(threading.Event(),), name="look-after", daemon=True).start()
    guard = lifeguard(given.boot)
    guard.start()
    try:
        serve_as_child(
            app,
            duty=duty,
            listening=socket.socket(fileno=given.listening),
            lifeline=socket.socket(fileno=given.lifeline),
            drain_s=settings.DRAIN_SECONDS,
            at_rest=lambda: live.give_back_idle(get_channel_layer()),
        )
    finally:
        guard.stop()


if __name__ == "__main__":
    main()
