"""Whatever is added, changed or deleted in the admin is told to the trail, by whichever class and whichever door of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.db import DatabaseError, models
from django.test import Client

from agents import trail
from agents.models import AssistantTemplate, AuditEntry, HandoffTarget, PhoneLine, Team, Tool
from supportvoice.desk import CarefulAdmin
from tests.builders import a_line

pytestmark = pytest.mark.django_db
EDITED = (AssistantTemplate, HandoffTarget, PhoneLine, Team, Tool, User, Group)
SECRET = "gr33ting-that-stays-out"


@pytest.fixture
def desk(client: Client) -> Client:
    """A superuser's browser, and one row of everything that is edited here; nothing is in the trail yet but the log-in."""
    a_line(targets=("tier2",), name="Support")
    Team.objects.create(name="Support", slug="support")
    Tool.objects.create(
        name="look_up", description="Looks up.", url="https://crm.example/x", parameters={"type": "object", "properties": {}}
    )
    Group.objects.create(name="night shift")
    client.force_login(User.objects.create_superuser("ann", "ann@example.com", "long-enough-1"))
    return client


def told(*actions: str) -> list[AuditEntry]:
    """What stands in the trail beside the log-in; the trail itself must be sound."""
    entries = list(AuditEntry.objects.exclude(action="logged-in").order_by("number"))
    assert [entry.action for entry in entries] == list(actions)
    assert {(entry.actor, entry.address) for entry in entries} <= {("ann", "127.0.0.1")}
    trail.verify()
    return entries


def door(row: models.Model | type[models.Model], page: str) -> str:
    key = f"{row.pk}/" if isinstance(row, models.Model) else ""
    return f"/admin/{row._meta.app_label}/{row._meta.model_name}/{key}{page}"


def form_of(desk: Client, row: models.Model) -> dict[str, Any]:
    """The change form as a browser would send it back."""
    form = desk.get(door(row, "change/")).context["adminform"].form
    sent: dict[str, Any] = {}
    for name in form.fields:
        value = form[name].value()
        if isinstance(value, datetime):
            day = {"_0": value.date(), "_1": value.time().replace(microsecond=0)}
            sent |= {f"{before}{name}{part}": told for part, told in day.items() for before in ("", "initial-")}
        elif value is not None and value is not False:
            sent[name] = [getattr(each, "pk", each) for each in value] if isinstance(value, list) else value
    return sent


def save(desk: Client, row: models.Model, **changes: Any) -> None:
    answer = desk.post(door(row, "change/"), form_of(desk, row) | changes)
    assert answer.status_code == 302, answer.context["adminform"].form.errors


def test_every_class_of_the_admin_tells_the_trail() -> None:
    for model, of_model in admin.site._registry.items():
        for hook in ("log_addition", "log_change", "log_deletions"):
            assert getattr(type(of_model), hook) is getattr(CarefulAdmin, hook), model
        may_change = {of_model.has_change_permission.__qualname__, of_model.has_add_permission.__qualname__}
        reads_only = all(name.split(".")[0] != "BaseModelAdmin" for name in may_change)
        assert reads_only or model in EDITED, f"{model} is edited in the admin; EDITED does not try it"
    assert AuditEntry not in admin.site._registry


@pytest.mark.parametrize("model", EDITED, ids=lambda model: model._meta.model_name)
def test_a_change_is_told_with_the_names_of_its_fields_alone(desk: Client, model: type[models.Model]) -> None:
    row = model._default_manager.latest("pk")
    field, label = {
        AssistantTemplate: ("prompt", "instructions"),
        Tool: ("description", "what it does, in words for the model"),
        User: ("last_name", "Last name"),
        Group: ("name", "Name"),
    }.get(model, ("name", "Name"))
    save(desk, row, **{field: SECRET})
    [entry] = told("changed")
    assert [each.lower() for each in entry.detail["fields"]] == [label.lower()]
    assert SECRET not in str(entry.detail)
    assert entry.subject.startswith(f"{model._meta.verbose_name} ")


@pytest.mark.parametrize("model", EDITED, ids=lambda model: model._meta.model_name)
def test_saving_without_a_change_is_told_to_nobody(desk: Client, model: type[models.Model]) -> None:
    save(desk, model._default_manager.all()[0])
    told()


def test_what_is_added_is_told(desk: Client) -> None:
    desk.post(door(Team, "add/"), {"name": "Night", "slug": "night"})
    desk.post(door(Group, "add/"), {"name": "readers"})
    desk.post(door(User, "add/"), {"username": "eve", "password1": SECRET, "password2": SECRET, "usable_password": "true"})
    assert [entry.subject for entry in told("added", "added", "added")] == ["team night", "group readers", "user eve"]
    assert SECRET not in str(list(AuditEntry.objects.values()))


