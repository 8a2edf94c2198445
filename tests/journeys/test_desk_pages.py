"""The editing desk in a real browser: what was not saved is said where one looks, and nothing runs off a telephone's screen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client
from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

from agents.meanwhile import changed_meanwhile
from agents.models import AssistantTemplate, HandoffTarget, PhoneLine, Team, Tool
from tests.agents.words import EMAIL_TOOL
from tests.builders import a_line, a_person, a_target, a_team
from tests.journeys.test_pages import Shop
from tests.journeys.test_pages import browser as browser
from tests.journeys.test_pages import shop as shop

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.asyncio(loop_scope="module")]

DESK = "/admin/agents"
COLLEAGUES = f"{DESK}/handofftarget/"
TELEPHONE = {"width": 390, "height": 760}
WRITTEN = {AssistantTemplate: "prompt", PhoneLine: "disclosure", HandoffTarget: "name", Tool: "description", Team: "name"}


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser, shop: Shop) -> AsyncIterator[BrowserContext]:
    """An admin's telephone, in Calcutta."""
    context = await browser.new_context(base_url=shop.url, timezone_id="Asia/Kolkata", viewport=TELEPHONE)
    client = Client()
    ann = await sync_to_async(a_person)("", "ann", is_staff=True, is_superuser=True)
    await sync_to_async(client.force_login)(ann)
    await context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": shop.url}])
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext) -> Page:
    return await context.new_page()


def _one_of_each() -> dict[Any, str]:
    """The address of each, by its kind."""
    line = a_line(team=a_team(), targets=("tier2",))
    rows = (line.template, line, a_target(), Tool.objects.create(**EMAIL_TOOL), a_team())
    return {type(row): f"{DESK}/{row._meta.model_name}/{row.pk}/change/" for row in rows}


async def save(page: Page, button: str = "_save") -> None:
    async with page.expect_navigation():
        await page.locator(f"[name={button}]").click()


async def told(page: Page) -> Locator:
    """What the page says on top: in view, with the focus, and said once."""
    alert = page.get_by_role("alert")
    await expect(alert).to_be_focused()
    await expect(alert).to_be_in_viewport(ratio=1)
    assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    await expect(page.get_by_text("Please correct the error")).to_be_hidden()
    return alert


@pytest.mark.parametrize("model", WRITTEN, ids=lambda model: model._meta.model_name)
async def test_the_second_of_two_managers_sees_why_nothing_was_saved_and_what_the_other_wrote(
    page: Page, context: BrowserContext, model: Any
) -> None:
    address, field = (await sync_to_async(_one_of_each)())[model], f"[name={WRITTEN[model]}]"
    other = await context.new_page()
    for each, words in ((page, "Ann's words"), (other, "Bob's words")):
        await each.goto(address)
        await each.locator(field).fill(words)
    await save(other)
    await save(page)
    alert = await told(page)
    await expect(alert).to_contain_text(changed_meanwhile(model))
    await expect(page.get_by_text(changed_meanwhile(model)).locator("visible=true")).to_have_count(1)
    await expect(page.locator(field)).to_have_value("Ann's words")
    async with context.expect_page() as opened:
        await alert.get_by_role("link").click()
    await expect((await opened.value).locator(field)).to_have_value("Bob's words")
    await save(page)
    await page.goto(address)
    await expect(page.locator(field)).to_have_value("Ann's words")


async def test_of_a_list_that_was_not_saved_each_row_is_named_and_one_key_away(page: Page) -> None:
    for order, slug in enumerate(("first", "second"), start=1):
        await sync_to_async(a_target)(slug, order=order)
    await page.goto(COLLEAGUES)
    await HandoffTarget.objects.filter(slug="first").aupdate(changed_at=datetime(2026, 3, 1, tzinfo=UTC))  # somebody else has saved it
    await page.locator("[name=form-0-order]").fill("7")
    await page.locator("[name=form-1-order]").fill("-3")
    await save(page)
    alert = await told(page)
    await expect(alert.get_by_role("listitem")).to_have_count(2)
    await expect(alert.get_by_role("listitem").first).to_contain_text(f"First: {changed_meanwhile(HandoffTarget)}")
    await expect(page.get_by_text(changed_meanwhile(HandoffTarget)).locator("visible=true")).to_have_count(1)
    await page.get_by_role("link", name="Second").first.press("Enter")
    await expect(page.locator("[name=form-1-order]")).to_be_focused()
    await page.keyboard.type("5")
    await expect(page.locator("[name=form-0-order]")).to_have_value("7")


async def test_a_mistake_far_down_a_long_page_is_named_on_top_and_the_note_of_the_version_stays(page: Page) -> None:
    address = (await sync_to_async(_one_of_each)())[AssistantTemplate]
    await page.goto(address)
    await page.get_by_text("Model", exact=True).click()
    await page.get_by_label("Temperature").fill("7")
    await page.get_by_label("Why this change").fill("warmer words")
    await save(page, "_publish")
    alert = await told(page)
    await expect(alert).to_contain_text("Temperature: Choose from 0 to 2.")
    await expect(page.get_by_label("Why this change")).to_have_value("warmer words")
    await alert.get_by_role("link", name="Temperature").press("Enter")
    await expect(page.get_by_label("Temperature")).to_be_focused()
    await expect(page.get_by_label("Temperature")).to_be_in_viewport()


async def test_the_desks_times_are_in_the_viewers_zone(page: Page) -> None:
    await sync_to_async(_one_of_each)()
    await AssistantTemplate.objects.aupdate(changed_at=datetime(2026, 3, 1, 14, 47, tzinfo=UTC))
    await page.goto("/")  # everybody comes by the console: the log-in is there
    await page.goto(f"{DESK}/assistanttemplate/")
    await expect(page.get_by_role("cell", name="March 1, 2026, 8:17 p.m.")).to_have_count(1)
    await expect(page.get_by_role("contentinfo")).to_contain_text("Times are in Asia/")


async def test_the_way_around_is_whole_on_a_telephone(page: Page) -> None:
    assert await User.objects.filter(is_superuser=True).acount() == 1  # who sees all of it
    await page.goto("/")
    links = page.get_by_role("navigation", name="Main").get_by_role("link")
    await expect(links).to_have_count(6)
    for place in range(6):
        await expect(links.nth(place)).to_be_in_viewport(ratio=1)
