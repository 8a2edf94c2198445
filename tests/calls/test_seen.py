"""Whose calls somebody sees, and how much of them: pages, counts and searches of a team, and pages without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from calls import history, services
from calls.models import CallMetrics, CallSession, Role, Status, ToolRun
from tests.builders import CALLER, a_call, a_callback, a_line, a_message, a_person, a_recording, a_report, a_team, call_sid

pytestmark = pytest.mark.django_db
CANARY = "the colour of my canary is yellow"
NORTH, SOUTH, NOBODYS = "+15550100301", "+15550100302", "+15550100303"

Come = Callable[..., Client]


@pytest.fixture
def come(client: Client) -> Come:
    """A browser in which somebody of this role and these teams is logged in."""

    def log_in(role: str, *teams: str) -> Client:
        person = a_person(role, f"{role}-{'-'.join(teams)}", teams=tuple(map(a_team, teams)))
        client.force_login(person)
        return client

    return log_in


@pytest.fixture
def calls() -> dict[str, CallSession]:
    """A live call on a line of each team, and on one of nobody's, each with everything that can hang on a call."""
    made = {}
    for slug, number in (("north", NORTH), ("south", SOUTH), ("", NOBODYS)):
        a_line(number=number, name=f"line {slug or 'nobody'}", team=a_team(slug) if slug else None)
        call = made[slug] = a_call(to=number, status=Status.STREAMING, from_number=f"+1415555{number[-4:]}")
        say(call, f"{slug or 'nobody'} said this")
        a_recording(call)
        a_callback(call)
        a_message(call, kind=f"of-{slug or 'nobody'}")
        CallMetrics.objects.create(call=call, first_audio_ms=100)
    return made


def say(call: CallSession, text: str) -> None:
    now = timezone.now()
    history.add_line(call=call, vapi_call_id="v", role=Role.USER, text=text, vendor_ms=1000, at=now, n=0)


def body(browser: Client, path: str) -> str:
    answer = browser.get(path)
    assert answer.status_code == 200, path
    return answer.content.decode()


WHO = [(("north",), {"north"}), (("north", "south"), {"north", "south"}), ((), {"nobody"})]


@pytest.mark.parametrize(("teams", "seen"), WHO)
@pytest.mark.parametrize("path", ["/", "/calls/", "/calls/?q=said", "/calls/?status=live", "/voicemail/", "/callbacks/"])
def test_a_list_shows_ones_own_teams_and_no_others(
    come: Come, calls: dict[str, CallSession], path: str, teams: Any, seen: set[str]
) -> None:
    page = body(come("supervisor", *teams), path)
    numbers = {slug or "nobody": call.from_number for slug, call in calls.items()}
    assert {slug for slug, number in numbers.items() if number in page} == seen
    assert {slug for slug in numbers if f"line {slug}" in page} == seen


@pytest.mark.parametrize(("teams", "seen"), WHO)
def test_counts_are_of_ones_own_calls(come: Come, calls: dict[str, CallSession], teams: Any, seen: set[str]) -> None:
    browser = come("supervisor", *teams)
    head = browser.get("/").context["news"].head.slots
    assert (head["live"], head["calls"]) == (str(len(seen)), str(len(seen)))
    assert f'<span class="count">{len(seen)}<' in body(browser, "/")
    assert browser.get("/calls/").context["page"].count == len(seen)
    narrowed = browser.get("/calls/?status=live&outcome=failed").context["narrowed"]
    assert max(way["count"] for way in narrowed) == len(seen)


@pytest.mark.parametrize("role", ["auditor", "admin"])
def test_who_sees_every_team_sees_every_call(come: Come, calls: dict[str, CallSession], role: str) -> None:
    assert come(role, "north").get("/calls/").context["page"].count == 3


def test_messages_of_no_call_are_for_who_is_in_no_team(come: Come) -> None:
    loose = a_message(kind="stranger")
    browser = come("supervisor", "north")
    assert [browser.get(path).status_code for path in ("/messages/", f"/messages/{loose.pk}/", f"/messages/{loose.pk}.json")] == [404] * 3
    assert browser.post(f"/messages/{loose.pk}/again/").status_code == 404
    assert "Messages without a call" not in body(browser, "/")
    assert "stranger" in body(come("ops"), "/messages/")


def test_the_team_of_a_call_is_its_lines_when_it_rang(calls: dict[str, CallSession]) -> None:
    line = calls["north"].line
    assert line is not None
    line.team = a_team("south")
    line.save()
    calls["north"].refresh_from_db()
    assert calls["north"].team == a_team("north")
    assert a_call(to=NORTH).team == a_team("south")


def test_a_call_that_was_missed_has_its_lines_team_and_a_refused_one_has_none() -> None:
    a_line(number=NORTH, team=a_team("north"))
    missed, refused = call_sid(), call_sid()
    told: dict[str, Any] = {"account_sid": "AC1", "from_number": CALLER, "at": timezone.now()}
    services.missed_call(sid=missed, to_number=NORTH, **told)
    services.open_call(sid=refused, to_number="+15550100999", **told)
    assert CallSession.objects.get(call_sid=missed).team == a_team("north")
    assert CallSession.objects.get(call_sid=refused).team is None


