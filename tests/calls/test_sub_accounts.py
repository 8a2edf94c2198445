"""Calls of a Twilio sub-account: known to Twilio under that account only, as the sandbox's REST side has it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from django.utils import timezone

from bridge.errors import TwilioRefused
from bridge.sandbox.script import Caller
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.twilio_rest import TwilioRestSandbox
from bridge.twilio_rest import TwilioRest
from calls.models import CallSession, Status
from calls.sweep import end_silent_calls
from tests.builders import a_call

pytestmark = pytest.mark.django_db
OURS, THEIRS, TOKEN = "AC" + "1" * 32, "AC" + "2" * 32, "0123456789abcdef0123456789abcdef"
TTL = timedelta(hours=1)
T = TypeVar("T")


class House:
    """Twilio's REST side, in a thread of its own."""

    def __init__(self) -> None:
        self.twilio = TwilioRestSandbox(OURS, TOKEN)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="twilio", daemon=True)
        self._thread.start()

    def there(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def ring(self, account_sid: str) -> TwilioCall:
        caller = TwilioCall(webhook_url="http://127.0.0.1:9/", auth_token=TOKEN, caller=Caller(()), account_sid=account_sid)
        return self.twilio.take(caller)


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    house.there(house.twilio.__aenter__())
    yield house
    house.there(house.twilio.__aexit__())
    house.stop()


def silent_call(house: House, account_sid: str, status: Status) -> CallSession:
    """A call that Twilio has, and that we heard nothing of for two hours."""
    there = house.there(house.ring(account_sid))
    return a_call(sid=there.call_sid, status=status, account_sid=account_sid, last_seen_at=timezone.now() - 2 * TTL)


def swept(house: House) -> list[str]:
    return end_silent_calls(now=timezone.now(), ttl=TTL, twilio=TwilioRest(house.twilio.base_url, OURS, TOKEN))


@pytest.mark.parametrize("account_sid", [OURS, THEIRS], ids=["ours", "sub-account"])
@pytest.mark.parametrize("status", [Status.TRANSFERRING, Status.VOICEMAIL])
def test_a_caller_with_a_person_is_left_alone_whichever_account_they_came_by(house: House, account_sid: str, status: Status) -> None:
    call = silent_call(house, account_sid, status)
    assert swept(house) == []
    call.refresh_from_db()
    assert call.status == status
    assert [(asked.path.split("/")[3], asked.answered) for asked in house.twilio.asked] == [(account_sid, 200)]


def test_a_dead_line_is_hung_up_under_its_own_account(house: House) -> None:
    call = silent_call(house, THEIRS, Status.CONNECTING)
    assert swept(house) == [call.call_sid]
    assert [(asked.method, asked.path.split("/")[3]) for asked in house.twilio.asked] == [("GET", THEIRS), ("POST", THEIRS)]


def test_an_account_that_is_refused_does_not_keep_twilio_from_answering_for_the_others() -> None:
    asked: list[tuple[str, str]] = []

    class Twilio:
        def status(self, call_sid: str, account_sid: str) -> str:
            asked.append((call_sid, account_sid))
            if account_sid == THEIRS:
                raise TwilioRefused("Twilio does not accept our account and token.", status=401)
            return "in-progress"

        def hang_up(self, call_sid: str, account_sid: str) -> bool:
            raise AssertionError

        def redirect(self, call_sid: str, url: str, account_sid: str) -> bool:
            raise AssertionError

    refused, ours = [a_call(account_sid=THEIRS) for _ in range(2)], a_call(account_sid=OURS)
    CallSession.objects.update(status=Status.TRANSFERRING, last_seen_at=timezone.now() - 2 * TTL)
    assert end_silent_calls(now=timezone.now(), ttl=TTL, twilio=Twilio()) == []
    assert len(asked) == 2
    assert (ours.call_sid, OURS) in asked
    assert {call.status for call in CallSession.objects.filter(pk__in=[call.pk for call in refused])} == {Status.TRANSFERRING}
