"""Who looks at what was said, and who gets it out of the house: told to the trail first, or not shown."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import DatabaseError, Error, InterfaceError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agents import trail
from agents.models import AuditEntry
from calls.models import CallbackRequest, CallSession, RecordingState, Status
from tests.builders import a_call, a_callback, a_line, a_message, a_recording, a_report

pytestmark = pytest.mark.django_db
Line = tuple[str, str, str]


@pytest.fixture
def olga(client: Client) -> Client:
    client.force_login(User.objects.create_user("olga", password="x", is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> bytes:
    class Account:
        def recording(self, sid: str, max_bytes: int, account_sid: str = "") -> bytes:
            return b"RIFF sound"

    monkeypatch.setattr("calls.twilio_account.client", Account)
    return b"RIFF sound"


@pytest.fixture(params=[DatabaseError("full"), InterfaceError("the cursor is closed")], ids=repr)
def full(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on the trail takes nothing."""

    def refuse(*_: Any, **__: Any) -> None:
        raise request.param

    return lambda: monkeypatch.setattr(trail, "_append", refuse)


def lines() -> list[Line]:
    """What stands in a sound trail beside log-ins."""
    trail.verify()
    return list(AuditEntry.objects.exclude(action="logged-in").order_by("number").values_list("action", "actor", "subject"))


def places(call: CallSession) -> dict[str, Line]:
    """Every page that shows what was said, and what the trail says of it."""
    message, recording, report = a_message(call), a_recording(call), a_report(call, summary="They could not log in.")
    of_message = ("message-read", "olga", f"{call.short_id} message {message.pk}")
    return {
        f"/calls/{call.public_id}/": ("call-read", "olga", call.short_id),
        f"/messages/{message.pk}/": of_message,
        f"/messages/{message.pk}.json": of_message,
        f"/calls/{call.public_id}/recordings/{recording.sid}.wav": (
            "recording-heard",
            "olga",
            f"{call.short_id} recording {recording.sid}",
        ),
        f"/admin/calls/callsession/{call.pk}/change/": ("call-read", "olga", call.short_id),
        f"/admin/calls/vapireport/{report.pk}/change/": ("report-read", "olga", call.short_id),
    }


def test_every_look_at_what_was_said_is_told_once_however_often_the_page_asks(olga: Client, sound: bytes) -> None:
    for path, line in places(a_call()).items():
        for _ in range(3):
            assert olga.get(path).status_code == 200, path
        assert lines().count(line) == 1, path
    assert len(lines()) == 4  # the admin's page of a call is the same look, and so is saving a message


def test_each_of_these_pages_tells_by_itself(olga: Client, sound: bytes) -> None:
    for place in range(6):
        call = a_call()
        path, line = list(places(call).items())[place]
        before = len(lines())
        olga.get(path)
        assert lines()[before:] == [line], path


def test_a_page_that_cannot_be_told_is_one_sentence_and_nothing_else(olga: Client, sound: bytes, full: Callable[[], None]) -> None:
    pages = places(a_call())
    full()
    for path in pages:
        answer = olga.get(path)
        assert (answer.status_code, answer.headers["Content-Type"]) == (503, "text/plain; charset=utf-8"), path
        assert answer.content.decode().startswith("This cannot be shown now, because the audit trail cannot note")


