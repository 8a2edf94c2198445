"""The console in a real browser, on the real ASGI server, with a page that must go on when hints and sockets are lost."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import uvicorn
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.test import Client
from django.utils import timezone
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from calls import history
from calls.console.live import PageSocket
from calls.console.routing import websocket_urlpatterns
from calls.models import CallSession, Role, Status, ToolRun, TranscriptLine
from tests.builders import a_call
from tests.left_out import chromium

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

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
        browser_sockets = AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))
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


@pytest.fixture
async def shop(settings: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    monkeypatch.setattr(PageSocket, "poll_s", 0.1)
    shop = Shop()
    await shop.open()
    yield shop
    await shop.close()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = await playwright.chromium.launch(executable_path=chromium(), args=switches)
        yield browser
        await browser.close()


@pytest.fixture
async def context(browser: Browser, shop: Shop) -> BrowserContext:
    context = await browser.new_context(timezone_id="Asia/Kolkata", locale="en-GB", base_url=shop.url)
    client = Client()
    user = await sync_to_async(User.objects.create_user)("olga", password="x")
    await sync_to_async(client.force_login)(user)
    await context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": shop.url}])
    return context


@pytest.fixture
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
    found = await elements(page)
    forbidden = {
        "SCRIPT",
        "IMG",
        "SVG",
        "IFRAME",
        "STYLE",
        "BODY",
        "INPUT",
        "VIDEO",
        "OBJECT",
        "FORM",
        "BASE",
        "LINK",
        "META",
        "svg",
        "math",
    }
    assert forbidden & set(found) == set()
    assert not [name for name in found if name.startswith("on") or name == "srcdoc"]
    assert await page.evaluate("window.hit") is None


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
    over = {"status": Status.FINALISED, "ended_at": timezone.now(), "end_reason": "agent_ended", "outcome": "resolved"}
    await CallSession.objects.filter(pk=call.pk).aupdate(**over)
    await expect(page.locator("h1 [data-slot=state]")).to_have_text("Resolved")
    await expect(page.locator("[data-connection-words]")).to_have_text("Complete")


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


async def test_times_are_in_the_viewers_zone(page: Page) -> None:
    call = await live_call(at=timezone.now().replace(hour=10, minute=0, second=5, microsecond=120000))
    await happen(call, "greeting-heard")
    await page.goto(f"/calls/{call.public_id}/")
    await expect(page.locator("[data-list=events] time").first).to_have_text("15:30:05.120")
    await expect(page.locator("[data-zone]")).to_have_text(re.compile("Asia/(Calcutta|Kolkata)"))


async def test_who_is_logged_out_elsewhere_is_asked_to_log_in(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PageSocket, "still_there_s", 0.1)
    await page.goto("/")
    await expect(page.locator("[data-connection-words]")).to_have_text("Updating live")
    await User.objects.all().aupdate(is_active=False)
    await page.wait_for_url("**/login/?next=/")


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


@pytest.mark.parametrize("width", [390, 1280])
async def test_no_page_is_wider_than_the_screen(page: Page, width: int) -> None:
    call = await live_call()
    await say(call, "Donaudampfschifffahrtsgesellschaft" * 12, ms=1500)
    await page.set_viewport_size({"width": width, "height": 844})
    for path in ("/", "/calls/", f"/calls/{call.public_id}/", "/nowhere/"):
        await page.goto(path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
