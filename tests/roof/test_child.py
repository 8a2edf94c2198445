"""A serving process knows every line before its first call, and starts no worse without a database."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from django.db import OperationalError

from agents import lines
from supportvoice.asgi import remember_lines
from tests.builders import LINE, a_line


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    lines.forget()
    yield
    lines.forget()


def in_its_thread() -> None:
    thread = threading.Thread(target=remember_lines)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.django_db(transaction=True)
def test_a_child_answers_a_line_it_never_saw_when_the_database_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    line = a_line()
    in_its_thread()
    monkeypatch.setattr(lines, "_read", gone)
    found = lines.answer(LINE, draw=0.0)
    assert found is not None
    assert found.line_id == line.pk


def test_a_database_that_is_away_is_a_line_in_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(lines, "warm", gone)
    in_its_thread()
    assert [record.message for record in caplog.records] == ["the lines could not be remembered"]


def gone(*_: object) -> None:
    raise OperationalError("gone")
