"""The whole of the only `serve` dies, something starts it again, and Twilio stays on the dead stream."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import pytest

from bridge.sandbox.outcome import longest_silence
from calls import spoken
from supportvoice.laboratory.ground import children
from tests.journeys.house import LONGEST_S, House
from tests.journeys.test_rescued import STAYS, OnTheLine, placed, struck, went_on_with_the_agent

pytestmark = [pytest.mark.journey, pytest.mark.alone]

WORD_WITHIN_S = 4.0  # a process starts in it; its children need as much again


def on_the_line(house: House, *modes: str) -> tuple[int, list[OnTheLine]]:
    """A call in each mode, the agent in its long answer. The process id of `serve`."""
    lines = [placed(house, mode) for mode in modes]
    for line in lines:
        house.wait(line.phone.wait_for("caller-says", within=LONGEST_S))
    house.eventually(lambda: all(line.is_answered() for line in lines), within=LONGEST_S)
    return house.stack.members["serve"].process.pid, lines


def started_again(house: House, parent: int, lines: Sequence[OnTheLine]) -> None:
    for pid in (*children(parent), parent):
        os.kill(pid, signal.SIGKILL)
    house.wait(house.stack.kill("serve"))
    house.wait(house.stack.begin("serve"))
    house.wait(house.stack.until("serve is there again", house.stack.serves))


def test_callers_hear_a_word_before_anybody_serves_and_then_the_agent(house: House) -> None:
    for line in struck(house, started_again, STAYS, on=on_the_line):
        went_on_with_the_agent(house, line)
        timeline = [(moment.what, moment.at - line.struck_at) for moment in line.phone.timeline if moment.at > line.struck_at]
        word_s = next(at for what, at in timeline if what == "say")
        asked_s = next(at for what, at in timeline if what == "asks")
        silent_s, _ = longest_silence(line.phone)
        print(f"a word after {word_s:.2f} s, the agent after {line.served_s():.2f} s, silent for {silent_s:.2f} s")  # noqa: T201
        assert word_s < asked_s
        assert word_s <= WORD_WITHIN_S
        assert house.kinds(line.phone.call_sid).count("caller-asked-to-wait") == 1
        said = [moment.detail for moment in line.phone.timeline if moment.what == "say" and moment.at > line.struck_at]
        assert spoken.ONE_MOMENT in str(said[0])
