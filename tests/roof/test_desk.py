"""Every page of the admin, whoever made it, against addresses and forms nobody meant: an answer, never a page that breaks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import models
from django.test import Client, RequestFactory

from agents.models import Team, Tool
from calls import second_factor
from calls.models import CallSession
from tests.builders import a_call, a_callback, a_recording, a_report, a_target

pytestmark = pytest.mark.django_db
NO_KEYS = ("9" * 20, "x", "", "\0", "-1", "(", "9999")
OPENS = {"socket_url", "control_url", "claim", "token", "session_data", "session_key", "secret"}
NO_ACTIONS = ("nonsense", "\0", "")
LOOKUPS = ("", "__in", "__range", "__gte", "__year", "__regex")  # six, so that seven values meet each of them
OF_LISTS = ("q", "p", "o", "e", "all", "_popup", "_to_field", "_facets", "pk", "pk__in", "nothing__nowhere", "__", "\0")
PAGES = ("change", "delete", "history", "password", "prepare", "restore")
FIELD = re.compile(r'<(?:input|textarea|select)[^>]*? name="([^"]+)"')


@pytest.fixture
def desk(client: Client, settings: Any) -> Client:
    """A superuser's browser, and one row of everything."""
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    ann = User.objects.create_superuser("ann", "ann@example.com", "long-enough-1")
    call = a_call()
    for made in (a_recording, a_callback, a_report):
        made(call)
    a_target()
    assert Group.objects.exists()
    Team.objects.create(name="Support", slug="support")
    Tool.objects.create(name="look_up", description="Looks up.", url="https://crm.example/x")
    second_factor.prepare(user=ann)
    client.force_login(ann)
    return client


each_model = pytest.mark.parametrize("model", sorted(admin.site._registry, key=str), ids=lambda model: model._meta.label_lower)


def door(model: type[models.Model]) -> str:
    return f"/admin/{model._meta.app_label}/{model._meta.model_name}/"


def pages_of(model: type[models.Model], keys: Iterable[object], pages: Iterable[str] = PAGES) -> Iterator[str]:
    """The pages of rows by their keys, as an address says it."""
    yield from (door(model) + quote(f"{key}/{page}/") for key in keys for page in pages)


def fields_of(desk: Client, page: str) -> set[str]:
    return set(FIELD.findall(desk.get(page).content.decode())) - {"csrfmiddlewaretoken"}


@each_model
def test_a_list_answers_whatever_its_address_asks_for(desk: Client, model: type[models.Model]) -> None:
    names = [f"{field.name}{lookup}" for field in model._meta.get_fields() for lookup in LOOKUPS]
    for name, value in zip((*names, *OF_LISTS, *OF_LISTS), itertools.cycle(NO_KEYS), strict=False):
        assert desk.get(door(model), {name: value}).status_code in {200, 302, 400}, (name, value)


@each_model
def test_an_action_on_rows_that_cannot_be_is_refused(desk: Client, model: type[models.Model]) -> None:
    offered = re.findall(r'<option value="(\w+)"', desk.get(door(model)).content.decode())  # of the list's select; others do no harm
    actions = {*NO_ACTIONS, "delete_selected", *offered}
    for action, key in itertools.product(actions, NO_KEYS):
        sent = {"action": action, "_selected_action": [key], "index": key, "post": "yes", "form-0-id": key}
        assert desk.post(door(model), sent).status_code in {200, 302, 400, 403}, (action, key)


@each_model
def test_a_row_that_cannot_be_has_no_page(desk: Client, model: type[models.Model]) -> None:
    for page in pages_of(model, NO_KEYS):
        assert desk.get(page).status_code in {302, 400, 403, 404, 405}, page
        assert desk.post(page, {"post": "yes"}).status_code in {302, 400, 403, 404, 405}, page


