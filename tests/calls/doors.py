"""What the tests of the vendors' doors share: a line with its people, signed requests, and a publisher that only remembers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID
from xml.etree.ElementTree import Element, fromstring

from django.http import HttpResponse, QueryDict
from django.test import Client
from django.utils import timezone
from twilio.request_validator import RequestValidator

from agents.models import AssistantTemplate, HandoffTarget, PhoneLine, Rollout, TemplateVersion
from calls import publisher

WIRE = Path(__file__).parents[1] / "wire"
PUBLIC_URL = "https://voice.example.com"
TOKEN = "0123456789abcdef0123456789abcdef"
SECRET = "a-secret-shared-with-vapi"
NUMBER = "+18005550199"
CALLER = "+14155550100"
CALL_SID = "CA" + "a" * 32
ACCOUNT_SID = "AC" + "1" * 32
FORM = "application/x-www-form-urlencoded"


class Remembering(publisher.Publisher):
    """A publisher without a thread: what would have been sent, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[tuple[str, tuple[Any, ...]]] = []
        self.hints: list[tuple[str, str]] = []

    def task(self, task: publisher.Task, *args: Any) -> None:
        self.tasks.append((task.name.rpartition(".")[2], args))

    def tell(self, call_sid: str, hint: str) -> None:
        self.hints.append((call_sid, hint))

    def rows(self, public_id: UUID, seq: int) -> None:
        """Pages are not what these tests are about."""


@contextmanager
def remembering() -> Iterator[Remembering]:
    ours = Remembering()
    before = publisher.install(ours)
    try:
        yield ours
    finally:
        publisher.install(before)


def a_line(
    *, people: Sequence[str] = ("tier2",), tools: Sequence[Mapping[str, Any]] = (), published: bool = True, **fields: Any
) -> PhoneLine:
    """A phone line whose agent is published, with these people behind it (numbers +15550100111, …112, in that order)."""
    template = AssistantTemplate.objects.create(slug="support", name="Support", prompt="Be kind.", voice_id="v")
    line = PhoneLine.objects.create(number=NUMBER, template=template, **fields)
    for order, slug in enumerate(people, start=1):
        line.handoff.add(
            HandoffTarget.objects.create(slug=slug, name=slug.title(), number=f"+1555010011{order}", order=order, ring_seconds=20)
        )
    if published:
        version = TemplateVersion.objects.create(
            template=template, number=1, name="Support", prompt="Be kind.", voice_id="v", tools=list(tools), published_at=timezone.now()
        )
        Rollout.objects.create(line=line, version=version, share=100)
    return line


def incoming(call_sid: str = CALL_SID, **changed: str) -> dict[str, str]:
    """The fields of Twilio's first request, from the recorded normal call."""
    first = json.loads((WIRE / "twilio" / "callbacks" / "normal_call.json").read_text())
    events = first["events"] if isinstance(first, dict) else first
    return {**events[0]["params"], "CallSid": call_sid, **changed}


def signature(path: str, fields: Any, *, token: str = TOKEN, algorithm: str | None = None) -> str:
    made: str = RequestValidator(token).compute_signature(PUBLIC_URL + path, fields, algorithm)
    return made


def knock(client: Client, path: str, fields: Mapping[str, str], **headers: str) -> HttpResponse:
    """Post a form as Twilio does, signed unless `headers` say otherwise."""
    body = urlencode(dict(fields))
    signed = {"X-Twilio-Signature": signature(path, QueryDict(body))} | headers
    answer = client.post(path, data=body, content_type=FORM, headers=signed)
    assert isinstance(answer, HttpResponse)
    return answer


def tree(response: HttpResponse) -> list[Any]:
    """The verbs of a TwiML answer as nested lists: [tag, attributes, text, children…]."""

    def walk(node: Element) -> list[Any]:
        return [node.tag, dict(node.attrib), (node.text or "").strip(), *map(walk, node)]

    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/xml")
    return walk(fromstring(response.content.decode()))[3:]


def verbs(response: HttpResponse) -> list[str]:
    return [verb[0] for verb in tree(response)]
