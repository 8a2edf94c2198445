"""The door and the worker of a house, to be killed at any statement: each life is a fork of one process that has all imported.

A life is told what it is told of, a line of JSON each: bodies of Vapi's, and at which of its statements on the database it dies, before
or behind it. It works off what was left to it, takes the bodies in one after the other, and works off what it left to a worker
itself. What is said of it is which bodies were answered with 200, whether it was killed, and else how many statements it took.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import django


class Mortality:
    """Counts the statements of a life, and ends it at one of them, as `kill -9` does."""

    def __init__(self, dies_at: int, *, before: bool) -> None:
        self._dies_at, self._before = dies_at, before
        self.statements = 0

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        self.statements += 1
        is_last = self.statements == self._dies_at
        if is_last and self._before:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return execute(sql, params, many, context)
        finally:
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)


def live(bodies: Sequence[str], mortality: Mortality, say: Callable[[str], object]) -> None:
    from django.db import connection  # only after the set-up
    from django.test import Client

    from calls import publisher
    from tests.builders import QuietPublisher
    from tests.races.jobs import PROOF

    publisher.install(QuietPublisher())  # a fork has one of its own
    with connection.execute_wrapper(mortality):
        work_off()
        for place, body in enumerate(bodies):
            answer = Client().post("/webhook/vapi", data=body.encode(), content_type="application/json", headers=PROOF)
            if answer.status_code == 200:
                say(f"answered {place}")
        work_off()
    say(f"statements {mortality.statements}")


def work_off() -> None:
    """As the schedule does it, when nobody is given any more time to do it themselves."""
    from django.utils import timezone

    from calls import inbox

    for pk in inbox.inbox_to_do(now=timezone.now() + inbox.PATIENCE + timedelta(seconds=1)):
        inbox.reprocess(pk=pk, at=timezone.now())


def lived(order: dict[str, Any]) -> dict[str, Any]:
    """A life, seen from outside."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        try:
            live(order["bodies"], Mortality(order["dies_at"], before=order["before"]), lambda word: os.write(writing, f"{word}\n".encode()))
        except BaseException:  # whatever it is, no fork goes on with what is not its own
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as words:
        said = [line.split() for line in words]
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    told = {what: [int(number) for kind, number in said if kind == what] for what in ("answered", "statements")}
    return {"answered": told["answered"], "statements": sum(told["statements"]), "status": status}


def main() -> None:
    django.setup()
    from tests.races import jobs  # noqa: F401 - only after the set-up; the settings of its door, and all that it imports

    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        print(json.dumps(lived(json.loads(line))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
