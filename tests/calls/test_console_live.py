from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from typing import Any

import orjson
import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from channels.routing import URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.sessions import SessionMiddlewareStack
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import Group, Permission, User
from django.contrib.sessions.models import Session
from django.db import DatabaseError, InterfaceError
from django.test import Client
from django.utils import timezone

from agents.models import AuditEntry
from agents.teams import Sight
from bridge import live
from calls import history, reports, roles
from calls.console import live as console_live
from calls.console.live import PageSocket
from calls.console.reader import CallReader
from calls.console.routing import websocket_urlpatterns
from calls.console.session import BEGAN
from calls.console.viewer import EVERYTHING, Viewer, viewer_of
from calls.models import CallSession, Role, Status, TranscriptLine, VapiSession
from supportvoice.sessions import SessionStore
from tests.builders import a_call, a_message, a_person, a_report, a_team, session_of
from tests.calls.doors import WIRE

pytestmark = pytest.mark.django_db(transaction=True)
application = AllowedHostsOriginValidator(SessionMiddlewareStack(URLRouter(websocket_urlpatterns)))
ORIGIN = "http://testserver"


@pytest.fixture(autouse=True)
def _layer_in_memory(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.ALLOWED_HOSTS = ["testserver"]


@pytest.fixture
def call() -> CallSession:
    return a_call(status=Status.STREAMING)


@pytest.fixture
def cookie(client: Client) -> str:
    client.force_login(a_person())
    return f"sessionid={client.cookies['sessionid'].value}"


Open = Callable[..., WebsocketCommunicator]


@pytest.fixture
async def page(cookie: str) -> AsyncIterator[Open]:
    opened: list[WebsocketCommunicator] = []

    def socket(path: str, *, cookie: str = cookie, origin: str | None = ORIGIN) -> WebsocketCommunicator:
        headers = [(b"host", b"testserver"), (b"cookie", cookie.encode())]
        headers += [(b"origin", origin.encode())] if origin is not None else []
        opened.append(WebsocketCommunicator(application, path, headers=headers))
        return opened[-1]

    yield socket
    for one in opened:
        await one.disconnect(timeout=5)


def say(call: CallSession, text: str) -> None:
    at = timezone.now()
    history.add_line(call=call, vapi_call_id="v", role=Role.USER, text=text, vendor_ms=round(at.timestamp() * 1000), at=at, n=0)


async def hint(call: CallSession) -> None:
    layer = get_channel_layer()
    assert layer is not None
    await live.tell_rows(layer, {call.public_id: 99})


def path_of(call: CallSession, cursor: str = "") -> str:
    return f"/ws/console/calls/{call.public_id}/{cursor}"


async def next_news(socket: WebsocketCommunicator, timeout: float = 5) -> dict[str, Any]:
    while True:
        news: dict[str, Any] = orjson.loads(await socket.receive_from(timeout))
        if "lists" in news:
            return news


def heard(news: dict[str, Any]) -> list[str]:
    return [item["slots"]["heard"] for item in news["lists"]["lines"]]


@pytest.mark.parametrize("path", ["/ws/console/live/", f"/ws/console/calls/{uuid.UUID(int=7)}/"])
@pytest.mark.parametrize("cookie", ["", "sessionid=forged", "sessionid="])
async def test_a_stranger_is_refused_before_the_socket_is_accepted(page: Open, path: str, cookie: str) -> None:
    assert await page(path, cookie=cookie).connect(5) == (False, 4401)


@pytest.mark.parametrize(
    "origin",
    [
        *(None, "", "null", "testserver", "file://", "file://testserver", "http://evil.example", "http://testserver.evil.example"),
        *("http://sub.testserver", "http://xtestserver", "http://testserver:81", "http://testserver@evil.example", "http://testserver/"),
    ],
)
async def test_a_page_of_another_site_is_refused(page: Open, origin: str | None) -> None:
    accepted, _ = await page("/ws/console/live/", origin=origin).connect(5)
    assert not accepted


async def test_behind_https_a_plain_page_of_the_same_host_is_refused(page: Open, settings: Any) -> None:
    settings.PUBLIC_URL, settings.PUBLIC_HOST = "https://testserver", "testserver"
    assert not (await page("/ws/console/live/", origin="http://testserver").connect(5))[0]
    assert (await page("/ws/console/live/", origin="https://testserver").connect(5))[0]


async def test_a_call_that_never_was_is_refused(page: Open) -> None:
    assert await page(f"/ws/console/calls/{uuid.uuid4()}/").connect(5) == (False, 4404)


async def test_a_socket_is_told_to_the_trail_with_or_without_its_page(page: Open, call: CallSession) -> None:
    for _ in range(2):
        assert (await page(path_of(call)).connect(5))[0]
    told = AuditEntry.objects.filter(action="call-read").values_list("actor", "subject")
    assert [entry async for entry in told] == [("olga", call.short_id)]


async def test_a_socket_that_the_trail_cannot_note_is_refused(page: Open, call: CallSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise DatabaseError("full")

    monkeypatch.setattr("agents.trail._append", full)
    assert await page(path_of(call)).connect(5) == (False, 4503)


async def test_the_page_gets_what_comes_after_its_cursor(page: Open, call: CallSession) -> None:
    await sync_to_async(say)(call, "first")
    before = await sync_to_async(CallReader(call.public_id, EVERYTHING).read)()
    assert before is not None
    await sync_to_async(say)(call, "second")
    socket = page(path_of(call, f"?after={before.after}&line={before.line}"))
    assert (await socket.connect(5))[0]
    news = await next_news(socket)
    assert [item["slots"]["words"] for item in news["lists"]["events"]] == ['transcript-final: "second"']
    assert heard(news)[-1] == "second"
    assert news["after"] == before.after + 1


@pytest.mark.parametrize("cursor", ["", "?after=-1", "?after=x&line=%00", "?after=99999999999999999999", "?after=²"])
async def test_a_cursor_that_is_no_number_reads_from_the_beginning(page: Open, call: CallSession, cursor: str) -> None:
    socket = page(path_of(call, cursor))
    assert (await socket.connect(5))[0]
    assert (await next_news(socket))["lists"]["events"][0]["order"] == [1]


async def test_a_hint_makes_the_page_look_at_once(page: Open, call: CallSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PageSocket, "poll_s", 3600)
    socket = page(path_of(call))
    await socket.connect(5)
    await next_news(socket)
    await sync_to_async(say)(call, "told by a hint")
    await hint(call)
    assert heard(await next_news(socket)) == ["told by a hint"]


async def test_a_lost_hint_costs_one_look_and_no_row(page: Open, call: CallSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PageSocket, "poll_s", 0.05)
    socket = page(path_of(call))
    await socket.connect(5)
    await next_news(socket)
    await sync_to_async(say)(call, "told by nobody")
    assert heard(await next_news(socket)) == ["told by nobody"]


class LayerAway:
    async def new_channel(self) -> str:
        raise ConnectionError("the layer is away")


async def test_without_a_channel_layer_the_page_polls(page: Open, call: CallSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PageSocket, "poll_s", 0.05)
    monkeypatch.setattr(console_live, "get_channel_layer", LayerAway)
    socket = page(path_of(call))
    assert (await socket.connect(5))[0]
    await next_news(socket)
    await sync_to_async(say)(call, "still here")
    assert heard(await next_news(socket)) == ["still here"]


@pytest.mark.parametrize("problem", [DatabaseError("away"), InterfaceError("the cursor is closed")], ids=repr)
async def test_a_database_that_is_away_for_a_moment_closes_no_page(
    page: Open, call: CallSession, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    monkeypatch.setattr(PageSocket, "poll_s", 0.02)
    read, failures = CallReader.read, iter([True, True, True])

    def unlucky(reader: CallReader) -> Any:
        if next(failures, False):
            raise problem
        return read(reader)

    monkeypatch.setattr(CallReader, "read", unlucky)
    socket = page(path_of(call))
    await socket.connect(5)
    assert (await next_news(socket))["lists"]["events"]


def _another_password() -> None:
    olga = User.objects.get()
    olga.set_password("another")
    olga.save()


def _too_long() -> None:
    key = Session.objects.get().session_key
    data = SessionStore().decode(Session.objects.get().session_data) | {BEGAN: 1.0}
    Session.objects.filter(pk=key).update(session_data=SessionStore().encode(data))


ENDS: dict[str, Callable[[Client], object]] = {
    "logged out in another tab": lambda client: client.logout(),
    "idle": lambda _: Session.objects.update(expire_date=timezone.now()),
    "a day long": lambda _: _too_long(),
    "another password": lambda _: _another_password(),
    "deactivated": lambda _: User.objects.update(is_active=False),
    "deleted": lambda _: User.objects.all().delete(),
}


@pytest.mark.parametrize("how", ENDS)
async def test_whose_log_in_ends_loses_the_page(
    page: Open, call: CallSession, client: Client, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(PageSocket, "poll_s", 0.02)
    monkeypatch.setattr(PageSocket, "look_again_s", 0.1)
    socket = page(path_of(call))
    await socket.connect(5)
    await next_news(socket)
    await sync_to_async(ENDS[how])(client)
    async with asyncio.timeout(5):
        while (message := await socket.receive_output(5))["type"] != "websocket.close":
            pass
    assert message["code"] == 4401
    assert await page(path_of(call)).connect(5) == (False, 4401)


def test_a_page_is_lost_within_ten_seconds() -> None:
    assert console_live.LOOK_AGAIN_S + console_live.POLL_S + console_live.GATHER_S < 8, "two are left for the database"


async def test_a_page_stays_when_the_key_that_vouched_for_its_log_in_is_rotated(
    page: Open, call: CallSession, client: Client, settings: Any
) -> None:
    """A server that starts again with a new key is first met by the sockets of open pages."""
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "n" * 50, [settings.SECRET_KEY]
    for _ in range(2):
        assert (await page(path_of(call)).connect(5))[0]
    assert (await sync_to_async(client.get)("/")).status_code == 200
    renewed = f"sessionid={client.cookies['sessionid'].value}"
    settings.SECRET_KEY_FALLBACKS = []
    assert (await page(path_of(call), cookie=renewed).connect(5))[0]


@sync_to_async
def _taken(what: str) -> None:
    olga = User.objects.get()
    match what:
        case "account":
            olga.delete()
        case "activity":
            User.objects.update(is_active=False)
        case "role":
            olga.groups.clear()
        case "words":
            olga.groups.set([roles.make("manager", groups=Group, permissions=Permission)])
        case "team":
            olga.teams.add(a_team())


@pytest.mark.parametrize("path", ["/ws/console/live/", ""])
@pytest.mark.parametrize(("what", "code"), [("account", 4401), ("activity", 4401), ("role", 4405), ("words", 4410), ("team", 4410)])
async def test_what_is_taken_from_somebody_takes_the_open_page_before_another_word(
    page: Open, call: CallSession, path: str, what: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PageSocket, "poll_s", 0.02)
    monkeypatch.setattr(PageSocket, "look_again_s", 0.0)
    socket = page(path or path_of(call))
    await socket.connect(5)
    await next_news(socket)
    await _taken(what)
    await sync_to_async(say)(call, "not for them any more")
    async with asyncio.timeout(5):
        while (message := await socket.receive_output(5))["type"] != "websocket.close":
            assert "not for them" not in message["text"]
    assert message["code"] == code


@pytest.mark.parametrize("path", ["/ws/console/live/", ""])
@pytest.mark.parametrize("what", ["words", "team"])
async def test_a_page_made_just_before_its_users_rights_changed_is_loaded_anew(page: Open, call: CallSession, path: str, what: str) -> None:
    made_for = await sync_to_async(lambda: viewer_of(User.objects.get()).mark)()
    await _taken(what)
    socket = page(f"{path or path_of(call)}?sees={made_for}")
    await socket.connect(5)
    assert await socket.receive_output(5) == {"type": "websocket.close", "code": 4410}


def test_whatever_else_somebody_may_see_is_another_mark() -> None:
    less: dict[str, Any] = {"words": False, "listens": False, "sight": Sight(teams=frozenset({1, 2}))}
    assert set(less) == {field.name for field in fields(Viewer)}
    marks = {EVERYTHING.mark, *(replace(EVERYTHING, **{name: value}).mark for name, value in less.items())}
    marks |= {replace(EVERYTHING, sight=Sight(teams=frozenset(teams))).mark for teams in ((), (12,), (1,), (2,))}
    assert len(marks) == 8
    assert replace(EVERYTHING, sight=Sight(teams=frozenset({2, 1}))).mark in marks


async def test_a_page_whose_user_sees_what_it_was_made_for_is_kept_up_to_date(page: Open, call: CallSession) -> None:
    made_for = await sync_to_async(lambda: viewer_of(User.objects.get()).mark)()
    socket = page(path_of(call, f"?sees={made_for}"))
    await socket.connect(5)
    await next_news(socket)


def test_a_page_asks_every_three_seconds_whether_its_viewer_may_see_it() -> None:
    assert PageSocket.look_again_s <= 3.0


@pytest.mark.parametrize("teams", [("north",), ("north", "south")])
async def test_a_call_of_another_team_has_no_socket(page: Open, call: CallSession, teams: tuple[str, ...]) -> None:
    await sync_to_async(lambda: User.objects.get().teams.set(map(a_team, teams)))()
    assert await page(path_of(call)).connect(5) == (False, 4404)
    socket = page("/ws/console/live/")
    await socket.connect(5)
    assert (await next_news(socket))["lists"]["live"] == []


async def test_a_socket_tells_no_word_to_who_may_not_read(page: Open, call: CallSession) -> None:
    await _taken("words")
    await sync_to_async(say)(call, "my canary is yellow")
    for path in (path_of(call), "/ws/console/live/"):
        socket = page(path)
        await socket.connect(5)
        news = await next_news(socket)
        assert "canary" not in str(news)
    assert news["lists"]["live"]


async def test_a_finished_call_is_sent_once_and_the_socket_ends(page: Open, call: CallSession) -> None:
    over = {"status": Status.FINALISED, "ended_at": timezone.now(), "end_reason": "agent_ended"}
    await CallSession.objects.filter(pk=call.pk).aupdate(**over)
    socket = page(path_of(call))
    await socket.connect(5)
    assert (await next_news(socket))["over"]
    assert await socket.receive_output(5) == {"type": "websocket.close", "code": 1000}


async def test_the_live_list_hears_of_every_call(page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PageSocket, "poll_s", 3600)
    socket = page("/ws/console/live/")
    await socket.connect(5)
    assert (await next_news(socket))["lists"]["live"] == []
    call = await sync_to_async(a_call)(status=Status.STREAMING)
    await hint(call)
    news = await next_news(socket)
    assert [item["href"] for item in news["lists"]["live"]] == [f"/calls/{call.public_id}/"]
    assert news["whole"] == ["live", "recent"]


async def test_what_only_the_report_told_leaves_the_page_when_a_final_tells_it(
    page: Open, call: CallSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the socket looks between the final and what it replaces; and the page that grew is the page opened anew."""
    monkeypatch.setattr(PageSocket, "poll_s", 0.05)
    body = orjson.loads((WIRE / "vapi" / "webhooks" / "end-of-call-report.json").read_bytes())["message"]
    vapi = await sync_to_async(session_of)(call)
    await VapiSession.objects.filter(pk=vapi.pk).aupdate(vapi_call_id="v", state="live")
    await vapi.arefresh_from_db()
    await sync_to_async(a_message)(call, kind="end-of-call-report", body=body, vapi_call_id="v")
    await sync_to_async(reports.merge)(session=vapi, report=body, at=timezone.now())
    socket = page(path_of(call))
    await socket.connect(5)
    shown: dict[str, str] = {}

    async def look() -> None:
        news = await next_news(socket)
        shown.update({item["id"]: item["slots"]["heard"] for item in news["lists"]["lines"]})
        for line in news["gone"]:
            del shown[line]

    await look()
    whole, final = "I cannot log in after turning on single sign on.", "I cannot log in after turning on single sign on"
    assert whole in shown.values()
    said: dict[str, Any] = {"call": call, "vapi_call_id": "v", "role": Role.USER, "text": final, "vendor_ms": 1_795_342_807_400, "n": 0}
    await sync_to_async(history.add_line)(**said, at=timezone.now())
    await look()
    assert {whole, final} <= set(shown.values())
    await sync_to_async(reports.settle_again)(sessions={vapi}, at=timezone.now())
    await look()
    assert final in shown.values()
    assert whole not in shown.values()
    anew = await sync_to_async(CallReader(call.public_id, EVERYTHING).read)()
    assert anew is not None
    assert shown == {item.id: item.slots["heard"] for item in anew.lists["lines"]}


async def test_a_line_that_stands_again_while_the_page_was_away_comes_back(page: Open, call: CallSession) -> None:
    for number in range(30):
        await sync_to_async(say)(call, f"line {number}")
    first = await TranscriptLine.objects.filter(said="line 0").aget()
    await TranscriptLine.everything.filter(pk=first.pk).aupdate(retold=True)
    before = await sync_to_async(CallReader(call.public_id, EVERYTHING).read)()
    assert before is not None
    assert f"line-{first.pk}" in before.gone
    await sync_to_async(a_report)(call)
    await TranscriptLine.everything.filter(pk=first.pk).aupdate(retold=False)
    socket = page(path_of(call, f"?after={before.after}&line={before.line}"))
    await socket.connect(5)
    assert "line 0" in heard(await next_news(socket))


async def test_what_the_browser_sends_changes_nothing(page: Open, call: CallSession) -> None:
    socket = page(path_of(call))
    await socket.connect(5)
    await next_news(socket)
    await socket.send_to(text_data='{"after": 0, "type": "rows.written"}')
    await socket.send_to(bytes_data=b"\x00" * 1000)
    assert await socket.receive_nothing(0.3)


async def test_a_closed_page_leaves_no_task_behind(page: Open, call: CallSession) -> None:
    before = asyncio.all_tasks()
    socket = page(path_of(call))
    await socket.connect(5)
    await next_news(socket)
    await socket.disconnect(5)
    assert asyncio.all_tasks() <= before
