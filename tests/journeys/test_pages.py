"""The console in a real browser, on the real ASGI server, with a page that must go on when hints and sockets are lost."""

from __future__ import annotations

import asyncio
import io
import re
import socket
import wave
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
import uvicorn
from asgiref.sync import sync_to_async
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.sessions import SessionMiddlewareStack
from django.contrib.auth.models import Group, Permission, User
from django.core.asgi import get_asgi_application
from django.test import Client
from django.utils import timezone
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from agents.models import PhoneLine
from calls import history, person, roles
from calls.console.live import PageSocket
from calls.console.routing import websocket_urlpatterns
from calls.models import CallSession, Role, Status, ToolRun, TranscriptLine, VapiSession
from tests.builders import a_call, a_callback, a_message, a_person, a_recording, a_report
from tests.left_out import chromium

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.asyncio(loop_scope="module")]

VECTORS = (
    "<script>{}</script>",
    "<img src=x onerror={}>",
    "<svg/onload={}>",
    "<svg><script>{}</script></svg>",
    "<iframe srcdoc='<script>parent.{}</script>'>",
    "<a href='javascript:{}'>x</a>",
    "<details open ontoggle={}>",
    "<input autofocus onfocus={}>",
    "<body onload={}>",
    "<style>@import 'x'</style><b onmouseover={}>",
    "<template><img src=x onerror={}></template>",
    "<math><mi xlink:href='javascript:{}'>",
    "<video><source onerror={}></video>",
    "<object data='javascript:{}'>",
    "<form action='javascript:{}'><button autofocus>",
    "<base href='//evil.example/'>{}",
    "<link rel=stylesheet href='data:,*{{}}'>{}",
    "<meta http-equiv=refresh content='0;url=javascript:{}'>",
    "<marquee onstart={}>",
    "${{{}}}",
)
WRAPPERS = ("%s", "'\">%s", "</li></ol>%s", "</template>%s", "</title>%s", "<!--%s-->", "]]>%s", "&lt;%s", "\u2028%s", "\x0b%s\ufeff")
PAYLOADS = [wrapper % vector.format("window.hit=1") for wrapper in WRAPPERS for vector in VECTORS]


class Shop:
    """The console's server on a port of its own, which can go away and come back."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        browser_sockets = AllowedHostsOriginValidator(SessionMiddlewareStack(URLRouter(websocket_urlpatterns)))
        self.application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": browser_sockets})

    async def open(self) -> None:
        config = uvicorn.Config(
            self.application, port=self.port, ws="websockets-sansio", lifespan="off", log_config=None, timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(config)
        self.serving = asyncio.create_task(self.server._serve())
        async with asyncio.timeout(10):
            while not self.server.started:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        self.server.should_exit = True
        await self.serving


@pytest_asyncio.fixture(loop_scope="module")
async def shop(settings: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    monkeypatch.setattr(PageSocket, "poll_s", 0.1)
    shop = Shop()
    await shop.open()
    yield shop
    await shop.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = await playwright.chromium.launch(executable_path=chromium(), args=switches)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser, shop: Shop) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(timezone_id="Asia/Kolkata", locale="en-GB", base_url=shop.url)
    client = Client()
    user = await sync_to_async(a_person)()
    await sync_to_async(client.force_login)(user)
    await context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": shop.url}])
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    page.on("console", lambda message: complaints.append(message.text) if "Content Security Policy" in message.text else None)
    yield page
    assert complaints == []


def _say(call: CallSession, text: str, *, role: str = Role.USER, ms: int = 1000) -> None:
    at = call.started_at + timedelta(milliseconds=ms)
    history.add_line(call=call, vapi_call_id="v", role=role, text=text, vendor_ms=round(at.timestamp() * 1000), at=at, n=0)


def _happen(call: CallSession, kind: str, **detail: Any) -> None:
    history.record_events(call_sid=call.call_sid, events=[history.NewEvent(kind, "vapi", timezone.now(), detail)])


say, happen, new_call = sync_to_async(_say), sync_to_async(_happen), sync_to_async(a_call)


async def live_call(**fields: Any) -> CallSession:
    call: CallSession = await new_call(status=Status.STREAMING, **fields)
    return call


async def elements(page: Page) -> dict[str, int]:
    """How many elements of each name the lists hold, and how many attributes beyond the templates' own."""
    found: dict[str, int] = await page.evaluate(
        """() => { const count = {};
        for (const e of document.querySelectorAll('main *'))
          for (const name of [e.tagName, ...e.getAttributeNames().filter((a) => a.startsWith('on') || a === 'srcdoc')])
            count[name] = (count[name] || 0) + 1;
        return count; }"""
    )
    return found


