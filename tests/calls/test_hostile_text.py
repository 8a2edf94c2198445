"""Text of strangers where it could be more than text, but for the pages: tables, TwiML, log lines, and the words of an agent."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from agents import lines, payload, services
from agents.models import AssistantTemplate, HandoffTarget, PhoneLine
from agents.payload import ServerAddress
from bridge import twilio_http
from calls import history
from calls.models import CallSession
from supportvoice.logs import FieldsFormatter
from tests import corpora
from tests.builders import a_call
from tests.calls.doors import CALLER, NUMBER, PUBLIC_URL, SECRET, TOKEN, a_line, incoming, knock, tree

pytestmark = pytest.mark.django_db
SERVER = ServerAddress(url="https://support.example.com/webhook/vapi", secret="hook-secret")


@pytest.fixture(autouse=True)
def configured(settings: Settings) -> None:
    settings.PUBLIC_URL, settings.TWILIO_AUTH_TOKENS, settings.VAPI_WEBHOOK_SECRETS = PUBLIC_URL, [TOKEN], [SECRET]
    lines.forget()


# -- tables --------------------------------------------------------------------------------------------------------------


def test_no_cell_of_an_exported_table_begins_a_formula_whoever_rang_and_whatever_they_said(client: Client) -> None:
    formulas = corpora.formulas()
    assert len(formulas) >= 50
    a_line()
    for place, formula in enumerate(formulas):
        assert knock(client, "/webhook/twilio", incoming(f"CA{place:032x}", From=formula)).status_code == 200
        call = CallSession.objects.get(call_sid=f"CA{place:032x}")
        at = timezone.now()
        history.add_line(call=call, vapi_call_id="v", role="user", text=formula, vendor_ms=1000 * place, at=at, n=0)
    CallSession.objects.filter(call_sid=f"CA{0:032x}").update(call_sid=formulas[0])
    out = io.StringIO()
    call_command("export_calls", "--format", "csv", stdout=out)
    rows = list(csv.reader(io.StringIO(out.getvalue(), newline="")))
    assert len(rows) == len(formulas) + 1
    assert {len(row) for row in rows} == {len(rows[0])}
    wrong = [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))]
    assert wrong == []
    stored = list(CallSession.objects.order_by("started_at", "pk").values_list("from_number", flat=True))
    place = rows[0].index("from")
    assert [row[place].removeprefix("'") for row in rows[1:]] == stored


# -- TwiML ---------------------------------------------------------------------------------------------------------------


def shape(node: Element) -> list[Any]:
    """A TwiML document without its texts."""
    return [node.tag, sorted(node.attrib), *map(shape, node)]


@pytest.mark.parametrize("text", corpora.XML, ids=[f"xml-{place}" for place in range(len(corpora.XML))])
def test_what_managers_write_is_said_and_never_a_verb(client: Client, text: str) -> None:
    a_line(disclosure=f"We listen. {text}", record_calls=True)
    HandoffTarget.objects.update(name=text)
    answered = tree(knock(client, "/webhook/twilio", incoming()))
    assert [verb[0] for verb in answered] == ["Say", "Start", "Connect", "Redirect"]
    assert answered[0] == ["Say", {}, f"We listen. {twilio_http.speakable(text)}".strip()]
    whispered = tree(knock(client, "/webhook/twilio/whisper/tier2", incoming()))
    assert [verb[0] for verb in whispered] == ["Say"]


@pytest.mark.parametrize("text", corpora.XML, ids=[f"xml-{place}" for place in range(len(corpora.XML))])
def test_whatever_number_a_caller_shows_the_answer_is_the_same_document(client: Client, text: str) -> None:
    a_line()
    plain = knock(client, "/webhook/twilio", incoming("CA" + "0" * 32))
    hostile = knock(client, "/webhook/twilio", incoming("CA" + "1" * 32, From=f"{CALLER}{text}", CallerName=text, CallerCity=text))
    if "\0" in text:
        assert hostile.status_code == 400
    else:
        assert shape(fromstring(hostile.content)) == shape(fromstring(plain.content))
    wrong = knock(client, "/webhook/twilio", incoming("CA" + "2" * 32, To=f"{NUMBER}{text}"))
    assert wrong.status_code == 400 or {verb[0] for verb in tree(wrong)} <= {"Say", "Hangup", "Record", "Gather", "Redirect"}


@pytest.mark.parametrize("text", corpora.XML, ids=[f"xml-{place}" for place in range(len(corpora.XML))])
def test_every_sentence_and_address_of_the_builder_stays_in_its_place(text: str) -> None:
    urls = {"whisper_url": f"https://h/{text}", "leg_url": f"https://l/{text}", "action_url": f"https://a/{text}"}
    plain = twilio_http.dial_human(
        sentence="x", number="+15550100111", whisper_url="w", leg_url="l", action_url="a", caller_id="+1", ring_seconds=9, talk_s=9
    )
    clean: dict[str, Any] = {name: twilio_http.NOT_XML.sub(" ", url) for name, url in urls.items()}
    hostile = twilio_http.dial_human(sentence=f"x {text}", number="+15550100111", caller_id="+1", ring_seconds=9, **clean)
    assert shape(fromstring(hostile)) == shape(fromstring(plain))
    spoken = {"prompt": f"x {text}", "nothing_heard": f"y {text}", "offer": f"z {text}"}
    voicemail = fromstring(twilio_http.voicemail(action_url="a", recording_url="r", offer_url="o", **spoken))
    assert [verb.tag for verb in voicemail.iter()] == ["Response", "Gather", "Say", "Say", "Record", "Say"]


# -- log lines -----------------------------------------------------------------------------------------------------------


class Written:
    """Our real formatter behind a real stream of UTF-8, and how many records it was given."""

    def __init__(self) -> None:
        self.bytes, self.records = io.BytesIO(), 0
        stream = io.TextIOWrapper(self.bytes, encoding="utf-8", write_through=True, newline="")
        self.handler = logging.StreamHandler(stream)
        self.handler.setFormatter(FieldsFormatter())
        self.handler.addFilter(self._count)
        self.log = logging.Logger("test.hostile")  # whose lines are in nobody else's log
        self.log.addHandler(self.handler)

    def _count(self, record: logging.LogRecord) -> bool:
        self.records += 1
        return True

    def text(self) -> str:
        return self.bytes.getvalue().decode("utf-8")


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def everything_written(written: Written) -> Iterator[Written]:
    root = logging.getLogger()
    level = root.level
    root.addHandler(written.handler)
    root.setLevel(logging.INFO)
    yield written
    root.removeHandler(written.handler)
    root.setLevel(level)


def assert_one_line_each(written: Written) -> None:
    text = written.text()
    assert len(text.splitlines()) == text.count("\n") == written.records
    assert all(sign == "\n" or sign.isprintable() for sign in text)
    assert not any(line.startswith("2026-08-03") for line in text.splitlines())


@pytest.mark.parametrize("text", corpora.forged_lines(), ids=[f"breaker-{place}" for place in range(len(corpora.LINES))])
def test_a_text_of_strangers_stays_in_the_line_it_is_logged_in(written: Written, text: str) -> None:
    log = written.log
    log.warning("a field", extra={"tool": text, "deep": {text: [text]}, "bytes": text.encode(errors="replace")})
    log.warning("a word: %s", text)
    log.warning(text.replace("%", "%%"))
    assert written.records == 3
    assert_one_line_each(written)


@pytest.mark.parametrize("text", corpora.forged_lines(), ids=[f"breaker-{place}" for place in range(len(corpora.LINES))])
def test_the_text_of_a_fault_is_in_no_line_and_its_places_begin_none_of_their_own(written: Written, text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        written.log.exception("a fault")
    first, *rest = written.text().splitlines()
    assert first.endswith("test.hostile: a fault")
    assert rest[-1] == "    ValueError"
    assert all(line.startswith("    ") for line in rest)
    assert all(sign == "\n" or sign.isprintable() for sign in written.text())


def test_what_comes_in_by_the_doors_forges_no_line(client: Client, everything_written: Written) -> None:
    a_line(tools=[{"name": "look_up", "description": "d", "url": "https://crm.example.com/", "parameters": {}, "timeout_s": 4.0}])
    for place, text in enumerate(corpora.forged_lines()):
        sent = text.encode(errors="replace").decode()
        knock(client, "/webhook/twilio", incoming(f"CA{place:032x}", From=sent, CallerName=sent))
        knock(client, "/webhook/twilio", incoming(f"CA{place:032x}"), **{"X-Twilio-Signature": "wrong"})
        knock(client, "/webhook/twilio/status", incoming(f"CA{place:032x}", CallStatus=sent))
        call = {"id": sent, "name": f"CA{place:032x}"}
        tool = [{"id": sent, "type": "function", "function": {"name": sent, "arguments": {sent: sent}}}]
        for message in ({"type": sent}, {"type": "status-update", "status": sent}, {"type": "tool-calls", "toolCallList": tool}):
            body = json.dumps({"message": {**message, "call": call}})
            client.post("/webhook/vapi", body, content_type="application/json", headers={"X-Vapi-Secret": SECRET})
        client.get(f"/nowhere/{sent.replace(chr(0), '')}")
        client.post("/login/", {"username": sent, "password": sent})
    assert everything_written.records > len(corpora.LINES)
    assert_one_line_each(everything_written)


# -- the words of an agent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", corpora.TEMPLATES)
def test_words_that_look_like_a_template_reach_vapi_and_callers_as_they_were_written(client: Client, text: str) -> None:
    line = a_line(disclosure=text)
    template = line.template
    words = {"prompt": f"Say {text}.", "first_message": text, "end_call_message": text, "keyterms": [text]}
    AssistantTemplate.objects.filter(pk=template.pk).update(**words, name=text[:40])
    version = services.publish(template=template, note=text, by="ann", at=timezone.now())
    told = payload.assistant(lines.candidate(version, share=100, targets=()).words, server=SERVER)
    assert told["model"]["messages"][0]["content"].startswith(f"Say {text}.")
    assert (told["firstMessage"], told["endCallMessage"]) == (text, text)
    said = tree(knock(client, "/webhook/twilio", incoming()))
    assert said[0] == ["Say", {}, " ".join(text.split())]
    assert str(version) == f"{text[:40]} v{version.number}"


def test_names_that_look_like_a_template_are_shown_as_they_were_written(client: Client, admin_client: Client) -> None:
    line = a_line()
    call = a_call()
    for text in corpora.TEMPLATES:
        PhoneLine.objects.filter(pk=line.pk).update(name=text)
        AssistantTemplate.objects.update(name=text[:40])
        CallSession.objects.filter(pk=call.pk).update(line=line, from_number=text)
        shown = admin_client.get("/calls/").context["rows"][0].slots
        assert (shown["line"], shown["caller"]) == (text, text)
        page = admin_client.get(f"/calls/{call.public_id}/").content.decode()
        assert "laptop-only" not in page
        assert text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#x27;") in page
        assert admin_client.get("/admin/agents/phoneline/").status_code == 200