# -- without a word ----------------------------------------------------------------------------------------------------


@pytest.fixture
def talkative() -> CallSession:
    """A live call that holds the canary wherever words can be."""
    call = a_call(status=Status.STREAMING)
    say(call, CANARY)
    told: dict[str, Any] = {"source": "vapi", "at": timezone.now()}
    kinds = ("transcript-partial", "transcript-final", "tool-called", "rung-changed", "tool-answered", "tts-buffer-flushed")
    detail = dict.fromkeys(("text", "name", "problem", "to", "why"), CANARY) | {"cancelled_ms": 340, "interruption": "0.3"}
    history.record_events(call_sid=call.call_sid, events=[history.NewEvent(kind, detail=detail, **told) for kind in kinds])
    ToolRun.objects.create(call=call, tool_call_id="t", name="look_up", arguments={"q": CANARY}, result=CANARY, started_at=timezone.now())
    a_report(call, summary=CANARY, structured={"issue": CANARY}, latencies={"modelLatencyAverage": 321.0}, costs={"llm": 0.5})
    a_callback(call, note=CANARY)
    a_message(call, body={"type": "transcript", "transcript": CANARY})
    a_recording(call)
    a_recording(call, kind="call")
    return call


def test_a_manager_sees_the_facts_of_a_call_and_none_of_its_words(come: Come, talkative: CallSession) -> None:
    browser = come("manager")
    page = body(browser, f"/calls/{talkative.public_id}/")
    for fact in (
        CALLER,
        "TTS buffer flushed (340ms audio cancelled) · interruption 0.3",
        "transcript-final",
        "321 ms",
        "$0.5000",
        "Talking",
    ):
        assert fact in page, fact
    for path in ("/", "/calls/", f"/calls/{talkative.public_id}/", f"/admin/calls/callsession/{talkative.pk}/change/"):
        shown = body(browser, path)
        assert CANARY not in shown, path
        assert "look_up" not in shown, path
        assert ".wav" not in shown, path
    assert "Your role shows what happened on a call, and not what was said." in page


def test_a_call_is_not_found_by_words_one_may_not_read(come: Come, talkative: CallSession) -> None:
    browser = come("manager")
    assert browser.get("/calls/?q=canary").context["page"].count == 0
    assert browser.get(f"/calls/?q={CALLER[-6:]}").context["page"].count == 1
    assert come("ops").get("/calls/?q=canary").context["page"].count == 1


def test_ops_hear_messages_and_supervisors_recordings_too(come: Come, talkative: CallSession) -> None:
    path = f"/calls/{talkative.public_id}/"
    assert body(come("ops"), path).count(".wav") == 1
    assert body(come("supervisor"), path).count(".wav") == 2


@pytest.mark.parametrize(
    ("role", "links"),
    [
        ("manager", {"/", "/calls/", "/admin/"}),
        ("ops", {"/", "/calls/", "/voicemail/", "/callbacks/", "/messages/"}),
        ("auditor", {"/", "/calls/", "/voicemail/", "/callbacks/", "/messages/", "/admin/"}),
    ],
)
def test_the_menu_offers_what_the_role_opens_and_nothing_else(come: Come, role: str, links: set[str]) -> None:
    browser = come(role)
    page = body(browser, "/")
    offered = {link for link in ("/", "/calls/", "/voicemail/", "/callbacks/", "/messages/", "/admin/") if f'href="{link}"' in page}
    assert offered == links
    assert {browser.get(link).status_code for link in offered} == {200}


def test_an_auditor_finds_no_button_that_changes_anything(come: Come, talkative: CallSession) -> None:
    browser, message = come("auditor"), talkative.inbox.get()
    for path in (f"/calls/{talkative.public_id}/", "/callbacks/", f"/messages/{message.pk}/"):
        assert body(browser, path).count("<form") == 1, path  # to log out


def test_a_page_of_another_role_says_so_in_a_sentence_and_is_kept_by_no_cache(come: Come) -> None:
    answer = come("").get("/calls/")
    assert answer.status_code == 403
    assert "This is not for your role" in answer.content.decode()
    assert "no-store" in answer.headers["Cache-Control"]
    assert "<nav" in answer.content.decode()
    assert "/calls/" not in answer.content.decode()


def test_a_page_of_another_role_leads_back_to_what_its_reader_may_see(come: Come) -> None:
    answer = come("supervisor").get("/trail/")
    assert answer.status_code == 403
    assert '<a href="/">Live calls</a> · <a href="/calls/">All calls</a>' in answer.content.decode()


def test_a_role_can_be_given_more_in_the_admin(come: Come, talkative: CallSession) -> None:
    browser = come("manager")
    person = a_person("manager", "mia")
    person.user_permissions.add(Permission.objects.get(codename="read_transcript"))
    browser.force_login(person)
    assert CANARY in body(browser, f"/calls/{talkative.public_id}/")
