"""One serving process: `python -m supportvoice.child`, started by `serve` with two descriptors it inherits."""

from __future__ import annotations

import argparse
import socket
import threading

from asgiref.typing import ASGI3Application
from django.conf import settings

from supportvoice.asgi import application, duty, look_after
from supportvoice.lifeline import die_with_parent
from supportvoice.server import serve_as_child


def main(app: ASGI3Application = application) -> None:
    parser = argparse.ArgumentParser()
    for name in ("--listening", "--lifeline", "--parent"):
        parser.add_argument(name, type=int, required=True)
    given = parser.parse_args()
    die_with_parent(given.parent)
    # Nobody waits for a database that is away.
    threading.Thread(target=look_after, args=(threading.Event(),), name="look-after", daemon=True).start()
    serve_as_child(
        app,
        duty=duty,
        listening=socket.socket(fileno=given.listening),
        lifeline=socket.socket(fileno=given.lifeline),
        drain_s=settings.DRAIN_SECONDS,
    )


if __name__ == "__main__":
    main()
