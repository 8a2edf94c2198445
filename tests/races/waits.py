"""Threads that have asked the database and wait for somebody else's server, which says nothing; and what the pool has lent meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

from django.contrib.auth.models import User
from django.db import close_old_connections, connection
from django.test import Client
from django.test.utils import override_settings
from django.utils import timezone

from bridge.errors import BridgeError
from bridge.twilio_rest import TwilioRest
from bridge.vapi_http import VapiClient
from calls import rescue, sessions, tool_calls, tool_runs
from calls.models import CallSession, Status, VapiSession, VapiState
from calls.storing import the_keeper
from calls.tool_calls import ToolCall
from tests.agents.words import EMAIL_TOOL
from tests.bridge.http_server import Server, hang
from tests.builders import a_call, a_person, a_recording, session_of

WITHIN_S = 10.0
LOOKS_EVERY_S = 0.005
Wait = Callable[[], object]


def tool(server: Server) -> Wait:
    call = a_call()
    assert call.version is not None
    call.version.tools = [EMAIL_TOOL | {"url": f"{server.url}/crm"}]
    asked = ToolCall(f"tool-{call.pk}", str(EMAIL_TOOL["name"]), {"email": "alex@acme.test"})

    def wait() -> None:
        CallSession.objects.get(pk=call.pk)
        tool_calls.answer(call=call, calls=[asked], allowed=[f"127.0.0.1:{server.port}"])

    return wait


def tool_of_another(server: Server) -> Wait:
    """Somebody else runs it, and is not back."""
    call = a_call()
    asked = ToolCall(f"tool-{call.pk}", "lookup")
    tool_runs.begin_tool(call=call, tool_call_id=asked.id, name=asked.name, arguments={}, at=timezone.now())
    return lambda: tool_calls.answer(call=call, calls=[asked], allowed=[])


def create(server: Server) -> Wait:
    pk, client = session_of(a_call()).pk, VapiClient(base_url=server.url, api_key="k")
    return lambda: sessions.start_conversation(vapi_session_pk=pk, by="worker", client=client)


def goodbye(server: Server) -> Wait:
    pk, client = session_of(a_call()).pk, VapiClient(base_url=server.url, api_key="k")
    VapiSession.objects.filter(pk=pk).update(state=VapiState.LIVE, socket_url=f"ws://127.0.0.1:{server.port}/transport")
    return lambda: sessions.end_session(pk=pk, client=client, at=timezone.now())


def redirect(server: Server) -> Wait:
    call = a_call(status=Status.STREAMING, stream_epoch=0)
    job, client = rescue.Rescue(call.call_sid, call.short_id, 0, 0.0, 0.0), TwilioRest(server.url, "AC1", "token")
    return lambda: rescue.rescue(job, twilio=client)


def listen(server: Server) -> Wait:
    """Two fetch a recording; the others wait until those are done."""
    sound, browser = a_recording(a_call()), Client()
    browser.force_login(User.objects.filter(is_superuser=True).first() or a_person(is_superuser=True))
    return lambda: browser.get(f"/calls/{sound.call.public_id}/recordings/{sound.sid}.wav")


WAITS = {wait.__name__: wait for wait in (tool, tool_of_another, create, goodbye, redirect, listen)}


def wait_for_others(what: str, threads: int, requests: int) -> bool:
    """So many threads have asked the database, so many requests are on their way, and all of the pool's connections are in it."""
    with waiting_threads(what, threads) as (server, alive):
        before = _lending()
        for thread in alive:
            thread.start()
        until = time.monotonic() + WITHIN_S
        while all(thread.is_alive() for thread in alive) and time.monotonic() < until:
            asked, lent = _lending()
            if len(server.asked) >= requests and asked >= before[0] + threads and not lent:
                return True
            time.sleep(LOOKS_EVERY_S)
    return False


def all_wait(what: str, threads: int) -> dict[str, Any]:
    """How many requests of so many threads are on their way at once, and whether the database is taken for away then."""
    with waiting_threads(what, threads) as (server, alive):
        for thread in alive:
            thread.start()
        until = time.monotonic() + WITHIN_S
        while len(server.asked) < threads and time.monotonic() < until:
            time.sleep(LOOKS_EVERY_S)
        return {"asked": len(server.asked), "away": the_keeper().ask()}


@contextmanager
def waiting_threads(what: str, threads: int) -> Iterator[tuple[Server, list[Thread]]]:
    """The server, and the threads, which are yet to be started."""
    with Server(hang) as server, override_settings(TWILIO_BASE_URL=server.url, TWILIO_ACCOUNT_SID="AC1", MAX_CALLS=1000):
        alive = [Thread(target=_kept_waiting, args=(WAITS[what](server),), daemon=True) for _ in range(threads)]
        close_old_connections()
        yield server, alive
        server.stopping.set()
        for thread in alive:
            thread.join(WITHIN_S)


def _lending() -> tuple[int, int]:
    """How often a connection was asked for, and how many are lent."""
    stats = connection.pool.get_stats()  # type: ignore[attr-defined]
    return stats["requests_num"], stats["pool_size"] - stats["pool_available"]


def _kept_waiting(wait: Wait) -> None:
    with suppress(BridgeError):
        wait()
    close_old_connections()
