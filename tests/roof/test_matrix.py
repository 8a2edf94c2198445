"""Who gets which answer at which door: every address, every action of a list and every socket, for every role, against one table.

A door, an action, a socket or a command that has no entry here fails the test that walks them all. Places are whose a row is:
of `north` (the team of those who are in one), of `south`, or of no team ("").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from channels.sessions import SessionMiddlewareStack
from channels.testing import WebsocketCommunicator
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.core.management import get_commands
from django.db import models, transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from agents.models import AssistantTemplate, Team, TemplateVersion, Tool
from bridge.routing import media_urlpatterns
from calls import roles, second_factor
from calls.console.routing import websocket_urlpatterns
from calls.models import Status
from tests.builders import a_call, a_callback, a_line, a_message, a_person, a_recording, a_report, a_target, a_team

STRANGERS = {"anonymous", "inactive"}
EVERYWHERE = {"auditor", "admin", "superuser"}  # they see every team's
SEE = {"manager", "ops", "supervisor", *EVERYWHERE}
READ = SEE - {"manager"}
ACT = {"ops", "supervisor", "admin", "superuser"}
LISTEN = {"supervisor", *EVERYWHERE}
DESK = {"manager", *EVERYWHERE}
WRITE = {"manager", "admin", "superuser"}
RULE = {"admin", "superuser"}
LOOK = set(EVERYWHERE)
NOBODY: set[str] = set()


@dataclass(frozen=True)
class Door:
    """`who` gets `ok`; with `row`, only for rows they see. `enter` may come as far as the row, where theirs differs from `who`."""

    who: set[str]
    ok: int = 200
    row: str = ""
    post: bool = False
    enter: set[str] = field(default_factory=set)


CONSOLE = {
    "console:live": Door(SEE),
    "console:calls": Door(SEE),
    "console:call": Door(SEE, row="call"),
    "console:call-messages": Door(READ, row="call"),
    "console:recording": Door(READ, 503, row="voicemail"),  # behind the door there is no Twilio
    "console:recording, of a whole call": Door(LISTEN, 503, row="sound", enter=READ),
    "console:callback-done": Door(ACT, 302, row="call", post=True),
    "console:callback-claimed": Door(ACT, 302, row="call", post=True),
    "console:voicemail": Door(READ),
    "console:callbacks": Door(READ),
    "console:messages": Door(READ, row="nobody"),
    "console:message": Door(READ, row="message"),
    "console:message-whole": Door(READ, row="message"),
    "console:message-again": Door(ACT, 302, row="message", post=True),
    "console:trail": Door(LOOK),
    "console:people": Door(RULE),
    "console:person-found": Door(RULE, post=True),
    "console:person-export": Door(RULE, 302, post=True),
    "console:person-erase": Door(RULE, 302, post=True),
}
OF_NO_ROLE = {
    "healthz": ("get", 200, 200, 200),
    "readyz": ("get", 200, 200, 200),
    # (method, the answers to a stranger, to somebody without work in the admin, to somebody with)
    "console:login": ("get", 200, 302, 302),
    "console:log-in-code": ("get", 302, 302, 302),
    "console:second-factor": ("get", 302, 200, 200),
    "console:logout": ("post", 302, 302, 302),
    "admin:index": ("get", 302, 403, 200),
    "admin:login": ("get", 302, 403, 302),
    "admin:logout": ("post", 302, 403, 200),
    "admin:password_change": ("get", 302, 403, 200),
    "admin:password_change_done": ("get", 302, 403, 200),
    "admin:jsi18n": ("get", 302, 403, 200),
    "admin:autocomplete": ("get", 302, 403, 403),  # of nothing; what it finds is in a test of its own
    "admin:view_on_site": ("get", 302, 403, 404),
    "admin:app_list": ("get", 302, 403, 200),
    "/admin/(?P<url>.*)$": ("get", 302, 403, 404),
}
PROVEN = {  # vendors' doors: nobody's log-in opens them
    *(
        "twilio-call",
        "twilio-status",
        "twilio-fallback",
        "twilio-stream-status",
        "twilio-resume",
        "twilio-dial",
        "twilio-leg",
        "twilio-wait",
    ),
    *(
        "twilio-whisper",
        "twilio-voicemail",
        "twilio-callback",
        "twilio-consent",
        "twilio-recording-call",
        "twilio-recording-voicemail",
        "vapi-message",
    ),
}


@dataclass(frozen=True)
class Rows:
    """One model in the admin: who sees it, who changes it, the actions of its list, and whether rows are of teams.

    `delete`: who deletes rows, where that is not who changes them.
    """

    view: set[str]
    edit: set[str]
    actions: dict[str, set[str]] = field(default_factory=dict)
    of_teams: bool = True
    more: dict[str, Door] = field(default_factory=dict)  # pages beside Django's five
    delete: set[str] | None = None


def edited(who: set[str]) -> dict[str, set[str]]:
    return {"delete_selected": who}


MODELS = {
    "agents.assistanttemplate": Rows(DESK, WRITE, {"publish": WRITE, **edited(WRITE)}),
    "agents.templateversion": Rows(
        DESK, NOBODY, {"prepare": WRITE}, more={name: Door(WRITE, 302, post=True) for name in ("prepare", "restore")}
    ),
    "agents.phoneline": Rows(DESK, WRITE, edited(WRITE)),
    "agents.handofftarget": Rows(DESK, WRITE, edited(WRITE)),
    "agents.tool": Rows(DESK, WRITE, edited(WRITE), of_teams=False),
    "agents.team": Rows(LOOK, RULE, edited(RULE)),
    "auth.user": Rows(LOOK, RULE, edited(RULE), of_teams=False, more={"password_change": Door(RULE)}),
    "auth.group": Rows(LOOK, RULE, edited(RULE), of_teams=False),
    "calls.callsession": Rows(DESK, NOBODY),
    "calls.recording": Rows(LOOK, NOBODY),
    "calls.callbackrequest": Rows(LOOK, NOBODY),
    "calls.vapireport": Rows(LOOK, NOBODY),
    "calls.secondfactor": Rows(LOOK, NOBODY, edited(RULE), of_teams=False, delete=RULE),
}
PAGES = ("changelist", "add", "change", "delete", "history", "old address")
SOCKETS = {"ws/console/live/": Door(SEE), "ws/console/calls/<uuid:public_id>/": Door(SEE, row="call")}
PROVEN_SOCKETS = {"webhook/twilio/media", "webhook/twilio/media/"}
SHELL = {  # whoever has a shell on the server
    *(
        "add_user",
        "agents_export",
        "agents_import",
        "audit_verify",
        "bench",
        "demo",
        "erase",
        "export_calls",
        "export_person",
        "fallback_twiml",
        "sandbox",
        "serve",
    ),
}


@dataclass
class Person:
    role: str
    team: str
    client: Client
    user: User | None = None

    def sees(self, place: str) -> bool:
        return self.role in EVERYWHERE or self.team == place

    def __str__(self) -> str:
        return f"{self.role} of {self.team or 'no team'}"


@dataclass
class House:
    people: list[Person]
    rows: dict[str, dict[str, Any]]  # kind or model -> place -> row


def people() -> Iterator[Person]:
    yield Person("anonymous", "", Client())
    north = a_team("north")
    root = User.objects.create_superuser("superuser", password="x")
    kept = {"superuser": root, "nobody": a_person("", "nobody"), "inactive": a_person("admin", "inactive", is_active=False)}
    for role, user in kept.items():
        yield Person(role, "", Client(), user)
    for role in roles.ROLES:
        for team in ("north", "") if role not in EVERYWHERE else ("north",):
            yield Person(role, team, Client(), a_person(role, f"{role}-{team}", teams=(north,) if team else ()))


def rows_of(place: str, number: int) -> Iterator[tuple[str, Any]]:
    """One row of everything that belongs to a team, or that hangs on what does."""
    team = a_team(place) if place else None
    line = a_line(number=f"+1555010030{number}", team=team, name=f"line of {place}")
    AssistantTemplate.objects.filter(pk=line.template.pk).update(team=team)
    target = a_target(f"target-{number}")
    target.team = team
    target.save()
    call = a_call(to=line.number, status=Status.STREAMING)
    assert call.team == team
    yield from {"call": call, "message": a_message(call), "nobody": None, "calls.callsession": call, "agents.phoneline": line}.items()
    yield from {"voicemail": a_recording(call), "sound": a_recording(call, kind="call"), "calls.recording": a_recording(call)}.items()
    yield from {"calls.vapireport": a_report(call), "calls.callbackrequest": a_callback(call)}.items()
    yield from {"agents.assistanttemplate": line.template, "agents.templateversion": line.template.versions.get()}.items()
    yield from {"agents.handofftarget": target, "agents.team": team}.items()


def furnished() -> House:
    house = House(list(people()), {})
    for number, place in enumerate(("north", "south", "")):
        for kind, row in rows_of(place, number):
            house.rows.setdefault(kind, {})[place] = row
    del house.rows["agents.team"][""]  # a team belongs to itself
    shared: dict[str, Any] = {"agents.tool": Tool.objects.create(name="look_up", description="Looks up.", url="https://crm.example/x")}
    shared |= {"auth.user": User.objects.create_user("somebody"), "auth.group": Group.objects.create(name="somebodies")}
    shared["calls.secondfactor"] = second_factor.prepare(user=shared["auth.user"])
    house.rows |= {kind: {"": row} for kind, row in shared.items()}
    for person in house.people:
        if person.user is not None:
            person.client.force_login(person.user)
    return house


@pytest.fixture(scope="module")
def built(django_db_setup: None, django_db_blocker: Any) -> Iterator[House]:
    """One house for all doors; nothing of it is kept."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield furnished()
        transaction.set_rollback(True)


