"""What is set for our numbers at Twilio: asked over a real socket, told by `check --deploy`, and by a server that starts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from bridge.sandbox.twilio_rest import Number
from bridge.twilio_rest import TwilioRest
from calls import numbers
from calls.models import CallSession
from tests.builders import LINE, a_call, a_line
from tests.calls.test_sub_accounts import OURS, THEIRS, TOKEN, House

pytestmark = pytest.mark.django_db
PUBLIC_URL = "https://voice.acme.org"
RIGHT = Number(
    LINE,
    voice_url=f"{PUBLIC_URL}/webhook/twilio",
    fallback_url="https://handler.twilio.com/twiml/EH0123456789abcdef0123456789abcdef",
    status_callback=f"{PUBLIC_URL}/webhook/twilio/status",
)


@pytest.fixture
def house(settings: Any) -> Iterator[House]:
    house = House()
    house.there(house.twilio.__aenter__())
    settings.PUBLIC_URL = PUBLIC_URL
    settings.TWILIO_BASE_URL, settings.TWILIO_ACCOUNT_SID, settings.TWILIO_AUTH_TOKENS = house.twilio.base_url, OURS, [TOKEN]
    yield house
    if house.twilio.base_url:
        house.there(house.twilio.__aexit__())
    house.stop()


def checked() -> tuple[bool, str]:
    """Whether `check --deploy` lets this installation pass, and what it says of our numbers."""
    out = StringIO()
    try:
        call_command("check", deploy=True, tags=["numbers"], stdout=out, stderr=out)
    except CommandError as failed:
        return False, str(failed)
    return True, out.getvalue()


def test_a_number_that_is_set_up_well_is_not_spoken_of(house: House) -> None:
    a_line()
    house.twilio.numbers.append(RIGHT)
    passes, said = checked()
    assert (passes, LINE in said) == (True, False)
    assert [asked.path for asked in house.twilio.asked] == [f"/2010-04-01/Accounts/{OURS}/IncomingPhoneNumbers.json"]


@pytest.mark.parametrize("twin", ["", "/", "#rc=2&rp=ct,rt,5xx"])
def test_our_doors_are_known_with_a_slash_and_with_twilios_own_fragment(house: House, twin: str) -> None:
    a_line()
    house.twilio.numbers.append(replace(RIGHT, voice_url=RIGHT.voice_url + twin, status_callback=f"{RIGHT.status_callback}{twin}"))
    assert numbers.findings(twilio=TwilioRest(house.twilio.base_url, OURS, TOKEN)) == []


@pytest.mark.parametrize(
    ("change", "passes", "sentence"),
    [
        ({"fallback_url": ""}, False, "has no fallback URL"),
        ({"fallback_url": f"{PUBLIC_URL}/webhook/twilio/fallback"}, False, "leads to us"),
        ({"fallback_url": "https://voice.ACME.org:443/static/rescue.xml"}, False, "leads to us"),
        ({"fallback_url": "soon"}, False, "leads to us"),
        ({"voice_url": ""}, False, "does not ask us when a call comes in"),
        ({"voice_url": "https://demo.twilio.com/welcome/voice/"}, False, f"must be {PUBLIC_URL}/webhook/twilio (POST)"),
        ({"voice_url": "http://voice.acme.org/webhook/twilio"}, False, "does not ask us when a call comes in"),
        ({"voice_url": f"{PUBLIC_URL}/webhook/twilio?team=1"}, False, "does not ask us when a call comes in"),
        ({"voice_url": "https://[broken/webhook/twilio"}, False, "does not ask us when a call comes in"),
        ({"voice_method": "GET"}, False, "asks us with GET"),
        ({"status_callback": ""}, True, "does not tell us that a call is over"),
        ({"status_method": "GET"}, True, "tells us with GET"),
        ({"application_sid": "AP" + "1" * 32}, True, "is answered by a TwiML app"),
        ({"trunk_sid": "TK" + "1" * 32}, True, "is answered by a SIP trunk"),
    ],
)
def test_each_thing_that_is_wrong_is_one_plain_sentence_and_what_loses_calls_does_not_pass(
    house: House, change: dict[str, str], passes: bool, sentence: str
) -> None:
    a_line()
    house.twilio.numbers.append(replace(RIGHT, **change))
    passed, said = checked()
    assert passed == passes
    (line,) = [line for line in said.splitlines() if LINE in line]
    assert sentence in line


def test_a_number_that_only_has_ours_in_it_is_another_one(house: House) -> None:
    a_line()
    house.twilio.numbers.append(replace(RIGHT, phone_number=f"{LINE}9"))
    assert "is not among the numbers" in checked()[1]


def test_a_number_of_a_sub_account_is_found_where_its_calls_come_from(house: House) -> None:
    call = a_call()
    CallSession.objects.filter(pk=call.pk).update(account_sid=THEIRS)
    house.twilio.numbers.append(replace(RIGHT, account_sid=THEIRS, fallback_url=""))
    assert "has no fallback URL" in checked()[1]


@pytest.mark.parametrize("status", [401, 503])
def test_a_twilio_that_refuses_or_fails_is_a_warning_and_is_asked_once(house: House, status: int) -> None:
    a_line()
    a_line(number="+15550100102")
    house.twilio.fail_with(status)
    passes, said = checked()
    assert (passes, len(house.twilio.asked)) == (True, 1)
    assert "Nobody could ask Twilio about 2 of our numbers" in said


def test_a_twilio_that_cannot_be_reached_is_a_warning(house: House, settings: Any) -> None:
    a_line()
    settings.TWILIO_BASE_URL = "http://127.0.0.1:9"
    passes, said = checked()
    assert (passes, "Twilio cannot be reached" in said) == (True, True)


def test_many_numbers_at_a_slow_twilio_end_at_the_deadline(house: House) -> None:
    for last in range(3):
        a_line(number=f"+1555010010{last}")
    times = iter((0.0, 0.0, numbers.ALL_WITHIN_S, numbers.ALL_WITHIN_S))
    found = numbers.findings(twilio=TwilioRest(house.twilio.base_url, OURS, TOKEN), clock=lambda: next(times))
    assert len(house.twilio.asked) == 1
    assert "about 2 of our numbers" in str(found[-1])


def test_without_credentials_nobody_is_asked_and_that_is_said(settings: Any) -> None:
    a_line()
    settings.TWILIO_AUTH_TOKENS = []
    passes, said = checked()
    assert (passes, "TWILIO_AUTH_TOKEN is missing" in said) == (True, True)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("fallback", "is_told"), [("", True), (RIGHT.fallback_url, False)])
def test_a_server_that_starts_says_in_one_line_without_a_number_that_callers_can_be_lost(
    house: House, caplog: pytest.LogCaptureFixture, fallback: str, is_told: bool
) -> None:
    a_line()
    house.twilio.numbers.append(replace(RIGHT, fallback_url=fallback))
    beside = threading.Thread(target=numbers.say_at_start)  # as `serve` does
    beside.start()
    beside.join(30)
    told = [record.getMessage() for record in caplog.records if "Callers can be lost" in record.getMessage()]
    assert len(told) == is_told
    assert LINE[1:] not in caplog.text
