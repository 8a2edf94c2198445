"""Which calls are placed again, that whoever reads the result is told of it, and what a call remembers of the faults that met it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.sandbox.proxy import Weather
from bridge.sandbox.twilio import STALLED_MS, TwilioCall
from supportvoice.laboratory.judge import Verdict
from supportvoice.laboratory.matrix import Row
from supportvoice.laboratory.nemesis import BLOWS, Blow, Met
from supportvoice.laboratory.person import Person
from supportvoice.laboratory.runs import TRIES, Laboratory, Placed
from supportvoice.laboratory.strikes import MISSED, database_weather

ROW = Row("C2", "dies")
LATE = STALLED_MS + 1


def a_call() -> Placed:
    phone = TwilioCall(webhook_url="http://house/", auth_token="key", caller=Person(), web=cast(Any, None))
    return Placed(ROW, phone, cast(Any, SimpleNamespace(port=1)), "R1")


class Staged(Laboratory):
    """Each call goes as the next of `goes` says: (ms that the machine stood still, whether it counts as lost)."""

    goes: list[tuple[int, bool]]

    async def _call(self, row: Row) -> Placed:
        placed = a_call()
        placed.phone.phone.late_s = self.goes[0][0] / 1000
        return placed

    async def _judge(self, placed: Any) -> None:
        if self.goes.pop(0)[1]:
            placed[0].verdicts = [Verdict("silence", 3.0, "nothing")]


@pytest.mark.parametrize(
    ("goes", "again", "is_lost"),
    [
        ([(0, False)], 0, False),
        ([(LATE, False)], 0, False),
        ([(0, True)], 0, True),
        ([(LATE, True), (0, False)], 1, False),
        ([(LATE, True), (LATE, True), (0, True)], 2, True),
        ([(LATE, True)] * TRIES, TRIES - 1, True),
    ],
    ids=["good", "late and good", "lost in time", "late and lost, then good", "twice late, then lost in time", "always late and lost"],
)
async def test_a_loss_that_is_put_down_to_the_machine_is_counted(goes: list[tuple[int, bool]], again: int, *, is_lost: bool) -> None:
    told: list[str] = []
    laboratory = Staged(cast(Any, None), random.Random(1), told.append)
    laboratory.goes = list(goes)
    await laboratory._until_kept_time(ROW)
    (placed,) = laboratory.done
    assert laboratory.goes == []
    assert (placed.rung_again, bool(placed.verdicts)) == (again, is_lost)
    assert sum("rings again" in said for said in told) == again


async def test_a_call_remembers_when_its_process_was_made_to_stand_still_and_no_other_fault_as_that() -> None:
    placed, now = a_call(), asyncio.get_running_loop().time()
    by_nemesis = Met(placed, BLOWS[0], {}, 0.1)
    for line in (placed, by_nemesis):
        line.hit()
        assert len(placed.stopped_at) == (line is by_nemesis)
        line.hit(stands_still=True)
    assert placed.stopped_at == [pytest.approx(now, abs=1.0)] * 2


class Batched(Laboratory):
    """Of each batch so many are hit as the next of `hits` says."""

    hits: list[int]
    sizes: list[int]

    async def _batch(self, row: Row, size: int) -> int:
        self.sizes.append(size)
        return self.hits.pop(0)


@pytest.mark.parametrize(
    ("hits", "sizes", "expected"),
    [
        ([4, 4, 2], [4, 4, 2], 10),
        ([2, 2, 2, 2, 1, 1], [4, 4, 4, 4, 2, 1], 19),
        ([0, 0, 3, 0, 0, 0], [4] * 6, 31),
    ],
    ids=["all", "half of them", "nobody three times in a row: nobody will be"],
)
async def test_calls_are_placed_until_so_many_were_hit(hits: list[int], sizes: list[int], expected: int) -> None:
    laboratory = Batched(cast(Any, None), random.Random(1), print, at_once=4)
    laboratory.hits, laboratory.sizes = list(hits), []
    await laboratory.run([Row("C9", "kill -9", alone=True)], 10)
    assert (laboratory.sizes, laboratory.hits) == (sizes, [])
    assert laboratory.expected == expected


async def test_only_three_losses_of_one_kind_excuse_a_person_and_a_death_of_our_own_is_no_loss_of_the_agents() -> None:
    kill, freeze, reset = (
        next(each for each in BLOWS if each.name == name) for name in ("kill -9 of a child", "a child stands still", "Vapi's sockets reset")
    )
    placed, blows = a_call(), dict[tuple[str, bool], int]()
    healthy = []
    for blow in (kill, reset, freeze, reset, kill):
        Met(placed, blow, blows, 1.0).hit()
        healthy.append(placed.healthy)
    assert healthy == ["R1", "R1", "R1", "R1", "R3"]
    assert blows == {(placed.call_sid, True): 3, (placed.call_sid, False): 2}


@pytest.mark.parametrize(("has_agent", "healthy"), [(True, "R1"), (False, "R3")])
async def test_who_waits_for_an_agent_whose_create_is_broken_off_may_get_a_person(has_agent: bool, healthy: str) -> None:
    placed = a_call()
    reset = next(each for each in BLOWS if each.name == "Vapi's sockets reset")
    Met(placed, reset, {}, 0.1, has_agent).hit()
    assert placed.healthy == healthy


def blow(*, asks_again: bool) -> Blow:
    return next(each for each in BLOWS if each.asks_again is asks_again)


async def test_a_blow_may_swallow_answers_as_long_as_it_strikes_and_no_longer() -> None:
    placed, now = a_call(), asyncio.get_running_loop().time()
    Met(placed, blow(asks_again=False), {}, 8.0).hit()
    Met(placed, blow(asks_again=True), {}, -0.1).hit()  # who rings in the calm after it
    assert placed.answers_lost == []
    Met(placed, blow(asks_again=True), {}, 8.0).hit()
    ((begins, ends),) = placed.answers_lost
    assert begins == pytest.approx(now, abs=1.0)
    assert ends - begins == pytest.approx(8.0)


async def test_a_fault_that_swallows_the_answer_to_a_create_excuses_it_for_as_long_as_the_fault_lasts() -> None:
    placed, other, now = a_call(), a_call(), asyncio.get_running_loop().time()
    placed.row = replace(ROW, may_repeat_a_create=True, lasts_s=1.0)
    placed.hit()
    other.hit()
    ((begins, ends),) = placed.answers_lost
    assert begins == pytest.approx(now, abs=1.0)
    assert ends - begins == pytest.approx(1.0)
    assert other.answers_lost == []


async def test_a_wire_that_a_house_has_not_is_a_missed_strike_and_hits_nobody() -> None:
    ground: Any = SimpleNamespace(to_database=None)
    placed = a_call()
    with pytest.raises(MISSED):
        async with database_weather(Weather(refuse=True))(ground, [placed]):
            pass
    assert placed.struck_at is None
