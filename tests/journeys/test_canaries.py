"""A whole call with a tool, and then the search for what may stand nowhere: secrets in logs, pages, exports and rows, words in logs."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp
import pyotp
import pytest
from pytest_django import DjangoDbBlocker

from bridge.sandbox import crm
from bridge.sandbox.script import ANSWERS, Heard, Say, Scenario, Step
from bridge.sandbox.twilio import TwilioCall
from tests.canaries import SETTINGS, named_in
from tests.journeys.conftest import CALLER, TOKEN
from tests.journeys.house import House

pytestmark = pytest.mark.journey
USER, NAME = "ada", "Alexandra Canarysdottir"
ACCOUNT = Scenario(
    name="account",
    caller=(Step(Heard("greeting"), Say("email_is_alex")), Step(Heard("account_locked", then_s=0.6), Say("thanks_goodbye"))),
    answers=ANSWERS,
)
PERSONAL = {
    "number": CALLER,
    "name": NAME,
    "e-mail": "alex@example.com",
    "sentence": "alex at example dot com",
    "prompt": "You are the phone support agent of TechFlow",
}
FORM_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
LINK = re.compile(r'(?:href|src|action)="([^"#?]+)')
LEFT_OUT = re.compile(r"^/static/|/logout/$|/delete/$")
KEY = re.compile(r'class="key">([A-Z2-7 ]+)<')


@pytest.fixture
def full_of_secrets(tmp_path: Path, django_db_blocker: DjangoDbBlocker, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setitem(crm.ACCOUNTS["alex@example.com"], "name", NAME)
    house = House(tmp_path, django_db_blocker, env=SETTINGS)
    house.start()
    try:
        yield house
    finally:
        house.stop()


def give_the_tool_a_secret(house: House) -> None:
    """Of its own, and publish that."""
    agents = json.loads(house.wait(house.stack.manage("agents_export")))
    agents["tools"][0]["secret"] = {"env": "TECHFLOW_SECRET"}
    file = house.directory / "agents.json"
    file.write_text(json.dumps(agents))
    house.wait(house.stack.manage("agents_import", str(file)))


class Visitor:
    """A browser of an admin, who looks at everything; remembers what every page said."""

    def __init__(self, house: House, password: str) -> None:
        self.house, self.password = house, password
        self.pages: dict[str, str] = {}
        self.app_secret = self.session_key = ""

    async def look_around(self) -> None:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as self.browser:
            await self._send("/login/", username=USER, password=self.password)
            await self._send("/second-factor/")
            self.app_secret = KEY.search(await self._get("/second-factor/"))[1].replace(" ", "")  # type: ignore[index]
            await self._send("/second-factor/", do="confirm", code=pyotp.TOTP(self.app_secret).now())
            self.session_key = next(cookie.value for cookie in self.browser.cookie_jar if cookie.key == "sessionid")
            await self._walk(["/", "/admin/", "/second-factor/"])

    async def _walk(self, waiting: list[str]) -> None:
        while waiting:
            path = waiting.pop()
            self.pages[path] = text = await self._get(path)
            links = {urlsplit(urljoin(path, link)) for link in LINK.findall(text)}
            found = {link.path for link in links if not link.netloc and not link.scheme}
            waiting += [path for path in found if path not in {*self.pages, *waiting} and not LEFT_OUT.search(path)]

    async def _get(self, path: str) -> str:
        async with self.browser.get(self.house.stack.url + path) as answer:
            return html.unescape((await answer.read()).decode(errors="replace"))

    async def _send(self, path: str, **fields: str) -> None:
        token = FORM_TOKEN.search(await self._get(path))
        assert token is not None
        async with self.browser.post(self.house.stack.url + path, data={"csrfmiddlewaretoken": token[1], **fields}) as answer:
            assert answer.status == 200


def secrets_of(house: House, phone: TwilioCall, visitor: Visitor) -> dict[str, str]:
    """By name, everything that opens a door of this house."""
    told = b"".join(document.body for document in phone.documents)
    vapi_call = house.at_vapi(phone.call_sid)[0].id
    return {
        **SETTINGS,
        "VAPI_API_KEY": house.secrets.vapi_key,
        "VAPI_WEBHOOK_SECRET": house.secrets.webhook_secret,
        "TWILIO_AUTH_TOKEN": house.secrets.auth_token,
        "password": visitor.password,
        "session cookie": visitor.session_key,
        "secret of the authenticator app": visitor.app_secret,
        "stream token": TOKEN.search(told)[1].decode(),  # type: ignore[index]
        "socket of the Vapi call": f"{vapi_call}/transport",
        "control of the Vapi call": f"{vapi_call}/control",
    }


def exports_of(house: House) -> dict[str, str]:
    asked = (("export_calls",), ("export_calls", "--format", "csv"), ("agents_export",))

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(house.stack.manage(*command) for command in asked))

    return dict(zip(map(" ".join, asked), house.wait(all_of_them()), strict=True))


def test_no_secret_stands_anywhere_and_nothing_personal_in_a_log(full_of_secrets: House) -> None:
    house = full_of_secrets
    give_the_tool_a_secret(house)
    phone = house.call(ACCOUNT)
    house.eventually(lambda: house.row(phone.call_sid)["status"] == "finalised")
    visitor = Visitor(house, house.log_in(USER))
    house.wait(visitor.look_around())
    exports, logs = exports_of(house), house.logs()
    with contextlib.closing(sqlite3.connect(house.directory / "db.sqlite3")) as database:
        rows = "\n".join(database.iterdump())
    assert_all_of_it_was_there(house, phone, visitor, exports, rows, logs)
    secrets = secrets_of(house, phone, visitor)
    assert len(secrets) >= 12
    assert all(len(secret) > 11 for secret in secrets.values())
    found = {"logs": named_in(logs, secrets | PERSONAL), "database": named_in(rows, secrets)}
    found |= {f"page {path}": named_in(text, secrets) for path, text in visitor.pages.items()}
    found |= {f"export {command}": named_in(text, secrets) for command, text in exports.items()}
    assert {place: names for place, names in found.items() if names} == {}


def assert_all_of_it_was_there(house: House, phone: TwilioCall, visitor: Visitor, exports: dict[str, str], rows: str, logs: str) -> None:
    """The call used what is looked for, and the search had something to look through."""
    assert phone.violations == []
    assert "tool-answered" in house.kinds(phone.call_sid)
    assert named_in(rows, PERSONAL) == list(PERSONAL), "the history has what was said"
    assert named_in("".join(visitor.pages.values()), PERSONAL) == list(PERSONAL), "and people who may read it do"
    assert named_in(exports["export_calls"], PERSONAL) == ["number", "name", "e-mail", "sentence"]
    assert len(visitor.pages) > 50
    assert {"/messages/1.json", "/admin/calls/callsession/1/change/", "/admin/calls/secondfactor/"} <= visitor.pages.keys()
    assert logs.count("\n") > 20
