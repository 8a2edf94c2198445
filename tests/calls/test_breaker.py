"""What all processes know of our accounts at Vapi: one row each, changed by one of them, believed by all."""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial

import pytest
from django.db import DatabaseError, OperationalError, connections
from django.db.models import QuerySet
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from bridge import vapi_answers
from bridge.errors import VapiError, VapiRefused, VapiUnavailable
from calls import breaker, circuit, ended_reasons
from calls.models import VendorHealth
from tests.builders import at_once

pytestmark = pytest.mark.django_db(transaction=True)
AT = timezone.now().replace(microsecond=0)
LATER = AT + timedelta(seconds=6)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    if "timeout" in connections.settings["default"]["OPTIONS"]:
        monkeypatch.setitem(connections.settings["default"]["OPTIONS"], "timeout", 20.0)


def test_a_refused_key_opens_it_for_everybody_and_a_call_that_works_closes_it() -> None:
    assert breaker.may_ask("main", at=AT)
    assert breaker.failed("main", circuit.KEY, at=AT)
    assert (breaker.is_open("main", at=AT), breaker.may_ask("main", at=AT)) == (True, False)
    assert breaker.may_ask("backup", at=AT)
    assert [row.account for row in breaker.opened()] == ["main"]
    assert breaker.worked("main", at=LATER)
    assert (breaker.is_open("main", at=LATER), breaker.may_ask("main", at=LATER), breaker.opened()) == (False, True, [])


def test_it_takes_five_failures_of_the_ordinary_kind() -> None:
    assert [breaker.failed("main", circuit.TROUBLE, at=AT) for _ in range(6)] == [False, False, False, False, True, False]


def test_a_call_that_works_lets_the_failures_before_it_be_forgotten() -> None:
    for _ in range(4):
        breaker.failed("main", circuit.TROUBLE, at=AT)
    assert not breaker.worked("main", at=AT)
    assert not any(breaker.failed("main", circuit.TROUBLE, at=AT) for _ in range(4))


def test_of_many_calls_at_once_one_tries_an_open_account() -> None:
    breaker.failed("main", circuit.CREDIT, at=AT)
    assert sum(at_once([partial(breaker.may_ask, "main", at=LATER)] * 8)) == 1
    assert not breaker.may_ask("main", at=LATER + timedelta(seconds=4))
    assert breaker.may_ask("main", at=LATER + timedelta(seconds=5))


def test_of_many_failures_at_once_none_is_lost_and_one_raises_the_alarm(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="calls.breaker"):
        assert sum(at_once([partial(breaker.failed, "main", circuit.TROUBLE, at=AT)] * 5)) == 1
    assert [record.getMessage() for record in caplog.records] == ["breaker-opened: Vapi does not take our calls"]
    assert breaker.is_open("main", at=AT)


def test_in_the_usual_case_the_call_path_pays_one_small_query(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(1):
        assert breaker.may_ask("main", at=AT)
    with django_assert_num_queries(1):
        breaker.worked("main", at=AT)
    assert not VendorHealth.objects.exists()


def test_without_the_database_every_account_takes_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("away")

    breaker.failed("main", circuit.KEY, at=AT)
    monkeypatch.setattr(QuerySet, "first", away)
    assert breaker.may_ask("main", at=AT)
    assert not breaker.is_open("main", at=AT)
    monkeypatch.setattr(QuerySet, "get_or_create", away)
    assert not breaker.failed("backup", circuit.KEY, at=AT)
    assert issubclass(OperationalError, DatabaseError)


PROBLEMS: list[tuple[VapiError, str]] = [
    (VapiRefused("", status=401, limit="key"), "key"),
    (VapiRefused("", status=400, limit="lines"), "lines"),
    (VapiUnavailable("", status=201, sent=True, limit="lines"), "lines"),
    (VapiUnavailable("", status=429), "busy"),
    (VapiUnavailable("", status=500, sent=True), "trouble"),
    (VapiUnavailable("", sent=True), "trouble"),
    (VapiRefused("no sane answer", status=201), "trouble"),
    (VapiRefused("words that Vapi does not take", status=400), ""),
    (VapiRefused("an assistant that is gone", status=404), ""),
    (VapiRefused("no version answers this call"), ""),
]


@pytest.mark.parametrize(("problem", "kind"), PROBLEMS, ids=lambda each: str(each) if isinstance(each, VapiError) else each)
def test_only_what_concerns_the_whole_account_counts(problem: VapiError, kind: str) -> None:
    assert breaker.kind_of(problem) == kind


@pytest.mark.parametrize(
    ("status", "body", "limit"),
    [
        (401, b"", "key"),
        (403, b"error code: 1010", "key"),
        (402, b"", "credit"),
        (400, b'{"message":"Over Concurrency Limit","error":"Bad Request","statusCode":400}', "lines"),
        (400, b'{"message":"Wallet balance is too low to start a call."}', "credit"),
        (400, b'{"message":["property x should not exist"]}', ""),
        (404, b"Over Concurrency Limit", ""),
        (400, b"\xff\xfe", ""),
    ],
)
def test_a_limit_of_the_account_is_told_by_status_or_in_words(status: int, body: bytes, limit: str) -> None:
    assert vapi_answers.limit(status, body) == limit


@pytest.mark.parametrize(
    ("raw", "limit"),
    [
        ("call.start.error-subscription-concurrency-limit-reached", "lines"),
        ("call.start.error-subscription-insufficient-credits", "credit"),
        ("call.start.error-subscription-frozen", "credit"),
        ("call.start.error-subscription-wallet-does-not-exist", "credit"),
        ("call.in-progress.error-vapifault-playht-out-of-credits", ""),
        ("assistant-ended-call", ""),
        ("", ""),
    ],
)
def test_or_by_why_vapi_ended_a_call(raw: str, limit: str) -> None:
    assert ended_reasons.limit(raw) == limit