@pytest.fixture
def house(built: House, settings: Any) -> Iterator[House]:
    """The house as it was built, whatever a door changed before."""
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.TWILIO_ACCOUNT_SID = ""
    with transaction.atomic():
        yield built
        transaction.set_rollback(True)


# -- the walk: nothing is left out -------------------------------------------------------------------------------------


def walk(patterns: Any, space: str = "", above: str = "/") -> Iterator[tuple[str, str]]:
    """Every door as (its name, or its route where it has none; its route)."""
    for pattern in patterns:
        route = above + str(pattern.pattern).removeprefix("^")
        if isinstance(pattern, URLResolver):
            yield from walk(pattern.url_patterns, f"{pattern.namespace}:" if pattern.namespace else space, route)
        elif isinstance(pattern, URLPattern):
            yield (f"{space}{pattern.name}" if pattern.name else route), route


def of_models() -> Iterator[str]:
    for label, rows in MODELS.items():
        name = label.replace(".", "_")
        yield from (f"admin:{name}_{page}" for page in (*PAGES[:-1], *rows.more))
        yield f"/admin/{label.replace('.', '/')}/<path:object_id>/"


def test_every_door_is_in_the_table_and_no_other() -> None:
    told = {name for name in CONSOLE if "," not in name} | set(OF_NO_ROLE) | PROVEN | set(of_models())
    doors = {name for name, _ in walk(get_resolver().url_patterns)}
    assert doors - told == set(), "a door without an entry"
    assert told - doors == set(), "an entry without a door"


