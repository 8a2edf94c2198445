"""A mark of what was left out can be told from what people said, and is plain text where programs read."""

from __future__ import annotations

import pytest
from django.test import Client
from django.utils import timezone

from calls import export, history
from calls.marks import CARD, WORDS
from calls.models import CallEvent
from calls.printed import printed
from calls.templatetags.left_out import with_marks
from tests.builders import a_call, a_person


@pytest.mark.parametrize("mark", WORDS)
def test_each_mark_says_what_stood_there_and_everything_else_is_escaped(mark: str) -> None:
    shown = with_marks(f"<b>{mark}&{mark}")
    assert shown.startswith("&lt;b&gt;<span ")
    assert shown.count(f'aria-label="{WORDS[mark]}"') == shown.count(f'title="{WORDS[mark]}"') == shown.count(f">{mark}</span>") == 2


def test_what_is_no_mark_is_no_mark() -> None:
    assert with_marks("[cards] [CARD] [left  out]") == "[cards] [CARD] [left  out]"


@pytest.mark.django_db
def test_the_page_shows_it_and_the_printed_and_exported_text_has_it_plain(client: Client) -> None:
    client.force_login(a_person())
    call = a_call()
    history.add_line(call=call, vapi_call_id="v", role="user", text="It is 4539 1488 0343 6467.", vendor_ms=1, at=timezone.now(), n=0)
    page = client.get(f"/calls/{call.public_id}/").content.decode()
    assert page.count(f'<span class="left-out" role="img" aria-label="{WORDS[CARD]}" title="{WORDS[CARD]}">{CARD}</span>') == 3
    event = CallEvent.objects.get(call=call, kind="transcript-final", source="vapi")
    assert printed(event, "call-1").endswith(f'transcript-final: "It is {CARD}."')
    [told] = export.told(export.calls(call_sid=call.call_sid))
    assert f"It is {CARD}." in [line["text"] for line in told["lines"]]
