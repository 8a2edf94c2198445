"""The last rung: a document that Twilio can carry out when no server of ours answers."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from agents.models import HandoffTarget, PhoneLine
from bridge.sandbox.twiml import parse
from tests.builders import LINE, a_line

pytestmark = pytest.mark.django_db


def printed(*arguments: str) -> str:
    out = StringIO()
    call_command("fallback_twiml", *arguments, stdout=out)
    return out.getvalue().strip()


def test_it_rings_the_first_person_then_takes_a_message_and_asks_no_server() -> None:
    a_line(targets=("tier2", "tier3"))
    document = printed()
    say, dial, prompt, record, hangup = parse(document.encode(), "text/xml")
    assert [verb.name for verb in (say, dial, prompt, record, hangup)] == ["Say", "Dial", "Say", "Record", "Hangup"]
    assert [number.text for number in dial.children] == ["+15550100111"]
    assert dial.get("callerId") == LINE
    assert "http" not in document


def test_a_number_that_may_not_be_rung_is_left_out_and_a_message_is_taken_all_the_same() -> None:
    a_line(targets=("tier2",))
    HandoffTarget.objects.update(number="+19005551234")
    assert [verb.name for verb in parse(printed().encode(), "text/xml")] == ["Say", "Say", "Record", "Hangup"]


def test_with_an_address_for_afterwards_the_document_does_not_start_again() -> None:
    a_line()
    record = parse(printed("--after", "https://static.example/bye.xml").encode(), "text/xml")[2]
    assert (record.name, record.get("action")) == ("Record", "https://static.example/bye.xml")


def test_one_of_several_lines_is_to_be_named() -> None:
    with pytest.raises(CommandError, match="none yet"):
        printed()
    PhoneLine.objects.create(number="+15550100102", template=a_line(targets=("tier2",)).template)
    with pytest.raises(CommandError, match="Say which line"):
        printed()
    assert "+15550100111" in printed("--line", LINE)