def test_every_socket_and_every_command_is_in_the_table_and_no_other() -> None:
    assert {str(each.pattern) for each in websocket_urlpatterns} == set(SOCKETS)
    assert {str(each.pattern) for each in media_urlpatterns(lambda: None)} == PROVEN_SOCKETS
    assert {name for name, app in get_commands().items() if app == "supportvoice"} == SHELL


def test_every_model_of_the_admin_and_every_action_is_in_the_table_and_no_other() -> None:
    actions = {
        model._meta.label_lower: {name for _, name, _ in desk._get_base_actions()}  # type: ignore[attr-defined]
        for model, desk in admin.site._registry.items()
    }
    usual = {"delete_selected"}
    told = {label: set(rows.actions) for label, rows in MODELS.items()}
    assert {label: names - usual for label, names in actions.items()} == {label: names - usual for label, names in told.items()}


# -- the console -------------------------------------------------------------------------------------------------------


def answer_to(person: Person, door: Door, place: str | None) -> int:
    if person.role in STRANGERS:
        return 302
    if person.role not in (door.enter or door.who):
        return 403
    if place is not None and not person.sees(place):
        return 404
    return door.ok if person.role in door.who else 403


def address(name: str, kind: str, row: Any) -> str:
    name = name.partition(",")[0]
    match kind:
        case "call":
            return reverse(name, args=[row.public_id])
        case "voicemail" | "sound":
            return reverse(name, args=[row.call.public_id, row.sid])
        case "message":
            return reverse(name, args=[row.pk])
    return reverse(name)


