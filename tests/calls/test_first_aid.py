"""Who is left in silence by a `serve` that died hears a word from Twilio before anybody is there to look after them."""

from __future__ import annotations

import uuid
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from django.db import OperationalError
from django.utils import timezone

from bridge.errors import TwilioRefused
from calls import first_aid, leases, spoken
from calls.models import CallSession, ProcessLease, Status
from tests.builders import ACCOUNT, a_call

pytestmark = pytest.mark.django_db(transaction=True)

GONE, THERE = uuid.UUID(int=1), uuid.UUID(int=2)


class Told:
    """Twilio, as far as it is handed documents; it refuses those for `not_for`."""

    def __init__(self, *, not_for: str = "") -> None:
        self.documents: dict[str, tuple[str, str]] = {}
        self._not_for = not_for

    def tell(self, call_sid: str, twiml: str, account_sid: str = "") -> bool:
        if call_sid == self._not_for:
            raise TwilioRefused("Twilio refused with 400.", status=400)
        self.documents[call_sid] = (twiml, account_sid)
        return True


def carried(number: int, boot: uuid.UUID = GONE, **fields: Any) -> CallSession:
    ProcessLease.objects.get_or_create(boot=boot, defaults={"born_at": timezone.now(), "place": "gone" if boot == GONE else "there"})
    defaults: dict[str, Any] = {"status": Status.STREAMING, "stream_epoch": 0, "held_by": boot, "sid": f"CA{number:032x}"}
    return a_call(**defaults | fields)


def given(twilio: Told | None) -> None:
    first_aid.give(twilio=twilio, is_gone=lambda place: place == "gone")


def test_the_callers_of_a_process_that_is_gone_are_asked_to_wait_and_their_calls_stay_as_they_are() -> None:
    call, twilio = carried(1, epoch=2, stream_epoch=2), Told()
    before = CallSession.objects.filter(pk=call.pk).values("status", "epoch", "held_by").get()
    given(twilio)
    document, account = twilio.documents[call.call_sid]
    verbs = [(verb.tag, (verb.text or "").strip()) for verb in fromstring(document)]
    assert verbs == [("Say", spoken.ONE_MOMENT), ("Pause", ""), ("Say", spoken.STAY_ON_THE_LINE), ("Redirect", spoken.resume_url(2))]
    assert account == ACCOUNT
    assert CallSession.objects.filter(pk=call.pk).values("status", "epoch", "held_by").get() == before
    assert call.events.filter(kind="caller-asked-to-wait").count() == 1
    assert leases.beats(but=THERE, is_gone=lambda place: True)[0].is_dead  # whoever comes next claims it


def test_nobody_else_is_disturbed() -> None:
    carried(1, THERE)
    carried(2, status=Status.VOICEMAIL)
    carried(3, status=Status.CONNECTING, epoch=1)
    carried(4, status=Status.ENDED, ended_at=timezone.now(), end_reason="caller_hung_up")
    twilio = Told()
    given(twilio)
    assert twilio.documents == {}


def test_a_process_that_somebody_has_claimed_is_left_to_them() -> None:
    carried(1)
    ProcessLease.objects.update(claimed_by=THERE, claimed_at=timezone.now())
    twilio = Told()
    given(twilio)
    assert twilio.documents == {}


def test_one_whom_twilio_does_not_ask_keeps_nobody_else_from_being_asked() -> None:
    first, second = carried(1), carried(2)
    twilio = Told(not_for=first.call_sid)
    given(twilio)
    assert list(twilio.documents) == [second.call_sid]
    assert not first.events.filter(kind="caller-asked-to-wait").exists()


def test_without_an_account_or_a_database_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    carried(1)
    given(None)

    def away(**kwargs: Any) -> list[leases.Beat]:
        raise OperationalError("The database is away.")

    monkeypatch.setattr(leases, "beats", away)
    twilio = Told()
    given(twilio)
    assert twilio.documents == {}
