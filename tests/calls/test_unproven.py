"""Requests nobody could prove are counted by door; three in a minute that look like the vendor's own are one alarm."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from calls.webhooks import unproven
from calls.webhooks.unproven import ALARM_AT, QUIET_S, WITHIN_S, Unproven
from tests.calls import doors

GENUINE = {"looks_genuine": True}
OTHER_TOKEN = "fedcba9876543210fedcba9876543210"


def alarms(times: list[float], **how: Any) -> list[float]:
    """At which of these moments the alarm is raised."""
    mine = Unproven()
    return [now for now in times if mine.came("incoming_call", "Twilio", now=now, **(GENUINE | how))]


def test_the_third_within_a_minute_is_an_alarm() -> None:
    assert alarms([0.0, 30.0, WITHIN_S]) == [WITHIN_S]
    assert alarms([0.0, 30.0, WITHIN_S + 0.1]) == []
    assert alarms([0.0, 30.0, 61.0, 62.0]) == [62.0]


def test_an_alarm_is_not_raised_again_for_a_while_and_then_again_while_it_lasts() -> None:
    every_ten_seconds = [10.0 * n for n in range(200)]
    first = 10.0 * (ALARM_AT - 1)
    assert alarms(every_ten_seconds) == [first, first + QUIET_S, first + 2 * QUIET_S, first + 3 * QUIET_S]


def test_a_stranger_who_tries_is_counted_and_is_no_alarm() -> None:
    assert alarms([0.1 * n for n in range(1000)], looks_genuine=False) == []


def test_strangers_do_not_hide_that_the_vendors_own_fail() -> None:
    mine, now = Unproven(), count()
    raised = [mine.came("incoming_call", "Twilio", looks_genuine=n % 10 == 0, now=0.5 * next(now)) for n in range(30)]
    assert raised.count(True) == 1


def test_each_vendor_has_an_alarm_of_its_own() -> None:
    mine = Unproven()
    raised = [mine.came("door", vendor, now=0.0, **GENUINE) for _ in range(ALARM_AT) for vendor in ("Twilio", "Vapi")]
    assert raised == [False] * 4 + [True, True]


def test_threads_that_refuse_at_once_lose_no_count_and_raise_one_alarm() -> None:
    mine = Unproven()
    with ThreadPoolExecutor(16) as threads:
        raised = list(threads.map(lambda n: mine.came(f"door{n % 2}", "Twilio", now=1.0, **GENUINE), range(2000)))
    assert raised.count(True) == 1
    assert mine.told() == "door0 1000, door1 1000"


@pytest.fixture
def alarmed(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[list[Any]]:
    """The alarms in the log of a process that begins now."""
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS, settings.VAPI_WEBHOOK_SECRETS = doors.PUBLIC_URL, [doors.TOKEN], [doors.SECRET]
    monkeypatch.setattr(unproven, "unproven", Unproven())
    raised: list[Any] = []
    ours = logging.getLogger(unproven.__name__)
    handler = logging.Handler()
    handler.emit = raised.append  # type: ignore[method-assign, assignment]
    ours.addHandler(handler)
    yield raised
    ours.removeHandler(handler)


def test_an_auth_token_that_was_changed_at_twilio_alone_is_one_line_in_the_log_that_tells_nothing_private(
    client: Client, alarmed: list[Any]
) -> None:
    for path in ("", "/status", "", "/resume/0", ""):
        fields = doors.incoming()
        signed = doors.signature(f"/webhook/twilio{path}", fields, token=OTHER_TOKEN)
        assert doors.knock(client, f"/webhook/twilio{path}", fields, **{"X-Twilio-Signature": signed}).status_code == 403
    (line,) = alarmed
    assert (line.levelname, line.vendor, line.setting) == ("ERROR", "Twilio", "TWILIO_AUTH_TOKEN")
    assert line.refused_so_far == "call_status 1, incoming_call 2"
    assert unproven.unproven.told() == "call_status 1, incoming_call 3, resume 1"
    assert not any(
        private in str(vars(line)) for private in (*fields.values(), doors.TOKEN, signed, "voice.example.com") if len(private) > 4
    )


def test_forms_without_a_signature_or_without_a_call_are_counted_and_alarm_nobody(client: Client, alarmed: list[Any]) -> None:
    for _ in range(2 * ALARM_AT):
        client.post("/webhook/twilio", data="CallSid=" + doors.CALL_SID, content_type=doors.FORM)
        doors.knock(client, "/webhook/twilio", {"CallSid": "me"}, **{"X-Twilio-Signature": "A" * 28})
    assert (alarmed, unproven.unproven.counts) == ([], {"incoming_call": 4 * ALARM_AT})


def test_a_secret_that_vapi_shows_and_we_do_not_know_is_an_alarm_and_none_shown_is_not(client: Client, alarmed: list[Any]) -> None:
    for _ in range(ALARM_AT):
        assert client.post("/webhook/vapi", data=b"{}", content_type="application/json").status_code == 403
    assert alarmed == []
    for _ in range(2 * ALARM_AT):
        client.post("/webhook/vapi", data=b"{}", content_type="application/json", headers={"X-Vapi-Secret": "another"})
    assert [line.setting for line in alarmed] == ["VAPI_WEBHOOK_SECRET"]
    assert unproven.unproven.counts == {"message": 3 * ALARM_AT}
