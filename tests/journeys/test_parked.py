"""Twilio's stream breaks in the middle of the agent's sentence: one agent goes on with the caller, the same if it can be found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest

from bridge.sandbox.outcome import LOST_AFTER_S, longest_silence
from bridge.sandbox.script import ANSWERS, Heard, Say, Scenario, Step
from bridge.sandbox.web import Answer, Internet
from tests.journeys.house import LONGEST_S, House
from tests.journeys.test_calls import heard, understood
from tests.journeys.test_rescued import GOES_ON, nobody_else, on_one_child, serving

pytestmark = [pytest.mark.journey, pytest.mark.alone]


def test_a_caller_whose_stream_breaks_hears_the_rest_of_the_sentence_from_the_same_agent(house: House) -> None:
    carrier, (line,) = on_one_child(house, GOES_ON)
    others = [pid for pid in serving(house) if pid != carrier]
    with nobody_else(house, others):
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


SAYS_GOODBYE = Scenario("says_goodbye", caller=(Step(Heard("greeting"), Say("no_thanks")),), answers=ANSWERS)


class AsksLate(Internet):
    """A network on which Twilio's question what is next, after a stream, is late: it goes on its way when `may_ask` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.may_ask = asyncio.Event()

    async def request(self, method: str, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        if "/resume/" in url:
            await self.may_ask.wait()
        return await super().request(method, url, params, {**headers, "Connection": "close"})


def test_a_caller_whose_agent_says_goodbye_while_the_stream_is_away_hears_it_and_gets_no_other_agent(house: House) -> None:
    """The agent is gone, socket and all, before the next stream is asked for. One child: it finds what was kept, or nobody does."""
    house.eventually(lambda: len(serving(house)) == house.stack.workers, within=LONGEST_S)
    _, *others = serving(house)
    ways = AsksLate()
    with nobody_else(house, others):
        phone, calling = house.talk(SAYS_GOODBYE, web=ways)
        house.eventually(lambda: "no_thanks" in understood(house, phone))
        phone.break_stream()
        house.eventually(lambda: not [call for call in house.at_vapi(phone.call_sid) if call.open])
        house.wait(allow(ways))
        house.eventually(lambda: "re-attached" in house.kinds(phone.call_sid))
    calling.result(90)
    house.settle(phone.call_sid)
    clips = [name for name, _ in heard(phone)]
    assert clips == ["disclosure", "greeting", "goodbye"]
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["rung"], row["epoch"]) == ("agent_ended", "R0", 1)
    assert len(house.at_vapi(phone.call_sid)) == 1
    assert "conversation-lost" not in house.kinds(phone.call_sid)


async def allow(ways: AsksLate) -> None:
    ways.may_ask.set()