FORBIDDEN = {*("SCRIPT", "IMG", "IFRAME", "STYLE", "BODY", "VIDEO", "OBJECT", "BASE", "LINK", "META", "MARQUEE", "svg", "math")}


async def expect_no_new_elements(page: Page, *, forms: int = 0, inputs: int = 0) -> None:
    """Nothing that anybody said or sent has become an element, an attribute or a script. A page's own forms are counted."""
    found = await elements(page)
    assert FORBIDDEN & set(found) == set()
    assert not [name for name in found if name.startswith("on") or name == "srcdoc"]
    assert (found.get("FORM", 0), found.get("INPUT", 0)) == (forms, inputs)
    assert await page.evaluate("window.hit") is None


async def test_two_hundred_spoken_payloads_stay_text_in_the_page_and_over_the_socket(page: Page) -> None:
    assert len(PAYLOADS) == 200
    call = await live_call(from_number="<img src=x onerror=window.hit=1>")
    half = len(PAYLOADS) // 2
    for place, payload in enumerate(PAYLOADS[:half]):
        await say(call, payload, ms=1000 * place)
    await page.goto(f"/calls/{call.public_id}/")
    await expect(page.locator("[data-list=lines] > li")).to_have_count(half + 1)
    for place, payload in enumerate(PAYLOADS[half:], start=half):
        await say(call, payload, ms=1000 * place)
    await ToolRun.objects.acreate(
        call=call, tool_call_id="t", name="look_up", arguments={PAYLOADS[0]: PAYLOADS[1]}, result=PAYLOADS[2], started_at=timezone.now()
    )
    await happen(call, "transcript-partial", role="user", text=PAYLOADS[3])
    await expect(page.locator("[data-list=lines] > li")).to_have_count(len(PAYLOADS) + 2, timeout=15000)
    shown = await page.locator("[data-list=lines] [data-slot=heard]").all_text_contents()
    stored = [line.said async for line in TranscriptLine.objects.filter(call=call, role=Role.USER).order_by("vendor_ms")]
    assert shown[-len(PAYLOADS) :] == stored
    await expect_no_new_elements(page, forms=1, inputs=2)  # the call back's, with its token


def _hostile_everywhere(call: CallSession) -> int:
    """All payloads in everything of a call that comes from outside; the key of a message that holds them too."""
    at, everything = call.started_at, {payload: payload for payload in PAYLOADS}
    ToolRun.objects.bulk_create(
        ToolRun(
            call=call,
            tool_call_id=f"t{place}",
            name=payload[:64],
            arguments={payload: [payload]},
            sent={"to": payload, "status": payload},
            result=payload,
            problem=payload[:200],
            started_at=at,
            ended_at=at,
        )
        for place, payload in enumerate(PAYLOADS)
    )
    CallSession.objects.filter(pk=call.pk).update(from_number=PAYLOADS[2][:64], to_number=PAYLOADS[3][:64])
    VapiSession.objects.filter(call=call).update(ended_reason=PAYLOADS[4], failure=PAYLOADS[5], vapi_call_id=PAYLOADS[6][:64])
    a_report(call, summary=" ".join(PAYLOADS), success=PAYLOADS[7], structured=everything, artifacts=everything, costs={PAYLOADS[8]: 1})
    a_recording(call, sid="RE<b onclick=alert(1)>")
    a_callback(call, note=PAYLOADS[9], done_by=PAYLOADS[10])
    message = a_message(call, kind=PAYLOADS[0][:60], body=everything, problem=PAYLOADS[11], vapi_call_id=PAYLOADS[12][:64])
    return message.pk