def test_what_was_not_shown_is_not_told(olga: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calls.twilio_account.client", lambda: None)
    call = a_call()
    making, ready = a_recording(call, state=RecordingState.IN_PROGRESS), a_recording(call)
    for path in (f"/calls/{uuid.uuid4()}/", "/messages/77/", "/messages/77.json", "/admin/calls/callsession/77/change/"):
        assert olga.get(path).status_code in (302, 404)
    for recording in (making, ready):
        assert olga.get(f"/calls/{call.public_id}/recordings/{recording.sid}.wav").status_code in (404, 503)
    olga.get("/calls/")
    assert lines() == []


def test_a_look_again_costs_one_query_and_no_turn_at_writing(olga: Client) -> None:
    path = f"/calls/{a_call().public_id}/"
    olga.get(path)
    with CaptureQueriesContext(connection) as counted:
        olga.get(path)
    of_trail = [query["sql"] for query in counted if "agents_auditentry" in query["sql"]]
    assert len(of_trail) == 1
    assert not any(query["sql"].startswith(("INSERT", "UPDATE", "SAVEPOINT", "BEGIN")) for query in counted)


def test_a_message_of_no_call_is_told_by_its_number(olga: Client) -> None:
    message = a_message()
    olga.get(f"/messages/{message.pk}/")
    assert lines() == [("message-read", "olga", f"message {message.pk}")]


def test_both_buttons_of_the_console_are_told(olga: Client) -> None:
    call = a_call(status=Status.STREAMING)
    message = a_message(call)
    a_callback(call)
    for _ in range(2):
        olga.post(f"/calls/{call.public_id}/called-back/", {"note": "s3cret note"})
    olga.post(f"/messages/{message.pk}/again/")
    assert lines() == [("called-back", "olga", call.short_id), ("processed-again", "olga", f"{call.short_id} message {message.pk}")]
    assert "s3cret" not in str(list(AuditEntry.objects.values()))


def test_a_call_back_that_cannot_be_told_is_not_marked(olga: Client, full: Callable[[], None]) -> None:
    call = a_call()
    a_callback(call)
    full()
    with pytest.raises(Error):
        olga.post(f"/calls/{call.public_id}/called-back/")
    assert CallbackRequest.objects.get().done_at is None


# -- out of the house, and into it ---------------------------------------------------------------------------------------


def ran(*args: str) -> str:
    out = io.StringIO()
    call_command(*args, stdout=out)
    return out.getvalue()


def test_every_export_is_told_with_what_was_asked_for() -> None:
    call = a_call()
    ran("export_calls", "--since", "2026-01-01")
    ran("export_calls", "--call", call.call_sid, "--format", "csv")
    ran("agents_export")
    who = trail.Who.at_the_shell().actor
    assert lines() == [("exported", who, "calls"), ("exported", who, call.short_id), ("exported", who, "agents")]
    details = AuditEntry.objects.order_by("number").values_list("detail", flat=True)
    assert list(details) == [{"format": "jsonl", "since": "2026-01-01T00:00:00+00:00"}, {"format": "csv", "since": None}, {}]
    assert AuditEntry.objects.filter(subject__contains=call.call_sid).count() == 0


@pytest.mark.parametrize("command", ["export_calls", "agents_export"])
def test_an_export_that_cannot_be_told_writes_nothing(command: str, full: Callable[[], None]) -> None:
    a_call()
    full()
    out = io.StringIO()
    with pytest.raises(CommandError, match="Nothing is exported: the audit trail cannot note it now"):
        call_command(command, stdout=out)
    assert out.getvalue() == ""


def test_an_import_is_told_with_names_and_keys_and_a_dry_run_is_not(tmp_path: Path) -> None:
    file = tmp_path / "agents.json"
    template = {
        "slug": "support",
        "name": "Support",
        "prompt": "s3cret prompt",
        "first_message": "Hi.",
        "voice": {"provider": "11labs", "voiceId": "sam"},
    }
    file.write_text(json.dumps({"templates": [template]}))
    ran("agents_import", str(file), "--dry-run")
    assert lines() == []
    ran("agents_import", str(file), "--draft")
    file.write_text(json.dumps({"templates": [{**template, "prompt": "s3cret again"}]}))
    ran("agents_import", str(file))
    who = trail.Who.at_the_shell().actor
    assert lines() == [("imported", who, "agents"), ("published", who, "agent support v1"), ("imported", who, "agents")]
    details = AuditEntry.objects.filter(action="imported").order_by("number").values_list("detail", flat=True)
    assert list(details) == [{"created": ["template support"], "changed": []}, {"created": [], "changed": ["template support: prompt"]}]
    assert "s3cret" not in str(list(AuditEntry.objects.values()))


# -- the page ----------------------------------------------------------------------------------------------------------


def note(action: str, *, actor: str = "ann", subject: str = "", **fields: Any) -> None:
    trail.record(action, actor=actor, subject=subject, **({"at": timezone.now()} | fields))


def shown(client: Client, query: str = "") -> list[str]:
    return [item.slots["action"] for item in client.get(f"/trail/?{query}").context["rows"]]


@pytest.fixture
def auditor(client: Client) -> Client:
    user = User.objects.create_user("audrey", password="x")
    user.user_permissions.add(Permission.objects.get(codename="view_auditentry"))
    client.force_login(user)
    return client


def test_the_trail_is_for_those_who_may_see_it_alone(client: Client) -> None:
    assert client.get("/trail/").headers["Location"] == "/login/?next=/trail/"
    client.force_login(User.objects.create_user("olga", password="x"))
    assert client.get("/trail/").status_code == 403
    assert "Audit trail" not in client.get("/").content.decode()


def test_the_page_names_who_did_what_to_which_thing_newest_first(auditor: Client) -> None:
    note("changed", subject="agent support", detail={"fields": ["greeting", "voice"], "staff": True, "roles": []}, address="192.0.2.7")
    note("call-read", actor="", subject="call-6a0f9c")
    page = auditor.get("/trail/").content.decode()
    for words in ("Changed", "agent support", "fields: greeting, voice · staff: yes", "192.0.2.7", "Call read", "the house itself"):
        assert words in page, words
    assert '<a href="/calls/?q=call-6a0f9c">call-6a0f9c</a>' in page
    assert "Audit trail" in auditor.get("/").content.decode()
    assert shown(auditor) == ["Call read", "Changed", "Logged in"]


def test_every_filter_of_the_trail_narrows_it(auditor: Client) -> None:
    note("changed", subject="agent support", at=datetime(2026, 3, 1, 23, 30, tzinfo=UTC))
    note("deleted", actor="bob", subject="agent sales")
    note("published", actor="", subject="agent support v2")
    assert shown(auditor, "who=an") == ["Changed"]
    assert shown(auditor, "who=the+house+itself") == ["Published"]
    note("log-in-failed", actor="", address="192.0.2.7")
    assert shown(auditor, "who=somebody+not+logged+in") == ["Log in failed"]
    assert shown(auditor, "action=deleted") == ["Deleted"]
    assert shown(auditor, "about=support") == ["Published", "Changed"]
    assert shown(auditor, "to=2026-03-01") == ["Changed"]
    assert shown(auditor, "to=2026-03-01&zone=Asia/Kolkata") == []
    assert shown(auditor, "from=2026-03-02&to=2026-03-02&zone=Asia/Kolkata") == ["Changed"]
    assert shown(auditor, "about=support&who=bob") == []
    assert "No entry is like that" in auditor.get("/trail/?who=nobody").content.decode()


@pytest.mark.parametrize("query", ["from=yesterday", "to=9999-99-99", "who=%00", "action=%00&about=%ED%A0%80", "page=x", "zone=/etc"])
def test_no_address_breaks_the_page_of_the_trail(auditor: Client, query: str) -> None:
    answer = auditor.get(f"/trail/?{query}")
    assert answer.status_code == 200
    assert ("Not understood" in answer.content.decode()) == ("yesterday" in query or "9999" in query)


def test_the_page_says_whether_the_newest_entries_are_as_they_were_written(auditor: Client) -> None:
    note("changed", subject="agent support")
    assert "The newest 2 entries are as they were written." in auditor.get("/trail/").content.decode()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE agents_auditentry SET actor = 'bob' WHERE number = 2")
    page = auditor.get("/trail/").content.decode()
    assert "The trail is not as it was written." in page
    assert "Entry 2 was changed after it was written." in page


def test_the_page_costs_the_same_queries_for_one_entry_and_for_many(auditor: Client) -> None:
    costs = []
    for count in (1, 80):
        for _ in range(count):
            note("changed", subject="agent support")
        with CaptureQueriesContext(connection) as counted:
            auditor.get("/trail/")
        costs.append(len(counted))
    assert costs[0] == costs[1] <= 10


def test_long_trails_come_in_pages(auditor: Client) -> None:
    for _ in range(60):
        note("changed")
    assert len(shown(auditor)) == 50
    assert len(shown(auditor, "page=2")) == 11


def test_a_trail_of_nothing_yet_says_what_it_is(auditor: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM agents_auditentry")
    page = auditor.get("/trail/").content.decode()
    assert "Nothing was noted yet." in page
    assert "Entries are never changed and never taken out." in page


def test_a_line_on_the_page_needs_no_call(auditor: Client) -> None:
    a_line()
    details: tuple[Any, ...] = ([], "text", {"deep": {"a": 1}}, {"": None})
    for detail in details:
        note("odd-one", detail={"told": detail})
    assert shown(auditor)[0] == "Odd one"
