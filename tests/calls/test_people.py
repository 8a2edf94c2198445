"""A person's data on a page: counted, handed over and erased by those who may, and by nobody else."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from agents.models import AuditEntry
from calls import vendor_erasures
from calls.models import CallSession, Status, TranscriptLine, VendorErasure
from tests.builders import CALLER, a_call, a_person, a_recording

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def configured(settings: Settings) -> None:
    settings.VAPI_API_KEY = settings.TWILIO_ACCOUNT_SID = ""


@pytest.fixture
def officer(client: Client) -> Client:
    """Somebody who may erase, and read what was said."""
    user = a_person("ops", "ada")
    calls = ContentType.objects.get_for_model(CallSession)
    may, _ = Permission.objects.get_or_create(codename="erase_person", content_type=calls, defaults={"name": "Can erase a person's data"})
    user.user_permissions.add(may)
    client.force_login(user)
    return client


def a_callers_call() -> CallSession:
    call = a_call(status=Status.FINALISED, ended_at=timezone.now() - timedelta(hours=1), end_reason="agent_ended")
    TranscriptLine.objects.create(call=call, role="user", said="a secret", text_hash="h", at=timezone.now())
    a_recording(call)
    return call


def test_the_page_says_what_would_go_and_asks_to_be_sure(officer: Client) -> None:
    a_callers_call()
    page = officer.post("/people/found/", {"number": "+1 555 0100 199"}).content.decode()
    assert "erase 1 call, 0 messages and 1 recording" in page
    assert 'name="sure" value="yes" required' in page
    assert officer.post("/people/erase/", {"number": CALLER}, follow=True).content.decode().count("Nothing was erased: tick the box") == 1
    assert TranscriptLine.objects.filter(said="a secret").exists()


def test_erasing_says_what_went_and_what_the_vendors_have_still_to_do(officer: Client) -> None:
    call = a_callers_call()
    page = officer.post("/people/erase/", {"number": CALLER, "sure": "yes"}, follow=True).content.decode()
    assert "Erased: 1 call, 2 lines, 0 messages, 1 recording." in page
    assert "1 still to be deleted" in page
    assert vendor_erasures.NO_ACCOUNT in page
    assert f'value="{CALLER}"' not in page, "the number is not carried on"
    call.refresh_from_db()
    assert call.erased_at is not None
    VendorErasure.objects.update(done_at=timezone.now())
    assert "nothing left" in officer.get("/people/").content.decode()
    assert AuditEntry.objects.get(action="erased").actor == "ada"


def test_a_copy_is_a_file_whose_name_says_nothing_and_the_trail_knows_of_it(officer: Client) -> None:
    call = a_callers_call()
    answer = officer.post("/people/export/", {"number": CALLER})
    assert answer["Content-Disposition"] == 'attachment; filename="person.jsonl"'
    [told] = map(json.loads, answer.content.decode().splitlines())
    assert told["call_sid"] == call.call_sid
    assert CALLER not in json.dumps(list(AuditEntry.objects.filter(action="exported").values("subject", "detail", "actor")))


@pytest.mark.parametrize("door", ["found", "export", "erase"])
def test_what_is_no_number_is_told_so_and_nothing_happens(officer: Client, door: str) -> None:
    page = officer.post(f"/people/{door}/", {"number": "my neighbour", "sure": "yes"}, follow=True).content.decode()
    assert "Write the number with + and country code" in page
    assert not AuditEntry.objects.filter(action__in=("erased", "exported")).exists()


@pytest.mark.parametrize("door", ["", "found/", "export/", "erase/"])
def test_nobody_else_comes_in(client: Client, door: str) -> None:
    call = a_callers_call()
    ask = client.post if door else client.get
    assert ask(f"/people/{door}", {"number": CALLER, "sure": "yes"}).status_code == 302
    client.force_login(a_person("ops"))
    assert ask(f"/people/{door}", {"number": CALLER, "sure": "yes"}).status_code == 403
    call.refresh_from_db()
    assert call.erased_at is None
    assert "/people/" not in client.get("/").content.decode()


def test_the_page_of_an_erased_call_says_so_and_shows_no_word(officer: Client) -> None:
    call = a_callers_call()
    officer.post("/people/erase/", {"number": CALLER, "sure": "yes"})
    page = officer.get(f"/calls/{call.public_id}/").content.decode()
    assert "What was said here was erased on" in page
    assert "somebody asked for it" in page
    assert "a secret" not in page
    assert CALLER not in page
    assert officer.get(f"/calls/{call.public_id}/recordings/{call.recordings.get().sid}.wav").status_code == 404