async def test_two_hundred_payloads_in_everything_else_stay_text_on_every_page(page: Page) -> None:
    call = await live_call()
    await page.goto(f"/calls/{call.public_id}/")
    await expect(page.locator("[data-connection-words]")).to_have_text("Updating live")
    message = await sync_to_async(_hostile_everywhere)(call)  # all of it comes over the socket
    await happen(call, "tool-called", name=PAYLOADS[13])
    await expect(page.locator("[data-list=lines] > [data-role=tool]")).to_have_count(len(PAYLOADS), timeout=15000)
    await expect_no_new_elements(page, forms=1, inputs=2)
    shown = await page.locator("[data-list=lines] [data-slot=result]").all_text_contents()
    assert shown == PAYLOADS
    found = f"/calls/?q={quote(PAYLOADS[0])}&outcome={quote(PAYLOADS[1])}&line={quote(PAYLOADS[2])}&zone={quote(PAYLOADS[3])}"
    await say(call, f"{PAYLOADS[1]} refund {PAYLOADS[2]}")
    lists = (
        ("/calls/", 1, 4),
        ("/calls/?q=refund", 1, 4),
        (found, 1, 4),
        ("/", 0, 0),
        ("/voicemail/", 0, 0),
        ("/callbacks/", 2, 4),
        ("/messages/", 0, 0),
    )
    own = ((f"/calls/{call.public_id}/", 1, 2), (f"/calls/{call.public_id}/messages/", 0, 0), (f"/messages/{message}/", 1, 1))
    for path, forms, inputs in (*lists, *own):
        await page.goto(path)
        await expect_no_new_elements(page, forms=forms, inputs=inputs)


async def test_the_page_of_a_live_call_goes_on_by_itself(page: Page) -> None:
    call = await live_call()
    await page.goto(f"/calls/{call.public_id}/")
    await expect(page.locator("[data-connection-words]")).to_have_text("Updating live")
    await happen(call, "transcript-partial", role="user", text="I already")
    await expect(page.locator("[data-partial]")).to_have_text("I already")
    await say(call, "I already tried that", ms=5000)
    await expect(page.locator("[data-list=lines] > li").last).to_contain_text("I already tried that")
    await expect(page.locator("[data-partial]")).to_be_hidden()
    await expect(page.locator("[data-list=events] > li").last).to_contain_text('transcript-final: "I already tried that"')
    await say(call, "something else", ms=4000)
    await expect(page.locator("[data-list=lines] > li")).to_have_count(3)
    await TranscriptLine.everything.filter(call=call, said="something else").aupdate(retold=True)
    await sync_to_async(a_report)(call)
    await expect(page.locator("[data-list=lines] > li")).to_have_count(2)
    over = {"status": Status.FINALISED, "ended_at": timezone.now(), "end_reason": "agent_ended", "outcome": "resolved"}
    await CallSession.objects.filter(pk=call.pk).aupdate(**over)
    await expect(page.locator("h1 [data-slot=state]")).to_have_text("Resolved")
    await expect(page.locator("[data-connection-words]")).to_have_text("Complete")


async def test_what_was_left_out_is_a_mark_of_its_own_also_when_it_comes_later(page: Page) -> None:
    call = await live_call()
    await say(call, "It is 4539 1488 0343 6467, <b>Olga</b>.")
    await page.goto(f"/calls/{call.public_id}/")
    mark = page.locator("[data-list=lines]").get_by_role("img", name="A card number was said here")
    await expect(mark).to_have_count(1)
    await say(call, "Again: 5555 5555 5555 4444 <i>now</i>", ms=9000)
    await expect(mark).to_have_count(2)
    await expect(page.locator("[data-list=lines] > li").last).to_contain_text("Again: [card] <i>now</i>")
    await happen(call, "transcript-partial", role="user", text="four five three nine one four")
    await expect(page.locator("[data-partial]").get_by_role("img", include_hidden=True)).to_have_text("[left out]")


