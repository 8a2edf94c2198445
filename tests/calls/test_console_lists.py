"""The lists: which calls an address asks for, what callers left, and who is to be called back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.http import QueryDict
from django.test import Client
from django.utils import timezone

from agents.models import PhoneLine
from calls import history
from calls.console import search
from calls.models import CallSession, Role, Status
from tests.builders import a_call, a_callback, a_line, a_person, a_recording, session_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def ops(client: Client) -> Client:
    client.force_login(a_person())
    return client


def over(**fields: Any) -> CallSession:
    started = fields.pop("started", timezone.now() - timedelta(minutes=5))
    call = a_call(at=started)
    ended = {"status": Status.FINALISED, "ended_at": started + timedelta(seconds=60), "end_reason": "agent_ended", "outcome": "resolved"}
    CallSession.objects.filter(pk=call.pk).update(**ended | fields)
    call.refresh_from_db()
    return call


def say(call: CallSession, text: str, *, role: str = Role.USER) -> None:
    at = timezone.now()
    vendor_ms = round(at.timestamp() * 1000)
    history.add_line(call=call, vapi_call_id="v", role=role, text=text, vendor_ms=vendor_ms, at=at, n=0)


def found(ops: Client, query: str) -> set[str]:
    """Which calls are listed, by their public ids."""
    return {item.href.split("/")[2] for item in ops.get(f"/calls/?{query}").context["rows"]}


def ids(*calls: CallSession) -> set[str]:
    return {str(call.public_id) for call in calls}


# -- filters -----------------------------------------------------------------------------------------------------------


def test_every_filter_in_the_address_narrows_the_list(ops: Client) -> None:
    live, done = a_call(status=Status.STREAMING), over()
    failed = over(outcome="failed", end_reason="ttl", rung="R3")
    assert found(ops, "") == ids(live, done, failed)
    assert found(ops, "status=live") == found(ops, "status=streaming") == ids(live)
    assert found(ops, "status=ended") == ids(done, failed)
    assert found(ops, "outcome=failed") == found(ops, "reason=ttl") == found(ops, "rung=R3") == ids(failed)
    assert found(ops, "outcome=failed&reason=agent_ended") == set()


def test_a_live_call_has_no_outcome_to_be_found_by(ops: Client) -> None:
    a_call(status=Status.STREAMING)
    unknown = over(outcome="unknown")
    assert found(ops, "outcome=unknown") == ids(unknown)


def test_calls_are_found_by_line_and_by_agent_and_version(ops: Client) -> None:
    ours = over()
    line = a_line(number="+15550100777")
    theirs = over(line=line, version=line.rollouts.get().version)
    slug = line.template.slug
    assert found(ops, f"line={quote(line.number)}") == found(ops, f"line={line.number}") == ids(theirs)
    assert found(ops, f"agent={slug}") == found(ops, f"agent={slug}.1") == ids(theirs)
    assert found(ops, f"agent={slug}.2") == set()
    assert found(ops, "line=%2B15550100100") == ids(ours)


def test_days_are_days_where_the_viewer_is(ops: Client) -> None:
    late = over(started=datetime(2026, 3, 1, 20, 0, tzinfo=UTC))  # the 2nd in India already
    assert found(ops, "from=2026-03-01&to=2026-03-01") == ids(late)
    assert found(ops, "from=2026-03-02&zone=Asia/Kolkata") == ids(late)
    assert found(ops, "to=2026-03-01&zone=Asia/Kolkata") == set()


@pytest.mark.parametrize(
    "query",
    [
        *("status=gone", "outcome=<b>", "reason=x", "rung=R9", "line=+1x", "line=" + "9" * 40, "agent=a.b.c", "agent=a.99999999999"),
        *("from=yesterday", "from=0001-01-01", "to=9999-12-31", "from=2026-02-30", "to=2026-W01"),
    ],
)
def test_what_is_not_understood_is_left_out_and_named(ops: Client, query: str) -> None:
    call = over(started=datetime(2026, 3, 1, tzinfo=UTC))
    page = ops.get(f"/calls/?{query}")
    assert {item.href.split("/")[2] for item in page.context["rows"]} == ids(call)
    assert "Not understood and left out" in page.content.decode()
    assert "<b>" not in page.content.decode().split("left out", 1)[1].split("</p>")[0]


@pytest.mark.parametrize("zone", ["../../etc/passwd", "Asia", "%00", "x" * 5000, "Mars/Olympus", "/", "."])
def test_a_zone_that_is_none_means_utc(ops: Client, zone: str) -> None:
    call = over(started=datetime(2026, 3, 1, 20, 0, tzinfo=UTC))
    assert found(ops, f"from=2026-03-01&to=2026-03-01&zone={quote(zone)}") == ids(call)


def test_the_form_shows_what_the_address_says_and_one_click_keeps_the_rest(ops: Client) -> None:
    over(outcome="failed", end_reason="failed")
    page = ops.get("/calls/?q=a%26b&outcome=failed&reason=failed&from=2020-01-01&zone=Asia/Kolkata").content.decode()
    assert '<option value="failed" selected>' in page
    assert 'value="a&amp;b"' in page
    assert 'value="2020-01-01"' in page
    assert "?q=a%26b&amp;reason=failed&amp;from=2020-01-01&amp;zone=Asia%2FKolkata&amp;status=live" in page


def test_a_line_and_an_agent_that_are_gone_stay_chosen(ops: Client) -> None:
    page = ops.get("/calls/?line=%2B15550109999&agent=gone.7").content.decode()
    assert '<option value="+15550109999" selected>' in page
    assert '<option value="gone.7" selected>gone v7</option>' in page


# -- search ------------------------------------------------------------------------------------------------------------


def test_a_call_is_found_by_every_name_it_has(ops: Client) -> None:
    call, other = over(from_number="+14155550134"), over(from_number="+447700900123")
    recording, session = a_recording(call), session_of(call)
    session.vapi_call_id = "019a9b1c-7f2e-7c33-9d41-2b6f0c5e8a77"
    session.save()
    names = [call.call_sid, call.call_sid.lower(), recording.sid, str(call.public_id), call.short_id, session.vapi_call_id]
    for name in names:
        assert found(ops, f"q={quote(name)}") == ids(call), name
    for number in ("+14155550134", "+1 (415) 555-0134", "4155550134", "0134"):
        assert found(ops, f"q={quote(number)}") == ids(call), number
    assert found(ops, "q=900123") == ids(other)
    assert found(ops, "q=CA" + "0" * 32) == set()


def test_a_call_is_found_by_what_was_said_and_the_line_is_shown(ops: Client) -> None:
    call, other = over(), over()
    say(call, "I want a Refund for my invoice")
    say(call, "It was charged twice")
    say(other, "I want a receipt for my invoice")
    assert found(ops, "q=refund") == found(ops, "q=REFUND+twice") == found(ops, "q=%22refund+for+my%22") == ids(call)
    assert found(ops, "q=want+invoice") == ids(call, other)
    assert found(ops, "q=%22invoice+want%22") == set()
    assert "I want a <mark>Refund</mark> for my invoice" in ops.get("/calls/?q=refund").content.decode()


def test_letters_beyond_ascii_are_found_in_either_case(ops: Client) -> None:
    call = over()
    say(call, "Übermorgen geht es los")
    assert found(ops, f"q={quote('übermorgen')}") == found(ops, f"q={quote('Übermorgen')}") == ids(call)


@pytest.mark.parametrize(
    "asked", ["100%", "a_c", "\\", "'; DROP TABLE x --", '"', '""', "\x00", "\ud800".encode(errors="surrogatepass"), " "]
)
def test_signs_that_mean_something_elsewhere_are_plain_words_here(ops: Client, asked: Any) -> None:
    call = over()
    say(call, "abc 1000 times")
    assert ops.get("/calls/", {"q": asked}).status_code == 200
    assert found(ops, "q=" + quote(asked)) in (set(), ids(call))
    if asked in ("100%", "a_c"):
        assert found(ops, "q=" + quote(asked)) == set()


def test_a_search_is_cut_to_what_somebody_may_type() -> None:
    asked = search.read(QueryDict("q=" + "+".join(f"word{n}" for n in range(1000))), words=True)
    assert len(asked.given["q"]) <= search.LONGEST


# -- empty results, pages, cost ------------------------------------------------------------------------------------------


def test_an_empty_result_says_why_and_what_would_show_more(ops: Client) -> None:
    over(outcome="resolved")
    page = ops.get("/calls/?q=banana&outcome=resolved").content.decode()
    assert "No call matches search “banana” and outcome Resolved." in page
    assert "Leave out search “banana”</a>: 1 call<" in page
    assert "Leave out outcome Resolved</a>: 0 calls" in page
    assert 'href="?outcome=resolved"' in page


def test_pages_keep_the_search_and_stop_at_the_last(ops: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calls.console.paging.PER_PAGE", 2)
    for _ in range(5):
        over()
    second = ops.get("/calls/?status=ended&page=2")
    assert len(second.context["rows"]) == 2
    assert "?status=ended&amp;page=3" in second.content.decode()
    for asked, number in (("99", 3), ("x", 1), ("0", 1), ("-1", 1), ("9" * 30, 1), ("٣", 1)):
        assert ops.get("/calls/", {"page": asked}).context["page"].number == number, asked


def test_counting_stops_somewhere_and_says_so(ops: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calls.console.paging.PER_PAGE", 2)
    monkeypatch.setattr("calls.console.paging.COUNTED", 4)
    for _ in range(5):
        over()
    page = ops.get("/calls/?page=2").content.decode()
    assert "4 or more calls" in page
    assert "Older ones are found by their date" in page


def test_every_list_costs_the_same_queries_for_one_row_and_for_many(ops: Client, django_assert_num_queries: Any) -> None:
    paths = {"/calls/?q=word&outcome=resolved&from=2020-01-01": 4, "/voicemail/": 2, "/callbacks/": 2}
    log_in_and_way_around = 6
    for rows in (1, 12):
        for _ in range(rows):
            call = over()
            say(call, "a word")
            a_recording(call)
            a_callback(call)
        for path, cost in paths.items():
            with django_assert_num_queries(log_in_and_way_around + cost):
                assert "To do" in ops.get(path).content.decode() or path.startswith("/calls/")


# -- voicemail and call backs --------------------------------------------------------------------------------------------


def test_voicemail_lists_messages_newest_first_with_their_promise(ops: Client) -> None:
    old, new = over(from_number="+14155550001"), over(from_number="+14155550002")
    a_recording(old, seconds=65, at=timezone.now() - timedelta(hours=1))
    waiting = a_recording(new, state="in-progress", seconds=0)
    a_recording(new, kind="call")
    a_callback(old, due_in=-timedelta(minutes=1))
    rows = ops.get("/voicemail/").context["rows"]
    assert [(row.slots["caller"], row.slots["length"], row.slots["callback"]) for row in rows] == [
        ("+14155550002", "–", ""),
        ("+14155550001", "1:05", "Overdue"),
    ]
    assert rows[0].href == ""
    assert waiting.sid not in ops.get("/voicemail/").content.decode()
    assert rows[1].href.startswith(f"/calls/{old.public_id}/recordings/RE")


def test_call_backs_come_by_the_time_they_are_due_and_what_is_done_last(ops: Client) -> None:
    late, soon, done = over(from_number="+1late"), over(from_number="+1soon"), over(from_number="+1done")
    a_callback(soon, due_in=timedelta(hours=1))
    a_callback(done, due_in=-timedelta(hours=9), done_at=timezone.now(), done_by="olga", note="She is happy.")
    a_callback(late, due_in=-timedelta(minutes=1))
    page = ops.get("/callbacks/")
    rows = [(row.slots["caller"], row.data["standing"]) for row in page.context["rows"]]
    assert rows == [("+1late", "overdue"), ("+1soon", "open"), ("+1done", "done")]
    assert "She is happy." in page.content.decode()
    assert '<span class="count">2<span class="hidden"> to do</span></span>' in page.content.decode()


def test_nothing_to_do_is_no_number_and_more_than_people_read_is_cut(ops: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 'class="count"' not in ops.get("/").content.decode()
    monkeypatch.setattr("calls.console.rows.TOLD_AT_MOST", 1)
    monkeypatch.setattr("calls.console.doors.TOLD_AT_MOST", 1)
    for _ in range(3):
        a_callback(over())
    assert '<span class="count">1+<' in ops.get("/").content.decode()


def test_done_is_kept_from_the_first_who_says_so(ops: Client) -> None:
    call = over()
    asked = a_callback(call)
    door = f"/calls/{call.public_id}/called-back/"
    answer = ops.post(door, {"note": "Refunded.\x00\r\n", "back": "list"})
    assert answer.headers["Location"] == "/callbacks/"
    asked.refresh_from_db()
    assert (asked.done_by, asked.note) == ("olga", "Refunded.")
    assert asked.done_at is not None
    again = ops.post(door, {"note": "Me too", "back": "https://evil.example/"}, follow=True)
    assert again.redirect_chain == [(f"/calls/{call.public_id}/", 302)]
    assert "olga was faster" in again.content.decode()
    asked.refresh_from_db()
    assert asked.note == "Refunded."


def test_a_call_back_is_marked_by_people_who_are_logged_in_with_a_form_of_ours(client: Client) -> None:
    call = over()
    asked = a_callback(call)
    door = f"/calls/{call.public_id}/called-back/"
    assert client.post(door).headers["Location"].startswith("/login/")
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(a_person())
    assert careful.get(door).status_code == 405
    assert careful.post(door, {"note": "x"}).status_code == 403
    asked.refresh_from_db()
    assert asked.done_at is None
    client.force_login(User.objects.get())
    assert client.post(f"/calls/{over().public_id}/called-back/").status_code == 404


def test_the_line_of_a_call_may_be_gone(ops: Client) -> None:
    call = over()
    a_recording(call)
    a_callback(call)
    PhoneLine.objects.all().delete()
    for path in ("/voicemail/", "/callbacks/", "/calls/", f"/calls/{call.public_id}/"):
        assert ops.get(path).status_code == 200


def test_a_call_back_is_claimed_by_the_first_who_says_so_and_the_list_says_who_calls(ops: Client) -> None:
    call = over()
    asked = a_callback(call)
    door = f"/calls/{call.public_id}/claimed/"
    assert "I’ll do it" in ops.get("/callbacks/").content.decode()
    assert ops.post(door).headers["Location"] == "/callbacks/"
    shown = ops.post(door, follow=True).content.decode()
    assert "olga was faster" in shown
    assert "olga calls" in shown
    assert "I’ll do it" not in shown
    asked.refresh_from_db()
    assert asked.claimed_by == "olga"
    assert list(call.events.filter(kind="callback-claimed").values_list("detail", flat=True)) == [{"by": "olga"}]
