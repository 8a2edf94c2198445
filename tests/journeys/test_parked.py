"""Twilio's stream breaks in the middle of the agent's sentence: one agent goes on with the caller, the same if it can be found."""

from __future__ import annotations

import time

import pytest

from bridge.sandbox.outcome import LOST_AFTER_S, longest_silence
from tests.journeys.house import House
from tests.journeys.test_calls import heard
from tests.journeys.test_rescued import GOES_ON, on_one_child, serving, standing_still

pytestmark = [pytest.mark.journey, pytest.mark.alone]


def test_a_caller_whose_stream_breaks_hears_the_rest_of_the_sentence_from_the_same_agent(house: House) -> None:
    carrier, (line,) = on_one_child(house, GOES_ON)
    others = [pid for pid in serving(house) if pid != carrier]
    with standing_still(others):
        broke_at = time.monotonic()
        line.phone.break_stream()
        house.eventually(lambda: "re-attached" in house.kinds(line.phone.call_sid))
    phone = line.calling.result(90)
    house.settle(phone.call_sid)
    second = phone.streams[1]
    assert second.started_at is not None
    assert second.started_at - broke_at <= 1.0
    clips = [name for name, _ in heard(phone)]
    assert clips.count("greeting") == 1
    assert not {"cut_off", "one_moment", "trouble"} & set(clips)
    assert longest_silence(phone)[0] <= LOST_AFTER_S
    row, [detail] = house.row(phone.call_sid), [detail for kind, detail in house.events(phone.call_sid) if kind == "re-attached"]
    assert (row["end_reason"], row["rung"], row["epoch"]) == ("agent_ended", "R0", 1)
    assert detail["gap_ms"] <= 1000
    assert len(house.at_vapi(phone.call_sid)) == 1
    assert "conversation-lost" not in house.kinds(phone.call_sid)
