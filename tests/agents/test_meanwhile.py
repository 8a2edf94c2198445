"""Two managers at one row of the desk, each with a browser: the second is told, and neither loses what they wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agents import as_code_export, as_code_import, services
from agents.meanwhile import changed_meanwhile, unknown_meanwhile
from agents.models import AssistantTemplate, Edited, HandoffTarget, PhoneLine, Team, Tool
from calls import people
from tests.agents.test_admin import text_of
from tests.agents.words import EMAIL_TOOL
from tests.browser import fields_of
from tests.builders import LINE, a_line, a_person, a_target, a_team

pytestmark = pytest.mark.django_db(transaction=True)

DESK = "/admin/agents"
COLLEAGUES = f"{DESK}/handofftarget/"
WRITTEN: Mapping[type[Edited], str] = {  # something people write freely, of each
    AssistantTemplate: "prompt",
    PhoneLine: "disclosure",
    HandoffTarget: "name",
    Tool: "description",
    Team: "name",
}
OF_EACH = pytest.mark.parametrize("model", WRITTEN, ids=lambda model: model._meta.model_name)


@dataclass(frozen=True, slots=True)
class Browser:
    """A manager's, with one page open: they type into what the page holds, and save."""

    client: Client
    address: str
    sent: Mapping[str, Any]

    def saves(self, **typed: Any) -> Any:
        return self.client.post(self.address, {**self.sent, **typed})


def opened(name: str, address: str) -> Browser:
    client = Client()
    client.force_login(User.objects.filter(username=name).first() or a_person("", name, is_superuser=True, is_staff=True))
    return Browser(client, address, fields_of(client.get(address)))


def both_open(address: str) -> tuple[Browser, Browser]:
    return opened("ann", address), opened("bob", address)


def page_of(row: Edited) -> str:
    return f"{DESK}/{row._meta.model_name}/{row.pk}/change/"


def is_told(row: Edited | type[Edited], page: Any) -> bool:
    return page.status_code == 200 and changed_meanwhile(row) in text_of(page)


def one(model: type[Edited]) -> Edited:
    line = a_line(team=a_team(), targets=("tier2",))
    rows: tuple[Edited, ...] = (line.template, line, a_target(), Tool.objects.create(**EMAIL_TOOL), a_team())
    return next(row for row in rows if isinstance(row, model))


@OF_EACH
def test_the_second_of_two_managers_is_told_keeps_what_they_wrote_and_may_save_again(model: type[Edited]) -> None:
    row, field = one(model), WRITTEN[model]
    ann, bob = both_open(page_of(row))
    assert ann.saves(**{field: "Ann's words"}).status_code == 302
    page = bob.saves(**{field: "Bob's words"})
    assert is_told(row, page)
    assert page.context["adminform"].form.non_field_errors() == [changed_meanwhile(row)]
    row.refresh_from_db()
    assert getattr(row, field) == "Ann's words"
    shown = fields_of(page)
    assert shown[field] == ["Bob's words"]
    assert Browser(bob.client, bob.address, shown).saves().status_code == 302
    row.refresh_from_db()
    assert getattr(row, field) == "Bob's words"


@OF_EACH
def test_whoever_saves_twice_from_pages_of_their_own_is_told_nothing(model: type[Edited]) -> None:
    row, field = one(model), WRITTEN[model]
    for words in ("First words", "Second words"):
        assert opened("ann", page_of(row)).saves(**{field: words}).status_code == 302
    row.refresh_from_db()
    assert getattr(row, field) == "Second words"


@OF_EACH
@pytest.mark.parametrize("said", [{}, {"as_read": ""}, {"as_read": "long ago"}], ids=["nothing", "nothing in it", "nonsense"])
def test_a_page_that_does_not_say_when_it_was_read_is_kept_and_saved_when_sent_again(model: type[Edited], said: Mapping[str, str]) -> None:
    row, field = one(model), WRITTEN[model]
    before = getattr(row, field)
    bob = opened("bob", page_of(row))
    older = Browser(bob.client, bob.address, {**{name: value for name, value in bob.sent.items() if name != "as_read"}, **said})
    page = older.saves(**{field: "Bob's words"})
    told = changed_meanwhile(row) if said.get("as_read") else unknown_meanwhile(row)
    assert page.context["adminform"].form.non_field_errors() == [told]
    assert "in another window" in text_of(page)
    row.refresh_from_db()
    assert getattr(row, field) == before
    shown = fields_of(page)
    assert shown[field] == ["Bob's words"]
    assert Browser(bob.client, bob.address, shown).saves().status_code == 302
    row.refresh_from_db()
    assert getattr(row, field) == "Bob's words"