@pytest.mark.parametrize("model", [HandoffTarget, Team, Tool, Group, PhoneLine], ids=lambda model: model._meta.model_name)
@pytest.mark.parametrize("way", ["page", "list"])
def test_what_is_deleted_is_told_by_both_ways(desk: Client, model: type[models.Model], way: str) -> None:
    row = model._default_manager.latest("pk")
    if way == "page":
        desk.post(door(row, "delete/"), {"post": "yes"})
    else:
        desk.post(door(model, ""), {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})
    assert not model._default_manager.filter(pk=row.pk).exists()
    [entry] = told("deleted")
    assert entry.subject.startswith(f"{model._meta.verbose_name} ")


def test_what_is_changed_in_the_list_itself_is_told(desk: Client) -> None:
    target = HandoffTarget.objects.get()
    form = {"form-TOTAL_FORMS": 1, "form-INITIAL_FORMS": 1, "form-0-id": target.pk, "form-0-order": 7, "_save": "Save"}
    desk.post(door(HandoffTarget, ""), form | {"form-0-as_read": target.changed_at.isoformat()})
    [entry] = told("changed")
    assert (entry.subject, [each.lower() for each in entry.detail["fields"]]) == ("colleague tier2", ["tried in this order"])


def test_whoever_gets_rights_is_told_with_all_they_have_from_then_on(desk: Client) -> None:
    eve, night = User.objects.create_user("eve", password="x"), Group.objects.get(name="night shift")
    save(desk, eve, groups=[night.pk], is_superuser="on", is_staff="on")
    [entry] = told("changed")
    assert entry.subject == "user eve"
    assert {each.lower() for each in entry.detail["fields"]} == {"groups", "staff status", "superuser status"}
    assert {name: entry.detail[name] for name in ("roles", "superuser", "staff", "active")} == {
        "roles": ["night shift"],
        "superuser": True,
        "staff": True,
        "active": True,
    }
    permission = Permission.objects.get(codename="view_auditentry")
    save(desk, night, permissions=[permission.pk])
    *_, of_group = told("changed", "changed")
    assert (of_group.subject, of_group.detail["rights"]) == ("group night shift", ["view_auditentry"])


def test_a_changed_team_is_told_with_its_members(desk: Client) -> None:
    team = Team.objects.get()
    team.members.add(User.objects.get())
    save(desk, team, name="Support, days")
    assert told("changed")[0].detail["members"] == ["ann"]


def test_a_new_password_is_told_and_stays_unknown(desk: Client) -> None:
    eve = User.objects.create_user("eve", password="x")
    desk.post(door(eve, "password/"), {"password1": SECRET, "password2": SECRET, "usable_password": "true"})
    own = {"old_password": "long-enough-1", "new_password1": SECRET, "new_password2": SECRET}
    assert desk.post("/admin/password_change/", own).status_code == 302
    of_eve, of_ann = told("changed", "changed")
    assert (of_eve.subject, of_ann.subject) == ("user eve", "user ann")
    assert of_ann.detail == {"fields": ["password"]}
    assert SECRET not in str(list(AuditEntry.objects.values()))


def test_publishing_is_told_once_by_the_button_and_by_the_list(desk: Client) -> None:
    template = AssistantTemplate.objects.get()
    desk.post(door(template, "change/"), form_of(desk, template) | {"_publish": "1", "note": SECRET})
    desk.post(door(AssistantTemplate, ""), {"action": "publish", "_selected_action": [template.pk], "note": SECRET})
    first, second = told("published", "published")
    assert (first.subject, second.subject) == (f"agent {template.slug} v2", f"agent {template.slug} v3")
    assert SECRET not in str(list(AuditEntry.objects.values()))


@pytest.mark.parametrize("page", ["change/", "delete/", "password/"])
def test_what_the_trail_does_not_take_does_not_happen(desk: Client, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    eve = User.objects.create_user("eve", password="x")
    form = {"change/": form_of(desk, eve) | {"last_name": "Changed"}, "delete/": {"post": "yes"}}.get(
        page, {"password1": SECRET, "password2": SECRET, "usable_password": "true"}
    )
    before = User.objects.values().get(pk=eve.pk)

    def full(*_: Any, **__: Any) -> None:
        raise DatabaseError("full")

    monkeypatch.setattr(trail, "_append", full)
    with pytest.raises(DatabaseError):
        desk.post(door(eve, page), form)
    assert User.objects.values().get(pk=eve.pk) == before
    assert not LogEntry.objects.exists()