def status(client: Client, url: str, *, post: bool = False) -> int:
    with transaction.atomic():
        return (client.post(url, "CallSid=CA1", "application/x-www-form-urlencoded") if post else client.get(url)).status_code


@pytest.mark.parametrize("name", CONSOLE)
def test_a_console_door_answers_each_role_as_the_table_says(house: House, name: str) -> None:
    door = CONSOLE[name]
    places: dict[Any, Any] = {"": None} if door.row == "nobody" else dict(house.rows[door.row]) if door.row else {None: None}
    wrong = {}
    for person in house.people:
        for place, row in places.items():
            url, expected = address(name, door.row, row), answer_to(person, door, place)
            if (found := status(person.client, url, post=door.post)) != expected:
                wrong[f"{person}, row of {place}"] = (found, expected)
            assert status(person.client, url, post=not door.post) == 405
    assert wrong == {}


@pytest.mark.parametrize("name", OF_NO_ROLE)
def test_a_door_of_no_role_answers_by_log_in_alone(house: House, name: str) -> None:
    method, stranger, idle, working = OF_NO_ROLE[name]
    args = {"admin:view_on_site": ["1", "1"], "admin:app_list": ["agents"]}.get(name, [])
    url = "/admin/nothing/" if name.startswith("/") else reverse(name, args=args)
    for person in house.people:
        expected = stranger if person.role in STRANGERS else working if person.role in DESK else idle
        kept = SimpleCookie(person.client.cookies)  # logging out takes away what the other doors need
        with transaction.atomic():
            assert status(person.client, url, post=method == "post") == expected, str(person)
            transaction.set_rollback(True)
        person.client.cookies = kept


@pytest.mark.parametrize("route", sorted(route for name, route in walk(get_resolver().url_patterns) if name in PROVEN))
def test_a_vendors_door_opens_for_no_log_in(house: House, route: str) -> None:
    url = route.replace("<int:epoch>", "0").replace("<int:turn>", "1").replace("<slug:target>", "tier2")
    for person in house.people:
        assert status(person.client, url, post=True) == 403, str(person)
        assert status(person.client, url) == 405, str(person)


# -- the admin ---------------------------------------------------------------------------------------------------------


def desk_answer(person: Person, rows: Rows, page: str, place: str) -> int:
    if person.role in STRANGERS:
        return 302
    if person.role not in DESK:
        return 403
    seen = person.sees(place) or not rows.of_teams
    if page == "history" and not seen:  # looked for before anything else
        return 404
    if page in rows.more:
        return answer_to(person, rows.more[page], place if rows.of_teams else None)
    if page == "old address":
        return 302
    may = rows.edit if page in ("add", "delete", "posted change") else rows.view
    if page == "delete" and rows.delete is not None:
        may = rows.delete
    if person.role not in may:
        return 403
    return 200 if seen or page in ("changelist", "add") else 404


def desk_address(label: str, page: str, row: models.Model) -> str:
    name = f"admin:{label.replace('.', '_')}_{page}"
    match page:
        case "changelist" | "add":
            return reverse(name)
        case "old address":
            return reverse(f"admin:{label.replace('.', '_')}_changelist") + f"{row.pk}/"
        case "posted change":
            return reverse(f"admin:{label.replace('.', '_')}_change", args=[row.pk])
    return reverse(name, args=[row.pk])


@pytest.mark.parametrize("label", MODELS)
def test_the_pages_of_a_model_answer_each_role_as_the_table_says(house: House, label: str) -> None:
    rows, wrong = MODELS[label], {}
    for person in house.people:
        places = house.rows[label].items() if person.role in DESK else [*house.rows[label].items()][:1]
        for page in (*PAGES, "posted change", *rows.more):
            for place, row in [*places][: 1 if page in ("changelist", "add") else None]:
                expected = desk_answer(person, rows, page, place)
                post = page == "posted change" or (page in rows.more and rows.more[page].post)
                if (found := status(person.client, desk_address(label, page, row), post=post)) != expected:
                    wrong[f"{person}, {page}, row of {place}"] = (found, expected)
    assert wrong == {}


