"""`add_user`, as somebody with a shell on the server meets it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.test import Client

from agents.models import AuditEntry
from calls import roles
from supportvoice.management.commands import add_user
from tests.builders import a_team

pytestmark = pytest.mark.django_db
PASSWORD = "right horse battery"


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)


def added(*words: str) -> str:
    out = io.StringIO()
    call_command("add_user", *words, stdout=out)
    return out.getvalue()


def refused(*words: str) -> str:
    with pytest.raises(CommandError) as why:
        call_command("add_user", *words)
    assert why.value.returncode == 2
    return str(why.value)


@pytest.mark.parametrize("role", roles.ROLES)
def test_somebody_is_added_with_a_role_and_logs_in(client: Client, role: str) -> None:
    assert added("olga", "--role", role) == f"olga can log in now, as {role}.\n"
    assert client.login(username="olga", password=PASSWORD)
    olga = User.objects.get()
    assert (olga.is_superuser, [group.name for group in olga.groups.all()]) == (False, [role])
    assert client.get("/").status_code == 200
    assert client.get("/admin/").status_code == (200 if role in ("admin", "manager", "auditor") else 403)


def test_somebody_is_added_to_a_team() -> None:
    north = a_team("north")
    assert added("olga", "--role", "ops", "--team", "north") == "olga can log in now, as ops of North.\n"
    assert [member.username for member in north.members.all()] == ["olga"]
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.subject, entry.detail) == ("user-added", "user olga", {"role": "ops", "team": "north"})


def test_a_role_that_somebody_removed_is_made_again() -> None:
    Group.objects.all().delete()
    added("olga", "--role", "ops")
    assert User.objects.get().has_perm("calls.read_transcript")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("taken", "--role", "ops"), "There is a log-in “taken” already."),
        (("olga", "--role", "ops", "--team", "west"), "There is no team “west”."),
        (("ol ga", "--role", "ops"), "Enter a valid username."),
        (("x" * 151, "--role", "ops"), "at most 150 characters"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence_and_adds_nobody(words: tuple[str, ...], sentence: str) -> None:
    User.objects.create_user("taken")
    assert sentence in refused(*words)
    assert User.objects.count() == 1


def test_a_role_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(CommandError, match="invalid choice: 'boss'"):
        call_command("add_user", "olga", "--role", "boss")


@pytest.mark.parametrize("password", ["short", "password1", "12345678901", "", "olga-olga"])
def test_a_password_that_others_would_guess_is_refused(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", password)
    assert "password" in refused("olga-olga", "--role", "ops")
    assert not User.objects.exists()


def test_at_a_terminal_the_password_is_asked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DJANGO_SUPERUSER_PASSWORD")
    monkeypatch.setattr("sys.stdin", Terminal())
    typed = iter([PASSWORD, "other", PASSWORD, PASSWORD])
    monkeypatch.setattr(add_user, "getpass", lambda prompt: next(typed))
    assert refused("olga", "--role", "ops") == "The two passwords were not the same."
    added("olga", "--role", "ops")
    assert User.objects.get().check_password(PASSWORD)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_and_without_a_password_it_says_where_to_put_one(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.delenv("DJANGO_SUPERUSER_PASSWORD")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert refused("olga", "--role", "ops").startswith("Give the password in DJANGO_SUPERUSER_PASSWORD, or ")