def test_a_list_that_does_not_say_when_it_was_read_places_nobody() -> None:
    a_target("first", order=1)
    a_target("second", order=2)
    bob = opened("bob", COLLEAGUES)
    older = Browser(bob.client, bob.address, {name: value for name, value in bob.sent.items() if not name.endswith("as_read")})
    page = older.saves(**{"form-0-order": "3", "_save": "1"})
    assert unknown_meanwhile(HandoffTarget) in text_of(page)
    assert orders() == {"first": 1, "second": 2}
    assert Browser(bob.client, bob.address, fields_of(page)).saves(_save="1").status_code == 302
    assert orders() == {"first": 3, "second": 2}


def test_the_sentence_names_what_was_saved() -> None:
    said = {changed_meanwhile(model).split(" since ")[0] for model in WRITTEN}
    assert said == {f"Somebody else has saved this {thing}" for thing in ("agent", "phone line", "colleague", "tool", "team")}


def test_told_once_more_when_a_third_has_saved_in_between() -> None:
    row = one(Team)
    ann, bob = both_open(page_of(row))
    ann.saves(name="Ann's")
    told = fields_of(bob.saves(name="Bob's"))
    opened("eve", page_of(row)).saves(name="Eve's")
    assert is_told(row, Browser(bob.client, bob.address, told).saves())


def test_a_change_of_what_a_line_has_to_tick_is_a_change_too() -> None:
    line = one(PhoneLine)
    second = a_target("second", order=2)
    ann, bob = both_open(page_of(line))
    assert ann.saves(handoff=[second.pk]).status_code == 302
    page = bob.saves(handoff=[a_target().pk], hours="Mon-Fri 9:00-17:00")
    assert is_told(line, page)
    assert (fields_of(page)["handoff"], fields_of(page)["hours"]) == ([str(a_target().pk)], ["Mon-Fri 9:00-17:00"])
    assert isinstance(line, PhoneLine)
    assert list(line.handoff.all()) == [second]
    line.refresh_from_db()
    assert line.hours == []


@pytest.mark.parametrize(
    ("model", "listing", "key", "value"),
    [(PhoneLine, "lines", "handoff", []), (AssistantTemplate, "templates", "tools", ["end_call"]), (Tool, "tools", "timeout_s", 2.0)],
)
def test_what_an_import_changed_is_not_written_over_by_a_page_opened_before(
    model: type[Edited], listing: str, key: str, value: Any
) -> None:
    """Also where it changed nothing but what is ticked."""
    row = one(model)
    AssistantTemplate.objects.get().tools.add(Tool.objects.get())
    bob, document = opened("bob", page_of(row)), as_code_export.document()
    assert document[listing][0][key] != value
    document[listing][0][key] = value
    as_code_import.bring_in(document, draft=True, dry_run=False, note="", by="ci", at=timezone.now())
    assert is_told(row, bob.saves())
    assert as_code_export.document() == document


def test_an_import_that_changes_nothing_tells_nobody_anything() -> None:
    rows = [one(PhoneLine), *AssistantTemplate.objects.all(), *HandoffTarget.objects.all(), *Tool.objects.all(), *Team.objects.all()]
    browsers = [opened("bob", page_of(row)) for row in rows]
    as_code_import.bring_in(as_code_export.document(), draft=True, dry_run=False, note="", by="ci", at=timezone.now())
    assert [bob.saves().status_code for bob in browsers] == [302] * len(WRITTEN)


def test_who_was_added_to_a_team_at_the_shell_is_not_lost_to_a_page_opened_before() -> None:
    team = a_team()
    bob = opened("bob", page_of(team))
    olga = people.add(name="olga", role="ops", team=team, password="long-enough-1", at=timezone.now())
    assert is_told(team, bob.saves(name="Bob's"))
    assert list(team.members.all()) == [olga]


def test_what_the_household_of_the_demo_brings_is_not_lost_to_pages_opened_before() -> None:
    services.ensure_first_line(number=LINE, at=timezone.now())
    rows: list[Edited] = [AssistantTemplate.objects.get(), PhoneLine.objects.get()]
    opened_before = [opened("bob", page_of(row)) for row in rows]
    household: dict[str, Any] = {"number": LINE, "tool_url": "https://crm.example.com/account", "target_number": "+15550100111"}
    services.seed_demo(**household, at=timezone.now(), allowed_private=[])
    assert all(is_told(row, bob.saves()) for row, bob in zip(rows, opened_before, strict=True))
    opened_between = [opened("bob", page_of(row)) for row in rows]
    services.seed_demo(**household, at=timezone.now(), allowed_private=[])
    assert [bob.saves().status_code for bob in opened_between] == [302, 302]


def test_whoever_may_only_look_is_shown_no_moment() -> None:
    line = one(PhoneLine)
    client = Client()
    client.force_login(a_person("auditor", "ada"))
    page = client.get(page_of(line))
    assert page.status_code == 200
    assert "as_read" not in page.content.decode()
    assert "As read" not in text_of(page)


# -- the list of colleagues --------------------------------------------------------------------------------------------