async def test_a_server_that_was_away_costs_the_page_no_row_and_doubles_none(page: Page, shop: Shop) -> None:
    call = await live_call()
    await say(call, "before", ms=1000)
    await page.goto(f"/calls/{call.public_id}/")
    await expect(page.locator("[data-connection-words]")).to_have_text("Updating live")
    await shop.close()
    await expect(page.locator("[data-connection-words]")).to_have_text("Connection lost, trying again")
    await say(call, "meanwhile", ms=2000)
    await shop.open()
    await expect(page.locator("[data-connection-words]")).to_have_text("Updating live", timeout=15000)
    await say(call, "after", ms=3000)
    await expect(page.locator("[data-list=lines] > li").last).to_contain_text("after")
    assert (await page.locator("[data-list=lines] [data-slot=heard]").all_text_contents())[-3:] == ["before", "meanwhile", "after"]
    numbers = [int(order) for order in await page.locator("[data-list=events] > li").evaluate_all("all => all.map((e) => e.dataset.order)")]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_the_live_list_shows_a_call_come_and_go(page: Page) -> None:
    await page.goto("/")
    await expect(page.get_by_text("Nobody is calling right now.")).to_be_visible()
    call = await live_call()
    await expect(page.locator("[data-list=live] > tr")).to_contain_text("Talking")
    await expect(page.get_by_text("Nobody is calling right now.")).to_be_hidden()
    over = {"status": Status.ENDED, "ended_at": timezone.now(), "end_reason": "caller_hung_up", "outcome": "abandoned"}
    await CallSession.objects.filter(pk=call.pk).aupdate(**over)
    await expect(page.locator("[data-list=recent] > tr")).to_contain_text("Caller gave up")
    await expect(page.locator("[data-list=live] > tr")).to_have_count(0)
    await page.locator("[data-list=recent] a").click()
    await expect(page).to_have_url(f"{page.url.split('/calls')[0]}/calls/{call.public_id}/")


@pytest.mark.parametrize("width", [1280, 390])
async def test_long_names_and_words_push_nothing_off_the_page(page: Page, width: int) -> None:
    call = await live_call(from_number="W" * 64)
    await PhoneLine.objects.aupdate(name="Wolfeschlegelsteinhausenbergerdorff" + "W" * 25)
    await say(call, "w" * 600)
    for made in (a_callback, a_recording, a_report, a_message):
        await sync_to_async(made)(call)
    await VapiSession.objects.filter(call=call).aupdate(ended_reason="e" * 200)
    await page.set_viewport_size({"width": width, "height": 800})
    own = f"/calls/{call.public_id}/"
    for path in ("/", "/calls/", "/calls/?q=www", "/voicemail/", "/callbacks/", "/messages/", own, f"{own}messages/"):
        await page.goto(path)
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path


async def test_times_are_in_the_viewers_zone(page: Page) -> None:
    call = await live_call(at=timezone.now().replace(hour=10, minute=0, second=5, microsecond=120000))
    await happen(call, "greeting-heard")
    await page.goto(f"/calls/{call.public_id}/")
    await expect(page.locator("[data-list=events] time").first).to_have_text("15:30:05.120")
    await expect(page.locator("[data-zone]")).to_have_text(re.compile("Asia/(Calcutta|Kolkata)"))


async def test_who_is_logged_out_elsewhere_is_asked_to_log_in(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PageSocket, "look_again_s", 0.1)
    await page.goto("/")
    await expect(page.locator("[data-connection-words]")).to_have_text("Updating live")
    await User.objects.all().aupdate(is_active=False)
    await expect(page.locator("[data-log-in-ended]")).to_be_visible()


async def test_a_page_is_made_anew_when_its_users_role_changes(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PageSocket, "look_again_s", 0.1)
    call = await live_call()
    await say(call, "hello")
    await page.goto(f"/calls/{call.public_id}/")
    await expect(page.locator("[data-list=lines] li")).to_have_count(2)
    await sync_to_async(given)("manager")
    await expect(page.get_by_text("Your role shows what happened on a call, and not what was said.")).to_be_visible()
    await expect(page.locator("[data-connection-words]")).to_have_text("Updating live")
    await happen(call, "transcript-partial", text="never shown")
    await expect(page.locator("[data-kind=transcript-partial]")).to_have_count(1)
    assert "never shown" not in await page.content()
    assert "hello" not in await page.content()
    await sync_to_async(given)("")
    await expect(page.get_by_role("heading", name="This is not for your role")).to_be_visible()


def given(role: str) -> None:
    """The page's user has this role and no other from now on."""
    groups = [roles.make(role, groups=Group, permissions=Permission)] if role else []
    User.objects.get().groups.set(groups)


async def test_the_keyboard_reaches_everything(page: Page) -> None:
    call = await live_call()
    await say(call, "hello", ms=1500)
    await page.goto("/")
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.locator("#tip-now")).to_be_visible()
    await page.goto(f"/calls/{call.public_id}/")
    await page.locator("[data-list=lines] .seek").last.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("[data-list=events] > li.found")).to_be_focused()


