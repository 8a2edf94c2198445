"""One question for all streams of a process: it wakes those who have something to see, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import pytest
from django.db import ProgrammingError

from bridge.ports import CallRef, LedgerAway
from calls import lookout
from calls.lookout import Lookout, with_news
from calls.models import CallSession, OutboxCommand, Status
from tests.builders import a_call

R = TypeVar("R")
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def ref_of(call: CallSession, *, epoch: int = 0) -> CallRef:
    return CallRef(call.call_sid, epoch, call.short_id)


def a_command(call: CallSession, *, to: str = "live", done_at: datetime | None = None) -> OutboxCommand:
    key = f"{call.call_sid}:{to}:{done_at}"
    return OutboxCommand.objects.create(call=call, key=key, verb="say", to=to, asked_at=NOW, done_at=done_at)


@pytest.mark.django_db
def test_only_calls_with_a_command_or_of_another_epoch_or_over_are_news() -> None:
    quiet, told, done, elsewhere, over, overtaken = (a_call(status=Status.STREAMING) for _ in range(6))
    a_command(told)
    a_command(done, done_at=NOW)
    a_command(elsewhere, to="twilio")
    CallSession.objects.filter(pk=over.pk).update(status=Status.ENDED, ended_at=NOW, end_reason="caller_left")
    CallSession.objects.filter(pk=overtaken.pk).update(epoch=1)
    refs = [ref_of(call) for call in (quiet, told, done, elsewhere, over, overtaken)]
    assert with_news(refs) == [ref_of(told), ref_of(over), ref_of(overtaken)]


@pytest.mark.django_db
def test_however_many_streams_ask_it_is_two_queries(django_assert_num_queries: Callable[[int], object]) -> None:
    refs = [ref_of(a_call(status=Status.STREAMING)) for _ in range(5)]
    with django_assert_num_queries(2):  # type: ignore[attr-defined]
        with_news(refs)


A, B = CallRef("CA1", 0, "call-1"), CallRef("CA2", 0, "call-2")


async def test_who_has_news_is_woken_once_a_look_and_while_the_history_is_away_everybody_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "EVERY_S", 0.01)
    woken: list[str] = []
    enough = asyncio.Event()
    asked = 0

    async def ask(question: Callable[[], R]) -> R:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise LedgerAway("away")
        return [A]  # type: ignore[return-value]

    def look() -> None:
        woken.append("a")
        if len(woken) == 4:
            enough.set()

    looking = Lookout(ask)
    with looking.watching(A, look), looking.watching(B, lambda: woken.append("b")):
        await asyncio.wait_for(enough.wait(), 5)
    assert woken == ["a", "b", "a", "a"]
    assert asked == 3


async def test_whatever_breaks_at_a_look_all_are_looked_for_again_and_no_values_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lookout, "EVERY_S", 0.01)
    woken: list[str] = []
    enough = asyncio.Event()

    async def ask(question: Callable[[], R]) -> R:
        raise ProgrammingError("DETAIL:  Failing row contains (zweiundvierzig).")

    def breaks() -> None:
        woken.append("a")
        raise ZeroDivisionError("zweiundvierzig")

    def look() -> None:
        woken.append("b")
        if len(woken) == 6:
            enough.set()

    looking = Lookout(ask)
    with looking.watching(A, breaks), looking.watching(B, look):
        await asyncio.wait_for(enough.wait(), 5)
    assert woken == ["a", "b"] * 3
    assert [record.problem for record in caplog.records[:2]] == ["ProgrammingError", "ZeroDivisionError"]  # type: ignore[attr-defined]
    assert "zweiundvierzig" not in caplog.text


async def test_a_look_that_was_ended_all_the_same_is_begun_anew_by_the_next_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "EVERY_S", 0.01)
    woken = asyncio.Event()

    async def ask(question: Callable[[], R]) -> R:
        return [A, B]  # type: ignore[return-value]

    looking = Lookout(ask)
    with looking.watching(A, print):
        assert looking._looking is not None
        looking._looking.cancel()
        await asyncio.wait({looking._looking})
        with looking.watching(B, woken.set):
            await asyncio.wait_for(woken.wait(), 5)


async def test_nobody_looks_when_no_stream_is_there_and_somebody_again_when_one_comes() -> None:
    async def ask(question: Callable[[], R]) -> Awaitable[R]:
        raise AssertionError("nobody waited that long")

    looking = Lookout(ask)  # type: ignore[arg-type]
    before = asyncio.all_tasks()
    for _ in range(2):
        with looking.watching(A, print):
            assert len(asyncio.all_tasks()) == len(before) + 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
