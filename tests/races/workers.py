"""Workers of a house, each a fork of one process that has all imported: begun at one moment, and some of them killed in their work.

An order is a line of JSON: what each does (a job of `JOBS`, with its arguments), and where it dies, if it does: at which of its
statements on the database, before or behind it, or while it waits for Vapi. What is said of each is its exit status and what came of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from threading import Timer
from typing import Any

import django

BEGINS_AFTER_S = 0.02
VAPI = "vapi"  # instead of the number of a statement


def lived(order: dict[str, Any], begins: float) -> tuple[int, int]:
    """A fork, and where it says what came of it."""
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(writing)
        return pid, reading
    try:
        os.write(writing, json.dumps(_live(order, begins)).encode())
    except BaseException:  # whatever it is, no fork goes on with what is not its own
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _live(order: dict[str, Any], begins: float) -> dict[str, Any]:
    from django.db import connection  # only after the set-up

    from calls import publisher
    from tests.builders import QuietPublisher
    from tests.races.mortal import Mortality

    publisher.install(QuietPublisher())  # a fork has one of its own
    dies_at = order.get("dies_at", 0)
    mortality = Mortality(0 if dies_at == VAPI else dies_at, before=order.get("before", False))
    with connection.execute_wrapper(mortality):
        while (left := begins + order.get("after_s", 0.0) - time.monotonic()) > 0:
            time.sleep(left)
        return {"given": JOBS[order["job"]](**order["arguments"]), "statements": mortality.statements}


def make(how_many: int) -> list[int]:
    """Calls on their first stream, whose agent nobody has begun to make, as keys of their sessions."""
    from calls.models import Status
    from tests.builders import a_call, session_of

    calls = [a_call(status=Status.STREAMING, stream_epoch=0) for _ in range(how_many)]
    return [session_of(call).pk for call in calls]


def start(pk: int, url: str, by: str, dies_within_s: float = 0.0) -> bool:
    """The task, or the stream that takes the claim from a worker who must be dead."""
    from bridge.vapi_http import VapiClient
    from calls import sessions

    class Mortal(VapiClient):
        def create_call(self, request: Any, **more: Any) -> Any:
            if dies_within_s:
                Timer(dies_within_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return super().create_call(request, **more)

    client = Mortal(base_url=url, api_key="k")
    return sessions.start_conversation(vapi_session_pk=pk, by=by, client=client, from_another=by == "consumer")


def clear_up(url: str) -> int:
    """What the schedule does, and twice: how many calls that nobody holds it ended."""
    from django.utils import timezone

    from bridge.vapi_http import VapiClient
    from calls import orphans, sessions

    later = timezone.now() + sessions.CLAIM_LIFE + timedelta(seconds=1)
    client = VapiClient(base_url=url, api_key="k")
    return sum(orphans.end_orphans(client=client, now=later) for _ in range(2))


def look(pk: int) -> dict[str, Any]:
    from calls.models import VapiSession

    session = VapiSession.objects.get(pk=pk)
    others = session.call.vapi_sessions.exclude(pk=pk).count()
    return {"state": str(session.state), "vapi_call_id": session.vapi_call_id or "", "name": f"{session.call.call_sid}.0", "others": others}


JOBS: dict[str, Callable[..., Any]] = {job.__name__: job for job in (make, start, clear_up, look)}


def main() -> None:
    django.setup()
    from tests.races import jobs  # noqa: F401 - only after the set-up; the settings of its door, and all that it imports

    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        begins = time.monotonic() + BEGINS_AFTER_S
        forks = [lived(order, begins) for order in json.loads(line)]
        said = []
        for pid, reading in forks:
            with os.fdopen(reading) as words:
                told = words.read()
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            said.append({"status": status, **(json.loads(told) if status == 0 else {})})
        print(json.dumps(said), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
