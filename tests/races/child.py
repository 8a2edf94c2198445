"""One of the two processes of `tests.races.pair`: reads a job a line, does it at the moment it is told, says what came of it."""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import django

SOON_S = 0.002  # both have heard of one another by then
MOMENT = struct.Struct("d")


def meets(other: socket.socket) -> float:
    """The moment at which both begin, once the other one is here too."""
    mine = time.monotonic() + SOON_S
    other.sendall(MOMENT.pack(mine))
    (its,) = MOMENT.unpack(other.recv(MOMENT.size, socket.MSG_WAITALL))
    return max(mine, float(its))


def does(job: Callable[..., Any], begin: float, arguments: dict[str, Any]) -> Any:
    begin += arguments.pop("after_s", 0.0)
    while (left := begin - time.monotonic()) > 0:  # the last millisecond is not slept: both must begin together
        time.sleep(max(0.0, left - 0.001))
    return job(**arguments)


def answer_to(order: dict[str, Any], jobs: dict[str, Callable[..., Any]], other: socket.socket | None) -> dict[str, Any]:
    given: list[Any] = []
    problem = ""
    for arguments in order["each"]:
        try:
            begin = meets(other) if order["meets"] and other is not None else order["at"]
            if not problem:  # else the other one is met, and does the rest alone
                given.append(does(jobs[order["job"]], begin, arguments))
        except Exception:  # whatever it is, the test is told
            problem = problem or traceback.format_exc()
    return {"problem": problem} if problem else {"given": given}


def main() -> None:
    django.setup()
    from django.db import connections  # only after the set-up

    from calls import publisher
    from tests.builders import QuietPublisher
    from tests.races.jobs import JOBS

    publisher.install(QuietPublisher())
    other = socket.socket(fileno=int(sys.argv[1])) if sys.argv[1:] else None
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        answer = answer_to(json.loads(line), JOBS, other)
        connections.close_all()
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
