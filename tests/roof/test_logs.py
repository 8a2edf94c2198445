"""What a log line tells of a fault: its kind and where it was, never its text."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from django.db import IntegrityError

from supportvoice.logs import FieldsFormatter

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
