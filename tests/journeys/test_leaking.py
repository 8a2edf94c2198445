"""A serving process that leaks leaves before it has used up its limit, and its caller goes on in another one with the agent."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from supportvoice.laboratory.ground import open_ground
from supportvoice.laboratory.matrix import chosen
from supportvoice.laboratory.runs import Laboratory, Placed
from tests.journeys.test_calls import heard

pytestmark = [pytest.mark.journey, pytest.mark.load]

WHY = re.compile(r"nears its memory limit and leaves pid=(\d+) used_mib=(\d+) limit_mib=(\d+)$", re.MULTILINE)


def test_the_caller_of_a_process_that_leaks_goes_on_between_two_sentences_with_the_agent(tmp_path: Path) -> None:
    async def play() -> tuple[Placed, Mapping[str, Any], str]:
        async with open_ground(tmp_path, say=print) as ground:
            (call,) = await Laboratory(ground, random.Random(1), print).run(chosen(["C18"]), runs=1)
            (row,) = (await ground.exported())[call.call_sid]
            return call, row, ground.stack.members["serve"].log.read_text()

    call, row, log = asyncio.run(play())
    assert call.verdicts == []
    assert call.struck_at is not None
    assert len(call.phone.streams) == 2
    assert [name for name, _ in heard(call.phone)].count("greeting") == 1
    assert (row["rung"], row["end_reason"]) == ("R1", "agent_ended")
    kinds = [event["kind"] for event in row["events"]]
    assert kinds.count("conversation-handed-on") == 1
    assert "conversation-lost" not in kinds
    [(_, used, limit)] = WHY.findall(log)
    assert 0.8 <= int(used) / int(limit) < 1.0
    assert "died" not in log
