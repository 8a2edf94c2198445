"""Who came in, who did not, and who left: in the trail, whichever door was used."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from agents import trail
from agents.models import AuditEntry

pytestmark = pytest.mark.django_db
Line = tuple[str, str, str, str]


def lines() -> list[Line]:
    trail.verify()
    return list(AuditEntry.objects.order_by("number").values_list("action", "actor", "subject", "address"))


@pytest.fixture
def ann(client: Client) -> User:
    return User.objects.create_superuser("ann", "ann@example.com", "right horse")


@pytest.mark.parametrize("leave", ["/logout/", "/admin/logout/"])
def test_whoever_comes_in_and_leaves_is_told_at_both_doors(client: Client, ann: User, leave: str) -> None:
    client.post("/login/", {"username": "ann", "password": "right horse"}, REMOTE_ADDR="192.0.2.7")
    client.post(leave)
    assert lines() == [("logged-in", "ann", "user ann", "192.0.2.7"), ("logged-out", "ann", "user ann", "127.0.0.1")]


@pytest.mark.parametrize("name", ["nobody", "hunter2", "a\0b", "ann\n", "x" * 500])
def test_a_name_that_nobody_has_is_not_kept_because_people_type_passwords_there(client: Client, ann: User, name: str) -> None:
    client.post("/login/", {"username": name, "password": "hunter2"})
    assert set(lines()) <= {("log-in-failed", "", "", "127.0.0.1"), ("log-in-failed", "", "user ann", "127.0.0.1")}
    stored = str(list(AuditEntry.objects.values()))
    assert "hunter2" not in stored
    assert "xxx" not in stored


def test_a_wrong_password_is_told_with_the_name_it_was_tried_for(client: Client, ann: User) -> None:
    client.post("/login/", {"username": "ann", "password": "wrong"})
    User.objects.update(is_active=False)
    client.post("/login/", {"username": "ann", "password": "right horse"})
    assert lines() == [("log-in-failed", "", "user ann", "127.0.0.1")] * 2


def test_leaving_without_having_come_is_told_to_nobody(client: Client) -> None:
    client.post("/logout/")
    assert lines() == []
