"""Two hundred spoken attempts to be more than text, through the vendors' real doors into every page people look at."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group, User
from django.test import Client
from playwright.async_api import Browser, Page, expect

from agents import lines, services, tools, trail
from agents.models import AssistantTemplate, HandoffTarget, PhoneLine, Team, TemplateVersion, Tool
from agents.tools import ToolAnswer
from calls.models import CallSession, InboxMessage, ToolRun, TranscriptLine, VapiReport, VapiSession, VapiState
from tests import corpora
from tests.builders import a_callback, a_recording
from tests.calls import doors
from tests.calls.doors import PUBLIC_URL, SECRET, TOKEN, WIRE
from tests.journeys import test_pages

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.asyncio(loop_scope="module")]
browser, shop = test_pages.browser, test_pages.shop

PAYLOADS = corpora.markup()
WATCH = """
  window.complaints = [];
  window.hit = () => window.complaints.push("a payload ran");
  document.addEventListener("securitypolicyviolation", (e) => window.complaints.push(`${e.violatedDirective} ${e.blockedURI}`));
"""
LOOK = """() => {
  const pairs = new Set();
  for (const e of document.querySelectorAll("*")) for (const a of ["", ...e.getAttributeNames()]) pairs.add(`${e.tagName} ${a}`);
  for (const t of document.querySelectorAll("template"))
    for (const e of t.content.querySelectorAll("*")) pairs.add(`${e.tagName} in template`);
  return { pairs: [...pairs], marked: document.querySelectorAll("[zq]").length, complaints: window.complaints,
           said: document.documentElement.textContent.split("zq").length - 1,
           scripts: [...document.querySelectorAll("[href],[src],[action]")].filter((e) => /^\\s*(javascript|data):/i.test(
             e.getAttribute("href") || e.getAttribute("src") || e.getAttribute("action") || "")).length };
}"""


@pytest.fixture(autouse=True)
def configured(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS, settings.VAPI_WEBHOOK_SECRETS = PUBLIC_URL, [TOKEN], [SECRET]
    lines.forget()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, shop: test_pages.Shop) -> AsyncIterator[Page]:
    """A superuser's page, which notes whatever a browser says of a payload that ran, or was kept from it."""
    context = await browser.new_context(base_url=shop.url)
    client = Client()
    await sync_to_async(client.force_login)(await sync_to_async(User.objects.create_superuser)("ann", password="x"))
    await context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": shop.url}])
    await context.add_init_script(WATCH)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    page.on("console", lambda message: complaints.append(message.text) if "Content Security Policy" in message.text else None)
    yield page
    await context.close()
    assert complaints == []