def offered(person: Person, label: str) -> set[str]:
    page = person.client.get(desk_address(label, "changelist", Team())).content.decode()
    select = re.search(r'<select name="action".*?</select>', page, re.DOTALL)
    return set(re.findall(r'<option value="(\w+)"', select[0])) if select else set()


@pytest.mark.parametrize("label", MODELS)
def test_a_list_offers_each_role_the_actions_of_the_table(house: House, label: str) -> None:
    rows = MODELS[label]
    for person in house.people:
        expected = {name for name, who in rows.actions.items() if person.role in who} if person.role in rows.view else set()
        assert offered(person, label) == expected, str(person)


@pytest.mark.parametrize(("label", "action"), [(label, action) for label, rows in MODELS.items() for action in rows.actions])
def test_an_action_reaches_only_rows_its_user_sees(house: House, label: str, action: str) -> None:
    rows, model = MODELS[label], next(model for model in admin.site._registry if model._meta.label_lower == label)
    for person in house.people:
        with transaction.atomic():
            TemplateVersion.objects.update(premade="failed")
            before = state(model)
            keys = [row.pk for row in house.rows[label].values()]
            sent = {"action": action, "_selected_action": keys, "post": "yes"}
            found = person.client.post(desk_address(label, "changelist", Team()), sent).status_code
            may = person.role in rows.actions[action]
            touched = {key for key, was in before.items() if state(model).get(key) != was}
            mine = {row.pk for place, row in house.rows[label].items() if person.sees(place) or not rows.of_teams}
            refused = 302 if person.role in STRANGERS else 403
            listed = {302, 200} if action == "delete_selected" else {302 if may else 200}  # a row that is held on to is explained
            assert found in (listed if person.role in rows.view else {refused}), str(person)
            assert touched <= (mine if may else set()), str(person)
            if action != "delete_selected":  # rows that others hold on to are not deleted
                assert touched == (mine if may else set()), str(person)
            transaction.set_rollback(True)


def state(model: type[models.Model]) -> dict[Any, Any]:
    """What an action of ours changes of a row."""
    told = {"assistanttemplate": ("pk", "published"), "templateversion": ("pk", "premade")}.get(str(model._meta.model_name), ("pk", "pk"))
    return dict(model._default_manager.values_list(*told))


def test_what_a_form_finds_while_one_types_is_its_users_own(house: House) -> None:
    asked = {"app_label": "agents", "model_name": "phoneline", "field_name": "template", "term": ""}
    for person in house.people:
        answer = person.client.get("/admin/autocomplete/", asked)
        assert answer.status_code == (302 if person.role in STRANGERS else 200 if person.role in DESK else 403), str(person)
        if person.role in DESK:
            found = {int(each["id"]) for each in answer.json()["results"]}
            assert found == {row.pk for place, row in house.rows["agents.assistanttemplate"].items() if person.sees(place)}, str(person)


# -- the sockets -------------------------------------------------------------------------------------------------------

application = SessionMiddlewareStack(URLRouter(websocket_urlpatterns))


@sync_to_async
def sockets_of(house: House) -> list[tuple[str, str, str, int]]:
    """Each socket for each person and place: (who, address, cookie, the code it is closed with, or 0)."""
    found = []
    for person in house.people:
        cookie = person.client.cookies.get("sessionid")
        for route, door in SOCKETS.items():
            for place, call in house.rows["call"].items() if door.row else [(None, None)]:
                path = "/" + route.replace("<uuid:public_id>", str(call.public_id) if call else "")
                http = answer_to(person, door, place)
                code = {200: 0, 302: 4401, 403: 4405, 404: 4404}[http]
                found.append((f"{person}, {route}, {place}", path, f"sessionid={cookie.value}" if cookie else "", code))
    return found


@pytest.mark.django_db(transaction=True)
async def test_a_socket_opens_for_each_role_as_the_table_says(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.ALLOWED_HOSTS = ["testserver"]
    wrong = {}
    for who, path, cookie, expected in await sockets_of(await sync_to_async(furnished)()):
        headers = [(b"host", b"testserver"), (b"cookie", cookie.encode()), (b"origin", b"http://testserver")]
        socket = WebsocketCommunicator(application, path, headers=headers)
        opened, code = await socket.connect(5)
        if (0 if opened else code) != expected:
            wrong[who] = (opened, code, expected)
        await socket.disconnect(timeout=5)
    assert wrong == {}