def orders() -> dict[str, int]:
    return dict(HandoffTarget.objects.values_list("slug", "order"))


def placed(page: Any) -> dict[str, str]:
    """What stands in the field beside each name of the list."""
    return {form.instance.slug: form["order"].value() for form in page.context["cl"].formset.forms}


def test_of_two_managers_who_order_colleagues_the_second_is_told_beside_the_right_name() -> None:
    a_target("first", order=1)
    a_target("second", order=2)
    ann, bob = both_open(COLLEAGUES)
    assert ann.saves(**{"form-0-order": "700", "_save": "1"}).status_code == 302  # the first one is the last from now on
    page = bob.saves(**{"form-0-order": "300", "_save": "1"})
    assert is_told(HandoffTarget, page)
    assert orders() == {"first": 700, "second": 2}
    rows = [row for row in page.content.decode().split("<tr>") if '-order" value=' in row]
    assert [("First" in row, "Second" in row, 'value="300"' in row) for row in rows] == [(True, False, True), (False, True, False)]
    assert Browser(bob.client, bob.address, fields_of(page)).saves(_save="1").status_code == 302
    assert orders() == {"first": 300, "second": 2}


def test_an_order_that_was_seen_and_left_is_not_put_back_unseen() -> None:
    """Bob's list still says what stood there before Ann; he has changed another row."""
    a_target("first", order=1)
    a_target("second", order=2)
    ann, bob = both_open(COLLEAGUES)
    ann.saves(**{"form-0-order": "7", "_save": "1"})
    assert is_told(HandoffTarget, bob.saves(**{"form-1-order": "5", "_save": "1"}))
    assert orders() == {"first": 7, "second": 2}


def test_the_list_does_not_write_over_what_a_page_has_saved_nor_the_other_way_round() -> None:
    target = a_target("first", order=1)
    ann, bob = opened("ann", page_of(target)), opened("bob", COLLEAGUES)
    assert ann.saves(name="Ann's").status_code == 302
    assert is_told(target, bob.saves(**{"form-0-order": "5", "_save": "1"}))
    ann, bob = opened("ann", page_of(target)), opened("bob", COLLEAGUES)
    assert bob.saves(**{"form-0-order": "5", "_save": "1"}).status_code == 302
    assert is_told(target, ann.saves(name="Ann's again"))
    target.refresh_from_db()
    assert (target.name, target.order) == ("Ann's", 5)


def test_two_managers_who_order_different_colleagues_are_told_nothing() -> None:
    a_target("first", order=1)
    second = a_target("second", order=2)
    ann, bob = opened("ann", page_of(second)), opened("bob", COLLEAGUES)
    assert ann.saves(name="Ann's").status_code == 302
    assert bob.saves(**{"form-0-order": "9", "_save": "1"}).status_code == 302
    assert orders() == {"first": 9, "second": 2}


@pytest.mark.parametrize("sorted_by", ["3", "-3"])
def test_colleagues_are_asked_for_in_one_order_however_the_list_is_sorted(sorted_by: str) -> None:
    """Else two managers with lists sorted otherwise could wait for each other, and PostgreSQL would break off one of them."""
    keys = [a_target(slug, order=order).pk for order, slug in enumerate(("first", "second", "third"), start=1)]
    ann = opened("ann", f"{COLLEAGUES}?o={sorted_by}")
    assert [int(ann.sent[f"form-{place}-id"][0]) for place in range(3)] == (keys if sorted_by == "3" else keys[::-1])
    with CaptureQueriesContext(connection) as asked:
        ann.saves(**{f"form-{place}-order": str(7 + place) for place in range(3)}, _save="1")
    updates = [query["sql"] for query in asked if query["sql"].startswith('UPDATE "agents_handofftarget"')]
    assert [int(found[1]) for sql in updates[:3] if (found := re.search(r'"id" = (\d+)', sql))] == keys


def test_a_colleague_who_is_gone_holds_up_no_list_that_was_opened_before() -> None:
    a_target("second", order=2)
    gone = a_target("first", order=1)
    bob = opened("bob", COLLEAGUES)
    gone.delete()
    assert bob.saves(**{"form-0-order": "3", "form-1-order": "5", "_save": "1"}).status_code == 302
    assert orders() == {"second": 5}


def test_a_list_that_lost_a_colleague_and_was_refused_may_be_saved_again() -> None:
    a_target("second", order=2)
    gone = a_target("first", order=1)
    bob = opened("bob", COLLEAGUES)
    gone.delete()
    page = bob.saves(**{"form-1-order": "-5", "_save": "1"})
    assert page.status_code == 200
    assert placed(page) == {"second": "-5"}
    assert Browser(bob.client, bob.address, fields_of(page)).saves(**{"form-1-order": "5", "_save": "1"}).status_code == 302
    assert orders() == {"second": 5}
