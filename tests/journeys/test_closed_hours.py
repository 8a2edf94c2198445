"""A caller who wants a person while nobody is at work: nobody's telephone rings, the AI says so, and what it promises falls into hours."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from bridge.sandbox.dial import Human
from bridge.sandbox.script import ANSWERS, Heard, Press, Say, Scenario, Start, Step
from supportvoice.demo import COLLEAGUE
from tests.journeys.house import OF_CALL, House
from tests.journeys.test_calls import heard, nothing_to_complain_of

pytestmark = pytest.mark.journey

COMES = {COLLEAGUE: Human(rings_s=0.5, talks_s=1.0)}
HEARS_HOW_IT_IS_S = 14.0  # the way back to the AI, and its three sentences
AFTER_HOURS = Scenario(
    name="after_hours",
    caller=(
        Step(Heard("greeting"), Press("0")),
        Step(Start(HEARS_HOW_IT_IS_S), Say("call_me_back")),
        Step(Heard("we_call_back", then_s=0.6), Say("no_thanks")),
    ),
    answers=ANSWERS,
)


@pytest.fixture
def opens(house: House) -> Iterator[datetime]:
    """The line's people are at work tomorrow, for four hours; when they begin."""
    tomorrow = (timezone.now() + timedelta(days=1)).replace(hour=9, minute=0, second=0, microsecond=0)
    house.change(f"""UPDATE agents_phoneline SET time_zone = 'UTC', hours = '["{tomorrow:%A} 9:00-13:30"]'""")
    yield tomorrow
    house.change("UPDATE agents_phoneline SET time_zone = '', hours = '[]'")


def test_outside_working_hours_nobody_is_rung_and_the_promised_time_falls_into_them(house: House, opens: datetime) -> None:
    phone = house.call(AFTER_HOURS, humans=COMES)
    nothing_to_complain_of(phone)
    assert phone.dials == []
    _, second = sorted(house.at_vapi(phone.call_sid), key=lambda call: str(call.request["name"]))
    assert second.request["assistant"]["firstMessage"].startswith("I'm sorry, nobody is at work right now.")
    assert "tomorrow" in second.request["assistant"]["firstMessage"]
    assert [clip for clip, _ in heard(phone)][-2:] == ["we_call_back", "goodbye"]
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"]) == ("callback_promised", "callback")
    assert house.kinds(phone.call_sid).count("closed-hours") == 1
    (due,) = house.rows(f"SELECT r.due_at FROM calls_callbackrequest r {OF_CALL}", phone.call_sid)[0]
    due_at = datetime.fromisoformat(due).replace(tzinfo=opens.tzinfo) if isinstance(due, str) else due.replace(tzinfo=opens.tzinfo)
    assert opens <= due_at <= opens + timedelta(hours=4.5)
