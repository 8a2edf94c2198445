"""The way in, in a real browser: no page breaks the policy, the admin's included, and a page whose log-in ended says so."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.utils import timezone
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from agents.models import Team, Tool
from calls import second_factor
from calls.console.live import PageSocket
from calls.models import SecondFactor, Status
from tests.builders import a_call, a_callback, a_person, a_recording, a_report, a_target
from tests.journeys.test_pages import Shop
from tests.left_out import chromium

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.asyncio(loop_scope="module")]
PICTURES = os.environ.get("PICTURES", "")  # a directory for what the pages look like
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
LOOKS = (("light", 1280), ("dark", 390))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=SWITCHES)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def shop(settings: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    monkeypatch.setattr(PageSocket, "poll_s", 0.1)
    monkeypatch.setattr(PageSocket, "still_there_s", 0.2)
    shop = Shop()
    await shop.open()
    yield shop
    await shop.close()


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser, shop: Shop) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(base_url=shop.url)
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    """Complains of every breach of the policy, and of scripts that fail."""
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if "Content Security Policy" in message.text else None)
    yield page
    assert complaints == []


async def picture(page: Page, name: str) -> None:
    for scheme, width in LOOKS if PICTURES else ():
        await page.emulate_media(color_scheme=scheme)
        await page.set_viewport_size({"width": width, "height": 760})
        await page.screenshot(path=Path(PICTURES) / f"{name}-{scheme}-{width}.png")


async def come(page: Page, name: str, password: str) -> None:
    await page.fill("input[name=username]", name)
    await page.fill("input[name=password]", password)
    await page.press("input[name=password]", "Enter")


async def a_user(name: str, **more: Any) -> User:
    return await sync_to_async(a_person)("ops", name, password="a-password-1", **more)


async def test_somebody_sets_up_an_app_and_logs_in_with_it(page: Page) -> None:
    await a_user("olga")
    await page.goto("/second-factor/")
    await come(page, "olga", "mistyped")
    await expect(page.get_by_role("alert")).to_contain_text("do not fit together")
    await picture(page, "log-in")
    await come(page, "olga", "a-password-1")
    await picture(page, "no-app")
    await page.get_by_role("button", name="Set up an app").click()
    qr = page.get_by_role("img", name="QR code")
    assert await qr.evaluate("image => image.complete && image.naturalWidth > 100")
    app = pyotp.TOTP((await page.locator("code.key").inner_text()).replace(" ", ""))
    await picture(page, "set-up")
    await page.get_by_label("Six digits").fill(app.now())
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status").first).to_contain_text("asks for a code")
    await picture(page, "in-use")
    await page.get_by_role("button", name="Log out").click()
    await come(page, "olga", "a-password-1")
    await page.get_by_label("Six digits").fill("000000")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("not right")
    await picture(page, "code")
    await SecondFactor.objects.aupdate(last_step=0)  # as if half a minute had gone by
    await page.get_by_label("Six digits").fill(app.now())
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Live calls")).to_be_visible()


async def test_a_page_whose_log_in_ends_says_so_and_leads_back(page: Page) -> None:
    olga = await a_user("olga")
    call = await sync_to_async(a_call)(status=Status.STREAMING)
    await page.goto(f"/calls/{call.public_id}/")
    await come(page, "olga", "a-password-1")
    await expect(page.locator("[data-connection][data-state=on]")).to_be_visible()
    await sync_to_async(olga.set_password)("another-password-1")
    await olga.asave()
    notice = page.get_by_role("alert")
    await expect(notice).to_contain_text("Your log-in has ended", timeout=10_000)
    await picture(page, "ended")
    await expect(page.locator("[data-connection]")).to_contain_text("Logged out")
    await page.keyboard.press("Enter")  # the link has the focus
    await come(page, "olga", "another-password-1")
    await expect(page.locator("[data-connection][data-state=on]")).to_be_visible()
    assert page.url.endswith(f"/calls/{call.public_id}/")


def _one_of_everything() -> None:
    call = a_call()
    for made in (a_recording, a_callback, a_report):
        made(call)
    a_target()
    Group.objects.create(name="people")
    Team.objects.create(name="Support", slug="support")
    Tool.objects.create(name="look_up", description="Looks up.", url="https://crm.example/x")
    second_factor.prepare(user=User.objects.get(username="ann"))
    User.objects.update(last_login=timezone.now())


def _desk_pages() -> list[str]:
    """The admin's own pages, and those of every kind of row."""
    found = ["/admin/", "/admin/password_change/", "/admin/agents/"]
    for model in admin.site._registry:
        place = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        found += [place, f"{place}?q=x", f"{place}add/"]
        if (row := model._default_manager.first()) is not None:
            found += [f"{place}{row.pk}/{page}/" for page in ("change", "history", "delete")]
    return found


async def test_no_page_of_the_admin_breaks_the_policy(page: Page) -> None:
    await a_user("ann", is_staff=True, is_superuser=True)
    await sync_to_async(_one_of_everything)()
    await page.goto("/admin/")
    assert "/login/?next=/admin/" in page.url
    await come(page, "ann", "a-password-1")
    pages, opened = await sync_to_async(_desk_pages)(), 0
    for address in pages:
        answer = await page.goto(address)
        assert answer is not None
        assert "Content-Security-Policy".lower() in answer.headers, address
        opened += answer.status == 200
    assert opened > 40
    await page.goto("/admin/calls/secondfactor/")
    await picture(page, "whose-apps")
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_text("Log in again")).to_be_visible()
