"""The table of roles and the groups that the migration makes of it."""

from __future__ import annotations

import importlib
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from calls import roles
from calls.models import CallSession
from tests.builders import a_call, a_line, a_person, a_team

pytestmark = pytest.mark.django_db
NAME = "0010_roles_and_teams_of_calls"


def known() -> set[str]:
    return {f"{each.content_type.app_label}.{each.codename}" for each in Permission.objects.select_related("content_type")}


def may(role: str) -> set[str]:
    group = Group.objects.get(name=role)
    return {f"{each.content_type.app_label}.{each.codename}" for each in group.permissions.select_related("content_type")}


@pytest.fixture(scope="module")
def then(django_db_setup: None, django_db_blocker: Any) -> Any:
    """The migration, and the models as they were when it runs."""
    with django_db_blocker.unblock():
        state = MigrationExecutor(connection).loader.project_state([("calls", NAME)])
    return SimpleNamespace(
        migration=importlib.import_module(f"calls.migrations.{NAME}"), apps=state.apps, editor=SimpleNamespace(connection=connection)
    )


@pytest.mark.parametrize("role", roles.ROLES)
def test_a_new_installation_has_each_role_as_the_table_says(role: str) -> None:
    assert may(role) == roles.names_of(role, known())


@pytest.mark.parametrize("pattern", sorted({pattern for patterns in roles.ROLES.values() for pattern in patterns}))
def test_every_word_of_the_table_means_a_permission_there_is(pattern: str) -> None:
    role = next(role for role, patterns in roles.ROLES.items() if pattern in patterns)
    before = set(roles.ROLES[role])
    without = {name for name in known() if any(fnmatchcase(name, other) for other in before - {pattern})}
    assert roles.names_of(role, known()) - without, f"{pattern} gives {role} nothing"


def test_an_auditor_reads_everything_and_may_change_nothing() -> None:
    assert not [name for name in may("auditor") if name.partition(".")[2].startswith(("add_", "change_", "delete_"))]
    assert {"agents.view_auditentry", "calls.read_transcript", "calls.listen"} <= may("auditor")
    assert not {"calls.step_in", "calls.erase_person"} & may("auditor")


def test_a_manager_reads_no_word_of_a_caller() -> None:
    spoken = {"calls.read_transcript", "calls.listen", "calls.export_calls"}
    spoken |= {f"calls.view_{model}" for model in ("transcriptline", "callevent", "toolrun", "vapireport", "inboxmessage", "recording")}
    assert not spoken & may("manager")


def test_making_the_roles_again_changes_nothing(then: Any) -> None:
    before = {role: may(role) for role in roles.ROLES}
    then.migration.make_roles(then.apps, then.editor)
    assert {role: may(role) for role in roles.ROLES} == before
    assert Group.objects.count() == len(roles.ROLES)


def test_a_group_that_has_a_roles_name_keeps_what_it_may(then: Any) -> None:
    own = Permission.objects.get(codename="view_session")
    Group.objects.get(name="ops").permissions.set([own])
    then.migration.make_roles(then.apps, then.editor)
    assert may("ops") == {"sessions.view_session", *roles.names_of("ops", known())}


def test_going_back_and_forth_again_leaves_people_in_their_roles(then: Any) -> None:
    olga = a_person("ops")
    then.migration.remove_roles(then.apps, then.editor)
    assert [group.name for group in Group.objects.all()] == ["ops"]
    assert may("ops") == set()
    then.migration.make_roles(then.apps, then.editor)
    assert User.objects.get(pk=olga.pk).has_perm("calls.read_transcript")
    assert may("manager") == roles.names_of("manager", known())


def test_calls_from_before_get_their_lines_team_and_those_that_have_one_keep_it(then: Any) -> None:
    north, south = a_team("north"), a_team("south")
    line = a_line(team=north)
    old, moved, lineless = a_call(), a_call(), a_call()
    CallSession.objects.filter(pk=old.pk).update(team=None)
    CallSession.objects.filter(pk=moved.pk).update(team=south)
    CallSession.objects.filter(pk=lineless.pk).update(team=None, line=None)
    assert old.line == line
    then.migration.stamp_teams(then.apps, then.editor)
    teams = dict(CallSession.objects.values_list("pk", "team"))
    assert teams == {old.pk: north.pk, moved.pk: south.pk, lineless.pk: None}
