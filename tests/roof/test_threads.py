"""Requests borrow their threads: one each, used again, and never one that is still busy."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory
from django.urls import path
from pytest_django import DjangoDbBlocker

from supportvoice.threads import OneHop, lent_threads

seen: list[tuple[str, int]] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


def at(place: str) -> None:
    seen.append((place, threading.get_ident()))


def lent() -> int:
    return sum(thread.name.startswith("request") for thread in threading.enumerate())


async def ask(app: Any) -> None:
    await app({"type": "http"}, None, None)


async def working(scope: Any, receive: Any, send: Any) -> None:
    for place in ("first", "second"):
        await sync_to_async(at)(place)


async def test_a_request_has_one_thread_and_a_later_one_the_same() -> None:
    app = lent_threads(working)
    for _ in range(3):
        await ask(app)
    assert len(seen) == 6
    assert len({thread for _, thread in seen}) == 1
    assert seen[0][1] != threading.get_ident()


async def test_requests_at_the_same_time_have_threads_of_their_own_and_few_of_them_stay() -> None:
    together = threading.Barrier(5)

    async def meeting(scope: Any, receive: Any, send: Any) -> None:
        await sync_to_async(together.wait)(5)
        await sync_to_async(at)("met")

    before = lent()
    app = lent_threads(meeting, kept=2)
    await asyncio.gather(*(ask(app) for _ in range(5)))
    assert len({thread for _, thread in seen}) == 5
    async with asyncio.timeout(5):
        while lent() > before + 2:
            await asyncio.sleep(0.01)


async def test_a_thread_that_is_not_kept_closes_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, django_db_blocker: DjangoDbBlocker
) -> None:
    monkeypatch.setitem(connections.settings, "file", {**connections.settings["default"], "NAME": str(tmp_path / "db")})
    together = threading.Barrier(5)
    opened: list[Any] = []

    def asking() -> None:
        with django_db_blocker.unblock():
            connections["file"].ensure_connection()
        opened.append(connections["file"])
        together.wait(5)

    before = lent()
    app = lent_threads(lambda scope, receive, send: sync_to_async(asking)(), kept=2)
    await asyncio.gather(*(ask(app) for _ in range(5)))
    async with asyncio.timeout(5):
        while lent() > before + 2:
            await asyncio.sleep(0.01)
    assert sum(each.connection is not None for each in opened) == 2


async def test_a_thread_whose_request_was_given_up_is_lent_again_only_when_it_is_idle() -> None:
    free, under_way = threading.Event(), threading.Event()

    def slow() -> None:
        at("slow")
        under_way.set()
        free.wait(10)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await sync_to_async(slow if scope["slow"] else at)(*([] if scope["slow"] else ["quick"]))

    lending: Any = lent_threads(app)
    given_up = asyncio.create_task(lending({"type": "http", "slow": True}, None, None))
    await asyncio.to_thread(under_way.wait, 5)
    given_up.cancel()
    await asyncio.wait({given_up})
    async with asyncio.timeout(5):
        await lending({"type": "http", "slow": False}, None, None)  # would wait for `free` in the busy thread
    assert seen[0][1] != seen[1][1]
    free.set()


def view(request: HttpRequest) -> HttpResponse:
    at("view")
    return HttpResponse("")


class First:
    """Can do both, like most of Django's."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        at("middleware")
        return self.get_response(request)


urlpatterns = [path("here", view)]


async def test_the_middleware_and_the_view_share_a_thread(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [f"{__name__}.First", "django.middleware.common.CommonMiddleware"]
    answer = await OneHop().get_response_async(AsyncRequestFactory().get("/here"))
    assert answer.status_code == 200
    assert [place for place, _ in seen] == ["middleware", "view"]
    assert len({thread for _, thread in seen}) == 1
    assert seen[0][1] != threading.get_ident()


@pytest.mark.django_db
def test_the_connection_stays_for_the_next_request_where_to_open_one_is_dear() -> None:
    assert (connection.settings_dict["CONN_MAX_AGE"] is None) == (connection.vendor == "sqlite")
