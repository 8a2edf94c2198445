"""What a log line tells of a fault: its kind and where it was, never its text; of a task neither what it was given nor returned."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg_pool
import pytest
from celery import Celery
from celery.exceptions import Reject
from django.db import IntegrityError

from bridge.errors import VapiError
from bridge.vapi_http import VapiClient
from supportvoice import seldom
from supportvoice.logs import FieldsFormatter
from supportvoice.seldom import Seldom
from tests.bridge.http_server import Handler, Server

OF_THE_ROW = ("+4915112345678", "zweiundvierzig")


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """All that this process logs, as we print it; and our lines of the test, which no other handler hears."""
    printed, root, ours = io.StringIO(), logging.getLogger(), logging.getLogger("test.faults")
    handler = logging.StreamHandler(printed)
    handler.setFormatter(FieldsFormatter())
    before, root.handlers = root.handlers, [handler]
    ours.propagate = True
    yield printed
    root.handlers = before


def refuses() -> None:
    """As PostgreSQL does, whose errors repeat the row, after another fault that a stranger's text is in."""
    try:
        int(OF_THE_ROW[1])
    except ValueError as problem:
        raise IntegrityError(f"DETAIL:  Failing row contains ({', '.join(OF_THE_ROW)},\n{OF_THE_ROW[1]}).") from problem


def of_ours() -> None:
    try:
        refuses()
    except IntegrityError:
        logging.getLogger("test.faults").exception("a fault", extra={"call": "call-1"})


def after_another_formatter() -> None:
    record = logging.LogRecord("test.faults", logging.ERROR, __file__, 1, "a fault", (), None)
    try:
        refuses()
    except IntegrityError as problem:
        record.exc_info = (IntegrityError, problem, problem.__traceback__)
    assert OF_THE_ROW[0] in logging.Formatter().format(record)
    logging.getLogger().handle(record)


def of_a_worker() -> None:
    """Celery repeats it in its sentence, in a field and in the traceback."""
    app = Celery("test", set_as_current=False)
    app.task(name="test.refuses")(refuses).apply()


def of_a_task_nobody_asked() -> None:
    async def breaks() -> None:
        refuses()

    async def forgets() -> None:
        task = asyncio.create_task(breaks())
        await asyncio.wait({task})

    asyncio.run(forgets())
    gc.collect()


@pytest.mark.parametrize("fault", [of_ours, after_another_formatter, of_a_worker, of_a_task_nobody_asked])
def test_a_fault_is_told_by_its_kind_and_its_place_and_never_by_its_text(written: io.StringIO, fault: Callable[[], None]) -> None:
    fault()
    printed = written.getvalue()
    assert [said for said in OF_THE_ROW if said in printed] == []
    assert all(f"\n    {kind}\n" in printed for kind in ("ValueError", "IntegrityError"))
    assert "in refuses\n" in printed


def test_a_fault_that_came_of_itself_is_told_once(written: io.StringIO) -> None:
    first, second = ValueError(), KeyError()
    first.__context__, second.__context__ = second, first
    logging.getLogger("test.faults").error("a circle", exc_info=first)
    assert written.getvalue().endswith("a circle\n    KeyError\n    ValueError\n")


# -- tasks -------------------------------------------------------------------------------------------------------------


class NoPickle(Exception):
    """One that Celery cannot send on, and wraps."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


class Odd(Exception):
    def __repr__(self) -> str:
        return f"<{self.args[0]}>"


def is_tried_again(said: str) -> None:
    raise ValueError(said)


def is_rejected(said: str) -> None:
    raise Reject(said)


def cannot_be_sent_on(said: str) -> None:
    raise NoPickle(said, said)


def is_written_otherwise(said: str) -> None:
    raise Odd(said)


def returns_it(said: str) -> str:
    return said


TASKS: dict[Callable[[str], Any], tuple[dict[str, Any], str]] = {
    is_tried_again: ({"autoretry_for": (ValueError,), "max_retries": 1, "default_retry_delay": 0}, "retry: Retry in 0s: ValueError\n"),
    is_rejected: ({}, "Reject\n"),
    cannot_be_sent_on: ({}, "raised unexpected: "),
    is_written_otherwise: ({"throws": (Odd,)}, "raised expected: a fault\n"),
    returns_it: ({}, "succeeded in "),
}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
def test_of_a_task_its_name_and_how_it_went_are_told_and_no_text(written: io.StringIO, task: Callable[[str], Any]) -> None:
    options, how = TASKS[task]
    app: Any = Celery("test", set_as_current=False)
    told = app.task(name=f"test.{task.__name__}", **options)(task)
    told.apply(args=(" ".join(OF_THE_ROW),))
    printed = written.getvalue()
    assert [said for said in OF_THE_ROW if said in printed] == []
    assert f"Task test.{task.__name__}[" in printed
    assert how in printed


def test_a_thread_that_breaks_is_told_like_any_fault() -> None:
    breaks = "import django, threading; django.setup(); threading.Thread(target=int, args=('zweiundvierzig',), name='keeper').start()"
    ran = subprocess.run([sys.executable, "-c", breaks], capture_output=True, text=True, check=True)
    assert 'ERROR supportvoice.logs: A thread broke what="keeper"' in ran.stderr
    assert ran.stderr.endswith("    ValueError\n")
    assert OF_THE_ROW[1] not in ran.stderr


# -- what others write -------------------------------------------------------------------------------------------------


def odd_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nnobody reads this\r\nContent-Length: 2\r\n\r\n{}")
    handler.close_connection = True


@pytest.mark.django_db  # a thread that waits gives its connection back
def test_an_answer_with_odd_headers_tells_no_capability(written: io.StringIO) -> None:
    with Server(odd_headers) as server:
        client = VapiClient(base_url=server.url, api_key="k", socket_hosts=("127.0.0.1",))
        with contextlib.suppress(VapiError):
            client.end_call(f"{server.url}/a-capability/control")
        assert [asked.path for asked in server.asked] == ["/a-capability/control"]
    assert "a-capability" not in written.getvalue()


def a_line() -> logging.LogRecord:
    return logging.makeLogRecord({"msg": "error connecting in %r: %s", "args": ("pool-1", "refused")})


def test_what_is_said_again_and_again_is_a_line_once_in_a_while_with_how_many_were_left_out() -> None:
    now = 0.0
    filtered, told = Seldom(clock=lambda: now), list[tuple[float, int]]()
    while now < 2 * seldom.EVERY_S + 1:
        record = a_line()
        if filtered.filter(record):
            told.append((now, getattr(record, "left_out", 0)))
        now += 0.5
    assert told == [(0.0, 0), (10.0, 19), (20.0, 19)]
    assert filtered.filter(logging.makeLogRecord({"msg": "discarding closed connection: %s"})), "another sentence has its own line"


def test_a_pool_whose_server_is_away_says_so_once_in_a_while(written: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [each for each in logging.getLogger("psycopg.pool").filters if isinstance(each, Seldom)]
    assert ours
    for each in ours:  # one more for each time that logging was set up in this process
        monkeypatch.setattr(each, "_told", {})
    nobody = "host=127.0.0.1 port=1 connect_timeout=1"
    with psycopg_pool.ConnectionPool(nobody, min_size=3, open=True) as pool:
        while pool.get_stats().get("connections_errors", 0) < 3:
            time.sleep(0.01)
    assert written.getvalue().count("error connecting in ") == 1