async def test_a_search_is_an_address_somebody_else_can_open(page: Page, context: BrowserContext) -> None:
    call, other = await live_call(), await live_call()
    await say(call, "I want a refund for my invoice")
    await say(other, "I want a receipt")
    await page.goto("/calls/")
    await page.get_by_label("Words that were said").fill("refund")
    await page.keyboard.press("Enter")
    await expect(page.locator("[data-list=list] > tr")).to_have_count(1)
    await expect(page.locator("mark")).to_have_text("refund")
    assert page.url.endswith("/calls/?q=refund")
    await page.get_by_text("More filters").click()
    await page.get_by_label("Carried by").select_option("AI")
    await page.get_by_label("From").fill("2026-01-01")
    await page.get_by_role("button", name="Apply").click()
    await expect(page.locator(".chip")).to_have_count(3)
    address = page.url
    assert re.search(r"\?q=refund&rung=R0&from=2026-01-01&zone=Asia%2FCalcutta$", address)
    colleague = await context.new_page()
    await colleague.goto(address)
    await expect(colleague.locator("[data-list=list] .cover")).to_have_attribute("href", f"/calls/{call.public_id}/")
    await colleague.get_by_role("link", name="Failed").click()
    await expect(colleague.locator(".empty")).to_contain_text("No call matches")
    await colleague.get_by_role("link", name="Leave out outcome Failed").click()
    await expect(colleague.locator("[data-list=list] > tr")).to_have_count(1)


async def test_a_call_back_is_done_from_the_list_and_an_open_page_sees_it(page: Page, context: BrowserContext) -> None:
    call = await live_call()
    await sync_to_async(a_callback)(call, due_in=-timedelta(minutes=1))
    watching = await context.new_page()
    await watching.goto(f"/calls/{call.public_id}/")
    await expect(watching.locator(".promise .pill")).to_have_text("Overdue")
    await page.goto("/callbacks/")
    await expect(page.get_by_role("link", name="Call backs 1 to do")).to_have_attribute("aria-current", "page")
    await page.get_by_label("Note about").fill("She is happy.")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status").filter(has_text="Marked as called back.")).to_be_visible()
    await expect(page.locator("tbody .pill")).to_have_text("Done")
    await expect(page.locator(".count")).to_have_count(0)
    await expect(watching.locator(".promise .pill")).to_have_text("Done")
    await expect(watching.locator(".promise .was-done")).to_contain_text("olga called back")
    await expect(watching.locator(".promise form")).to_be_hidden()


async def test_a_message_is_processed_again_and_its_words_reach_the_open_page(page: Page, context: BrowserContext) -> None:
    call = await live_call()
    await VapiSession.objects.filter(call=call).aupdate(vapi_call_id="v-1", state="live")
    body = {
        "type": "transcript",
        "transcriptType": "final",
        "role": "user",
        "transcript": "I already tried that",
        "timestamp": 1795342808900,
    }
    failed = {"processed_at": timezone.now(), "problem": "It could not be processed (KeyError)."}
    await sync_to_async(a_message)(call, kind="transcript", body={**body, "secret": "s3cret"}, vapi_call_id="v-1", **failed)
    watching = await context.new_page()
    await watching.goto(f"/calls/{call.public_id}/")
    await page.goto(f"/calls/{call.public_id}/")
    await page.get_by_role("link", name="raw messages").click()
    await page.get_by_role("link", name="transcript", exact=True).click()
    await expect(page.locator("pre")).to_contain_text('"transcript": "I already tried that"')
    assert "s3cret" not in await page.content()
    await page.get_by_role("button", name="Process again").click()
    await expect(page.get_by_role("status").filter(has_text="Processed again.")).to_be_visible()
    await expect(page.locator("h1 .pill")).to_have_text("Processed")
    await expect(watching.locator("[data-list=lines] > li").filter(has_text="I already tried that")).to_be_visible()