class World:
    """A line, its agent and a call that says, sends and is answered with `texts`; all that is a vendor's comes in by its door."""

    def __init__(self, texts: list[str], *, number: int) -> None:
        self.number, self.texts = number, texts
        self.short = {length: corpora.spread(texts, length) for length in (40, 64, 80, 150)}
        self.sid, self.to = f"CA{number:032x}", f"+1555010{number:04}"
        self.vapi_id = f"019a9b1c-7f2e-7c33-9d41-{number:012x}"
        self.client = Client(SERVER_NAME="127.0.0.1")

    def pick(self, length: int) -> Iterator[str]:
        return itertools.cycle(self.short[length])

    def furnish(self) -> None:
        """What managers name and write."""
        short, long = self.pick(40), self.pick(80)
        team = Team.objects.create(name=next(long), slug=f"team-{self.number}")
        tool = Tool.objects.create(name=next(short), description=next(long), url="https://crm.example/x", waiting_sentence=next(long))
        words = {"prompt": "\n".join(self.texts), "first_message": next(long), "voice_id": next(long), "end_call_message": next(long)}
        phrases = {"keyterms": [next(long)], "end_call_phrases": [next(long)]}
        self.template = AssistantTemplate.objects.create(slug=f"a-{self.number}", name=next(short), team=team, **words, **phrases)
        self.target = HandoffTarget.objects.create(slug=f"t-{self.number}", name=next(long), number="+15550100111", team=team)
        named = {"name": next(long), "disclosure": next(long), "team": team}
        self.line = PhoneLine.objects.create(number=self.to, template=self.template, **named)
        self.line.handoff.add(self.target)
        version = TemplateVersion.objects.create(
            template=self.template,
            number=1,
            name=self.template.name,
            note=next(long),
            published_by=next(long),
            published_at="2026-08-03T14:47:03Z",
            tools=[{**services.tool_words(tool), "parameters": {}}],
            **words,
            **phrases,
        )
        AssistantTemplate.objects.filter(pk=self.template.pk).update(published=version)
        self.line.rollouts.create(line=self.line, version=version)
        self.version, self.tool, self.team = version, tool, team
        self.group = Group.objects.create(name=f"{self.number} {next(long)}")
        self.user = User.objects.create_user(f"{next(self.pick(64))} {self.number}", last_name=next(self.pick(64)))

    def ring(self) -> None:
        caller, name = next(self.pick(64)), next(self.pick(64))
        form = doors.incoming(self.sid, To=self.to, From=caller, CallerName=name, CallerCity=name)
        assert doors.knock(self.client, "/webhook/twilio", form).status_code == 200
        self.call = CallSession.objects.get(call_sid=self.sid)
        VapiSession.objects.filter(call=self.call).update(state=VapiState.LIVE, vapi_call_id=self.vapi_id)

    def post(self, name: str, **changed: Any) -> None:
        body = json.loads((WIRE / "vapi" / "webhooks" / f"{name}.json").read_text())
        body["message"] |= changed
        body["message"]["call"] |= {"id": self.vapi_id, "name": self.sid}
        answer = self.client.post("/webhook/vapi", json.dumps(body), content_type="application/json", headers={"X-Vapi-Secret": SECRET})
        assert answer.status_code == 200, answer.content

    def say(self, texts: list[str], start: int = 0) -> None:
        for place, text in enumerate(texts, start):
            self.post("transcript.final", role="user", transcript=text, timestamp=1_795_342_809_000 + 1000 * place)

    def ask_tools(self) -> None:
        """A model that asks for one tool with payloads as its arguments, and for tools that are named by payloads."""
        asked = [(self.tool.name, {payload: payload for payload in self.texts[:40]})]
        asked += [(payload, {"a": payload}) for payload in self.texts[:5]]
        listed = [
            {"id": f"t{self.number}-{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for place, (name, arguments) in enumerate(asked)
        ]
        self.post("tool-calls.object-arguments", toolCallList=listed, toolWithToolCallList=[])

    def end(self) -> None:
        """A message nobody knows, the report, and what hangs on a call that is over."""
        self.post("hang", type=next(self.pick(40)))
        everything = {payload: payload for payload in self.texts[:60]}
        analysis = {"summary": "\n".join(self.texts), "successEvaluation": self.texts[0], "structuredData": everything}
        self.post("end-of-call-report", summary=analysis["summary"], analysis=analysis, endedReason=self.texts[1], costBreakdown=everything)
        self.post("status-update.ended", endedReason=self.texts[2])
        a_recording(self.call)
        told: dict[str, Any] = {
            "subject": next(self.pick(150)),
            "detail": {next(self.pick(80)): self.texts[:20]},
            "address": next(self.pick(40)),
        }
        trail.record(next(self.pick(40)), actor=self.user.username, at=self.call.started_at, **told)
        a_callback(self.call, note=next(self.pick(150)), done_by=next(self.pick(150)))

    def pages(self) -> dict[str, str]:
        """Every page with something of this world on it, by its name."""
        call = f"/calls/{self.call.public_id}/"
        message = InboxMessage.objects.filter(call=self.call, kind="end-of-call-report").latest("pk")
        report = VapiReport.objects.get(session__call=self.call)
        kept = (self.template, self.version, self.target, self.team, self.tool, self.line, self.user, self.group, self.call, report)
        rows = {f"{row._meta.label} change": f"/admin/{row._meta.app_label}/{row._meta.model_name}/{row.pk}/change/" for row in kept}
        lists = {f"{row._meta.label} list": f"/admin/{row._meta.app_label}/{row._meta.model_name}/" for row in kept}
        console = {"live": "/", "calls": "/calls/", "voicemail": "/voicemail/", "callbacks": "/callbacks/", "trail": "/trail/"}
        own = {
            "call": call,
            "messages": f"{call}messages/",
            "message": f"/messages/{message.pk}/",
            "found": f"/calls/?q={self.call.short_id}",
        }
        deletion = {"deletion": f"/admin/agents/team/{self.team.pk}/delete/", "history": f"/admin/agents/tool/{self.tool.pk}/history/"}
        return {**console, **own, **rows, **lists, **deletion, "desk": "/admin/"}


BENIGN = [f"{number} harmless words" for number in range(len(PAYLOADS))]
SILENT = {"desk", "history"}  # nobody changed anything in the admin


async def test_what_is_said_sent_and_named_is_text_on_every_page_people_look_at(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = itertools.cycle(PAYLOADS)
    monkeypatch.setattr(tools, "run", lambda *_, **__: ToolAnswer(text=next(answers), problem=""))
    allowed: dict[bool, set[str]] = {True: set(), False: set()}  # elements with their attributes, of the admin and of the console
    silent: set[str] = set()
    for number, texts in ((1, BENIGN), (2, PAYLOADS)):
        world = World(texts, number=number)
        await sync_to_async(world.furnish)()
        await sync_to_async(world.ring)()
        half = len(texts) // 2
        await sync_to_async(world.say)(texts[:half])
        await page.goto(f"/calls/{world.call.public_id}/")
        await expect(page.locator("[data-connection-words]")).to_have_text("Updating live")
        await sync_to_async(world.say)(texts[half:], half)
        await sync_to_async(world.ask_tools)()
        lines_said = page.locator("[data-list=lines] [data-role=user] [data-slot=heard]")
        said = TranscriptLine.objects.filter(call=world.call, role="user").order_by("vendor_ms")  # those told again are left out
        assert await said.acount() >= 200
        await expect(lines_said).to_have_count(await said.acount(), timeout=15000)
        await sync_to_async(world.end)()
        await expect(page.locator("[data-list=reports] > li")).to_have_count(1)
        shown = await lines_said.all_text_contents()
        assert [text.split() for text in shown] == [line.said.split() async for line in said]  # HTML has line ends of its own
        for name, path in {"live call": "", **await sync_to_async(world.pages)()}.items():
            if path:
                assert (answer := await page.goto(path)) is not None
                assert answer.status == 200, path
            found = await page.evaluate(LOOK)
            assert (found["marked"], found["complaints"], found["scripts"]) == (0, [], 0), name
            if texts is BENIGN:
                allowed[path.startswith("/admin/")] |= set(found["pairs"])
            else:
                assert set(found["pairs"]) <= allowed[path.startswith("/admin/")], name
                silent |= {name} if not found["said"] else set()
    assert silent <= SILENT, "no payload came to these: nothing was proven there"
    assert await ToolRun.objects.filter(call=world.call).aexists()
