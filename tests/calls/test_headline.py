"""The figures at the top of a call's page."""

from __future__ import annotations

import pytest
from django.utils import timezone

from calls.console.headline import head
from calls.models import CallMetrics
from tests.builders import a_call


@pytest.mark.django_db
def test_of_several_times_to_silence_the_middle_one_stands_on_top_and_each_below() -> None:
    call = a_call()
    CallMetrics.objects.create(call=call, time_to_silence_ms=[40, 300, 120])
    slots = head(call, now=timezone.now(), told=True).slots
    assert (slots["silence"], slots["silence_note"]) == ("120 ms", "each: 40 ms, 300 ms, 120 ms")