async def test_a_tool_card_and_a_recording_grow_on_the_open_page(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    call = await live_call()
    await page.goto(f"/calls/{call.public_id}/")
    await expect(page.locator("[data-connection-words]")).to_have_text("Updating live")
    run = await ToolRun.objects.acreate(
        call=call, tool_call_id="t", name="look_up", arguments={"email": "a@example.com"}, started_at=timezone.now()
    )
    await happen(call, "tool-called", name="look_up")
    card = page.locator("[data-list=lines] > [data-role=tool]")
    await expect(card).to_contain_text("email: a@example.com")
    await expect(card).to_contain_text("running …")
    answer = {"problem": "It did not answer in time.", "sent": {"to": "crm.example", "signed": True}, "ended_at": timezone.now()}
    await ToolRun.objects.filter(pk=run.pk).aupdate(**answer)
    await happen(call, "tool-answered", name="look_up", ms=5000)
    await expect(card).to_contain_text("to crm.example, signed")
    await expect(card.locator(".bad dd")).to_have_text("It did not answer in time.")
    await expect(card).not_to_contain_text("running …")
    await sync_to_async(a_recording)(call)
    sound = page.locator("[data-list=recordings] audio")
    await expect(sound).to_be_visible()
    monkeypatch.setattr("calls.twilio_account.client", lambda: None)
    await sound.evaluate("(audio) => audio.play().catch(() => null)")
    await expect(page.locator(".sound-problem")).to_have_text(
        "There is no Twilio account in the settings, so this recording cannot be fetched."
    )


async def test_a_recording_is_played_through_our_door(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    class Account:
        def recording(self, sid: str, max_bytes: int, account_sid: str = "") -> bytes:
            sounds = io.BytesIO()
            with wave.open(sounds, "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(8000)
                file.writeframes(bytes(2 * 8000))
            return sounds.getvalue()

    monkeypatch.setattr("calls.twilio_account.client", Account)
    call = await live_call()
    await sync_to_async(a_recording)(call)
    await page.goto("/voicemail/")
    seconds = await page.locator("audio").evaluate(
        "(audio) => new Promise((done) => { audio.onloadedmetadata = () => done(audio.duration); audio.load(); audio.preload = 'auto'; })"
    )
    assert seconds == 1.0


@pytest.mark.parametrize("width", [390, 1280])
async def test_no_page_is_wider_than_the_screen(page: Page, width: int) -> None:
    call = await live_call()
    await say(call, "Donaudampfschifffahrtsgesellschaft" * 12, ms=1500)
    await page.set_viewport_size({"width": width, "height": 844})
    message = await sync_to_async(_hostile_everywhere)(call)
    lists = ("/", "/calls/", f"/calls/?q={'x' * 90}&outcome=failed", "/voicemail/", "/callbacks/", "/messages/", "/nowhere/")
    for path in (*lists, f"/calls/{call.public_id}/", f"/calls/{call.public_id}/messages/", f"/messages/{message}/"):
        await page.goto(path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, path


def _may_erase() -> None:
    User.objects.update(is_superuser=True, is_staff=True)


async def test_somebody_is_found_and_erased_with_the_keyboard_alone(page: Page) -> None:
    over: dict[str, Any] = {"status": Status.FINALISED, "ended_at": timezone.now(), "end_reason": "agent_ended"}
    call = await sync_to_async(a_call)(from_number="+14155557331", **over)
    await sync_to_async(_say)(call, "my cat swallowed the router")
    await sync_to_async(a_recording)(call)
    await sync_to_async(_may_erase)()
    await page.goto("/")
    await page.get_by_role("link", name="A person's data").press("Enter")
    await page.get_by_label("Phone number").fill("+1 415 555 7331")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="What we hold of +14155557331")).to_be_visible()
    await page.get_by_label("I am sure").press("Space")
    await page.get_by_role("button", name="Erase for good").press("Enter")
    await expect(page.get_by_role("status").first).to_contain_text("Erased: 1 call")
    await expect(page.get_by_role("cell", name="1 still to be deleted")).to_be_visible()


async def test_an_open_page_lets_go_of_the_words_when_its_call_is_erased(page: Page) -> None:
    call = await sync_to_async(a_call)(from_number="+14155557331", status=Status.STREAMING)
    await sync_to_async(_say)(call, "my cat swallowed the router")
    await page.goto(f"/calls/{call.public_id}/")
    await expect(page.locator("[data-connection]")).to_have_attribute("data-state", "on")
    await expect(page.get_by_text("my cat swallowed the router").first).to_be_visible()
    await sync_to_async(person.erase)("+14155557331", by="ada", at=timezone.now())
    await expect(page.get_by_text("What was said here was erased on")).to_be_visible()
    await expect(page.get_by_text("my cat swallowed the router")).to_have_count(0)
    await expect(page.get_by_text("+14155557331")).to_have_count(0)
