"""Somebody watches a real call in a real browser while it is going on, and the house runs on daphne this time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import cache

import pytest
from playwright.async_api import async_playwright, expect
from pytest_django import DjangoDbBlocker

from bridge.sandbox.script import PLAIN
from bridge.sandbox.twilio import TwilioCall
from tests.journeys.conftest import lived_in
from tests.journeys.house import LONGEST_S, House
from tests.left_out import chromium

pytestmark = pytest.mark.journey
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


@pytest.fixture(scope="module")
def on_daphne(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[House]:
    with lived_in(House(tmp_path_factory.mktemp("daphne"), django_db_blocker, server="daphne")) as house:
        yield house


@pytest.fixture(scope="module")
def ring(on_daphne: House) -> Callable[[], Future[TwilioCall]]:
    """Places the one call of this file, the first time it is asked to."""
    return cache(lambda: on_daphne.place(PLAIN))


@pytest.mark.browser
async def test_a_call_is_seen_in_the_browser_while_it_goes_on(on_daphne: House, ring: Callable[[], Future[TwilioCall]]) -> None:
    password = on_daphne.log_in("ops")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=SWITCHES)
        page = await browser.new_page()
        await page.goto(f"{on_daphne.stack.url}/login/")
        await page.fill("input[name=username]", "ops")
        await page.fill("input[name=password]", password)
        await page.press("input[name=password]", "Enter")
        await expect(page.get_by_role("heading", name="On now")).to_be_visible()
        calling = ring()
        await page.locator("[data-list=live] a, #on-now ~ * a[data-link]").first.click(timeout=10_000)
        lines = page.locator("[data-list=lines]")
        await expect(lines).to_contain_text("Thanks for calling TechFlow support", timeout=20_000)
        assert not calling.done()  # seen while it goes on
        await expect(lines).to_contain_text("We are open from eight", timeout=30_000)
        await asyncio.wait_for(asyncio.wrap_future(calling), LONGEST_S)
        await expect(page.locator("[data-slot=state]").first).to_contain_text("Resolved", timeout=15_000)
        await browser.close()


def test_a_plain_call_on_daphne(on_daphne: House, ring: Callable[[], Future[TwilioCall]]) -> None:
    phone = on_daphne.on_time(ring(), again=lambda: on_daphne.place(PLAIN)).result()
    assert phone.violations == []
    assert [final.clip_name for final in phone.heard] == ["disclosure", "greeting", "opening_hours", "goodbye"]
    assert on_daphne.row(phone.call_sid)["end_reason"] == "agent_ended"
