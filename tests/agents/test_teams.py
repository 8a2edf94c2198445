"""The desk of a manager who is in a team: what it lists, offers and takes."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from agents.models import AssistantTemplate, Edited, HandoffTarget, PhoneLine, Team, Tool
from agents.teams import EVERYTHING, Sight, seen, sight_of
from tests.builders import a_line, a_person, a_target, a_team, a_version

pytestmark = pytest.mark.django_db
DESK = "/admin/agents"


def of(team: Team | None) -> AssistantTemplate:
    template = a_version().template
    template.team = team
    template.save()
    return template


def target_of(team: Team | None, slug: str) -> HandoffTarget:
    target = a_target(slug)
    target.team = team
    target.save()
    return target


def manager(client: Client, *teams: Team) -> Client:
    client.force_login(a_person("manager", "mia", teams=teams))
    return client


def line_form(template: AssistantTemplate, **changes: Any) -> dict[str, Any]:
    sent = {"number": "+15550100400", "name": "New", "template": template.pk, "callback_hours": 4, "disclosure": "Hello."} | changes
    return {name: value for name, value in sent.items() if value is not None}


def as_read(row: Edited) -> dict[str, str]:
    """What a page that was opened just now says of its row."""
    row.refresh_from_db()
    return {"as_read": row.changed_at.isoformat()}


@pytest.mark.parametrize("role", ["auditor", "admin", "superuser"])
def test_every_teams_things_are_seen_by_those_who_keep_the_house(role: str) -> None:
    person = a_person("" if role == "superuser" else role, is_superuser=role == "superuser", teams=(a_team(),))
    assert sight_of(person) == EVERYTHING


def test_who_is_in_teams_sees_theirs_only_and_who_is_in_none_sees_nobodys() -> None:
    north, south = a_team("north"), a_team("south")
    rows = {team: of(team) for team in (north, south, None)}

    def found(*teams: Team) -> set[int]:
        return set(
            seen(AssistantTemplate.objects.all(), sight_of(a_person("ops", f"p{len(teams)}", teams=teams))).values_list("pk", flat=True)
        )

    assert found() == {rows[None].pk}
    assert found(north) == {rows[north].pk}
    assert found(north, south) == {rows[north].pk, rows[south].pk}


def test_tools_are_everybodys() -> None:
    Tool.objects.create(name="look_up", description="Looks up.", url="https://crm.example/x")
    assert seen(Tool.objects.all(), Sight(teams=frozenset({a_team().pk}))).count() == 1


def test_a_new_line_belongs_to_the_managers_only_team_without_being_asked(client: Client) -> None:
    north = a_team("north")
    assert manager(client, north).post(f"{DESK}/phoneline/add/", line_form(of(north))).status_code == 302
    assert PhoneLine.objects.get().team == north


def test_a_manager_of_several_teams_says_which(client: Client) -> None:
    north, south = a_team("north"), a_team("south")
    desk, template = manager(client, north, south), of(north)
    page = desk.post(f"{DESK}/phoneline/add/", line_form(template))
    assert "team" in page.context["adminform"].form.errors
    assert desk.post(f"{DESK}/phoneline/add/", line_form(template, team=south.pk)).status_code == 302
    assert PhoneLine.objects.get().team == south


def test_a_manager_in_no_team_makes_lines_of_no_team(client: Client) -> None:
    desk = manager(client)
    page = desk.post(f"{DESK}/phoneline/add/", line_form(of(None), team=a_team().pk))
    assert "team" in page.context["adminform"].form.errors
    desk.post(f"{DESK}/phoneline/add/", line_form(of(None)))
    assert PhoneLine.objects.get().team is None


@pytest.mark.parametrize("name", ["template", "handoff", "team"])
def test_a_line_is_pointed_at_nothing_of_another_team(client: Client, name: str) -> None:
    north, south = a_team("north"), a_team("south")
    foreign: dict[str, Any] = {"template": of(south).pk, "handoff": [target_of(south, "them").pk], "team": south.pk}
    sent = line_form(of(north)) | {name: foreign[name]}
    page = manager(client, north).post(f"{DESK}/phoneline/add/", sent)
    assert set(page.context["adminform"].form.errors) == {name}
    assert not PhoneLine.objects.exists()


@pytest.mark.parametrize("kind", ["assistanttemplate", "handofftarget", "phoneline"])
@pytest.mark.parametrize("where", ["south", "nobody"])
def test_nothing_is_moved_out_of_ones_teams(client: Client, kind: str, where: str) -> None:
    north, south = a_team("north"), a_team("south")
    rows: dict[str, Any] = {"assistanttemplate": of(north), "handofftarget": target_of(north, "us")}
    rows["phoneline"] = a_line(team=north)
    AssistantTemplate.objects.update(team=north)
    desk = manager(client, north)
    page = desk.get(f"{DESK}/{kind}/{rows[kind].pk}/change/")
    form = page.context["adminform"].form
    sent = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items() if name != "as_read"}
    sent = {name: value for name, value in sent.items() if value not in (None, [], "") and value is not False}
    assert desk.post(f"{DESK}/{kind}/{rows[kind].pk}/change/", sent | as_read(rows[kind])).status_code == 302
    moved = {**sent, **as_read(rows[kind]), "team": south.pk if where == "south" else ""}
    desk.post(f"{DESK}/{kind}/{rows[kind].pk}/change/", moved)
    rows[kind].refresh_from_db()
    assert rows[kind].team == north


def test_saving_a_line_loses_nothing_of_another_teams_that_it_has(client: Client) -> None:
    """Somebody who sees every team gave it these; a manager may keep them, and choose no more of the kind."""
    north = a_team("north")
    line = a_line(number="+15550100400", team=north)
    shared, other = target_of(None, "shared"), target_of(None, "other")
    line.handoff.add(shared)
    desk = manager(client, north)
    page = f"{DESK}/phoneline/{line.pk}/change/"
    assert desk.post(page, line_form(line.template, team=north.pk, name="Renamed", handoff=[shared.pk]) | as_read(line)).status_code == 302
    line.refresh_from_db()
    assert (line.name, list(line.handoff.all())) == ("Renamed", [shared])
    assert "handoff" in desk.post(page, line_form(line.template, team=north.pk, handoff=[other.pk])).context["adminform"].form.errors


@pytest.mark.parametrize("page", ["assistanttemplate", "templateversion", "phoneline", "handofftarget", "tool"])
def test_no_list_of_the_desk_names_what_is_another_teams(client: Client, page: str) -> None:
    north, south = a_team("north"), a_team("south")
    tool = Tool.objects.create(name="look_up", description="Looks up.", url="https://crm.example/x")
    for team, word in ((north, "ours"), (south, "theirs")):
        line = a_line(number=f"+1555010040{team.pk % 10}", team=team, name=f"line-{word}")
        AssistantTemplate.objects.filter(pk=line.template.pk).update(team=team, name=f"agent-{word}")
        line.template.tools.add(tool)
        line.handoff.add(target_of(team, f"person-{word}"))
        line.template.versions.update(note=f"note-{word}")
    shown = manager(client, north).get(f"{DESK}/{page}/").content.decode()
    assert "ours" in shown
    assert "theirs" not in shown


def test_the_calls_of_the_admin_are_filtered_by_ones_own_lines(client: Client) -> None:
    for slug in ("north", "south"):
        a_line(number=f"+155501004{len(slug)}{slug.count('o')}", team=a_team(slug), name=f"line-{slug}")
    shown = manager(client, a_team("north")).get("/admin/calls/callsession/").content.decode()
    assert "line-south" not in shown


def test_admins_choose_who_is_in_a_team(client: Client) -> None:
    north, olga = a_team("north"), a_person("ops")
    client.force_login(a_person("admin", "ada"))
    sent = {"name": "North", "slug": "north", "members": [olga.pk]} | as_read(north)
    assert client.post(f"{DESK}/team/{north.pk}/change/", sent).status_code == 302
    assert list(north.members.all()) == [olga]