@each_model
def test_a_rows_own_pages_answer_whatever_their_address_asks_for(desk: Client, model: type[models.Model]) -> None:
    row = model._default_manager.all()[0]
    values = itertools.cycle(NO_KEYS)
    for page in (f"{door(model)}add/", *pages_of(model, [row.pk], ("change", "delete", "history"))):
        for sent in ({name: next(values)} for name in ("_popup", "_to_field", "_changelist_filters", "p")):
            assert desk.get(page, sent).status_code in {200, 302, 400, 403}, (page, sent)
        assert desk.get(page, {"_to_field": ""}).status_code in {200, 302, 403}, page


@pytest.mark.long
@each_model
def test_a_form_with_one_bent_field_is_explained_or_saved(desk: Client, model: type[models.Model]) -> None:
    row = model._default_manager.all()[0]
    values = itertools.cycle(NO_KEYS)
    for page in (f"{door(model)}add/", *pages_of(model, [row.pk], ("change",))):
        names = fields_of(desk, page)
        choices = [(field.name, "9" * 20) for field in model._meta.many_to_many if field.name in names]
        for name, value in (*zip(sorted(names | {"_popup", "_to_field"}), values, strict=False), *choices):
            sent = {**dict.fromkeys(names, "1"), name: value}
            assert desk.post(page, sent).status_code in {200, 302, 400, 403}, (page, name, value)


@each_model
def test_no_page_has_a_field_that_opens_something(desk: Client, rf: RequestFactory, model: type[models.Model]) -> None:
    """Whoever has these has the call, the phone or the proof; what is written there is read by no page."""
    desk_of_it, row = admin.site._registry[model], model._default_manager.all()[0]
    request = rf.get(door(model))
    request.user = User.objects.get()
    shown = [desk_of_it.get_fields(request, row), desk_of_it.get_list_display(request), desk_of_it.get_readonly_fields(request, row)]
    shown += [inline.get_fields(request, row) for inline in desk_of_it.get_inline_instances(request, row)]
    assert OPENS.isdisjoint(str(name) for names in shown for name in names)
    secrets = [name for names in shown for name in names if "secret" in str(name)]
    assert set(secrets) <= {"secret_env"}, "the name of a variable is no secret"


def test_the_doors_beside_the_lists_answer_too(desk: Client) -> None:
    of_lines = {"app_label": "agents", "model_name": "phoneline", "field_name": "template", "term": "x"}
    for value in NO_KEYS:
        odd = quote(value or "x", safe="")
        answers = [desk.get("/admin/autocomplete/", {**of_lines, name: value}) for name in of_lines]
        answers += [desk.get(f"/admin/{place}/") for place in (odd, f"r/{odd}/1", f"r/1/{odd}", f"agents/{odd}")]
        answers += [desk.get("/admin/jsi18n/", {"language": value}), desk.get("/admin/login/", {"next": value})]
        answers.append(desk.post("/admin/password_change/", dict.fromkeys(("old_password", "new_password1", "new_password2"), value)))
        assert {answer.status_code for answer in answers} <= {200, 302, 400, 403, 404}, value


def test_an_address_that_makes_no_sense_shows_the_whole_list(desk: Client) -> None:
    answer = desk.get("/admin/calls/callsession/", {"id__in": "9" * 20}, follow=True)
    assert answer.redirect_chain == [("/admin/calls/callsession/?e=1", 302)]
    assert CallSession.objects.get().from_number in answer.content.decode()


def test_a_fault_of_ours_is_not_blamed_on_the_address(desk: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("ours")

    monkeypatch.setattr("calls.admin.CallSessionAdmin.get_queryset", broken)
    with pytest.raises(ValueError, match="ours"):
        desk.get("/admin/calls/callsession/")


@pytest.mark.parametrize("cookie", ['"\\000aaaaaaaa"', "x" * 5000, "-1", "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"])
def test_a_cookie_no_log_in_has_is_not_looked_for(client: Client, django_assert_num_queries: Any, cookie: str) -> None:
    with django_assert_num_queries(0):
        assert client.get("/", headers={"Cookie": f"sessionid={cookie}"}).status_code == 302
        assert client.get("/admin/", headers={"Cookie": f"sessionid={cookie}"}).status_code == 302
