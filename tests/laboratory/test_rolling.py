"""Whom a rolling restart meets, and in which order a house is restarted."""

from __future__ import annotations

import asyncio
import random
import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.sandbox.twilio import TwilioCall
from supportvoice.laboratory import rolling
from supportvoice.laboratory.person import Person
from supportvoice.laboratory.rolling import ROW, Rolling
from supportvoice.laboratory.runs import Placed
from supportvoice.stack import StackFailed

SERVES = {"serve": ("127.0.0.1", 1), "beside": ("127.0.0.1", 2)}
CARRIED_BY = {11: SERVES["serve"], 22: SERVES["beside"]}


class Household:
    """What `Rolling` does to a stack, in its order; `stuck` is who does not leave."""

    def __init__(self, stuck: str = "") -> None:
        self.done: list[str] = []
        self.stuck = stuck

    def programs(self) -> list[str]:
        return ["serve", "beside", "worker", "beat"]

    async def kill(self, name: str, sig: signal.Signals) -> None:
        self.done.append(f"{name} gets {sig.name}")
        if name == self.stuck:
            await asyncio.Event().wait()

    async def begin(self, name: str) -> None:
        self.done.append(f"{name} begins")

    async def until(self, what: str, ready: Any, *, within: float) -> None:
        self.done.append(what)


def a_rolling(stack: Household | None = None) -> Rolling:
    front = SimpleNamespace(server_of=CARRIED_BY.get)
    ground = SimpleNamespace(serves=lambda: SERVES, front=front, stack=stack or Household())
    return Rolling(cast(Any, ground), random.Random(1), print)


def on_the_line(port: int) -> Placed:
    phone = TwilioCall(webhook_url="http://house/", auth_token="key", caller=Person(), web=cast(Any, None))
    return Placed(ROW, phone, cast(Any, SimpleNamespace(port=port)), "R0")


async def test_a_serve_that_leaves_meets_its_callers_and_who_is_between_two_streams_or_rings_before_that_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rolling, "KNOWN_AFTER_S", 0.0)
    played = a_rolling()
    its_own, anothers, between, rings, rings_later = (on_the_line(port) for port in (11, 22, 33, 0, 0))
    played.up = [its_own, anothers, between]
    played._strike_serve("serve")
    with played._is_up(rings):
        await asyncio.sleep(0.01)
        with played._is_up(rings_later):
            pass
    met = {"its own": its_own, "another's": anothers, "between": between, "rings": rings, "rings later": rings_later}
    assert [name for name, each in met.items() if each.struck_at is not None] == ["its own", "between", "rings"]
    assert {each.healthy for each in (its_own, between, rings)} == {"R1"}
    assert {each.healthy for each in (anothers, rings_later)} == {"R0"}


async def test_each_process_leaves_and_is_back_before_the_next_one_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "APART_S", 0.0)
    stack = Household()
    played = a_rolling(stack)
    await played._restart_all()
    names = stack.programs()
    assert stack.done == [said for name in names for said in (f"{name} gets SIGTERM", f"{name} begins", f"{name} is back")]
    assert len(played.restarts_s) == 1


async def test_who_does_not_leave_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "LEAVES_WITHIN_S", 0.01)
    with pytest.raises(StackFailed, match="worker did not leave"):
        await a_rolling(Household(stuck="worker"))._restart("worker")
