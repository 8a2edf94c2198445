"""A worker that is killed without a word (`kill -9`) while it has a call in hand: the caller is looked after, nothing stays open.

Serving processes that die, and what becomes of their callers, are `test_rescued`'s.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from bridge.sandbox import vapi as sandbox_vapi
from bridge.sandbox.dial import Human
from bridge.sandbox.faults import Faults
from bridge.sandbox.outcome import LOST_AFTER_S, longest_silence
from bridge.sandbox.script import PLAIN
from bridge.sandbox.twilio import TwilioCall
from supportvoice.demo import COLLEAGUE
from supportvoice.laboratory.ground import children
from tests.journeys.house import LONGEST_S, House
from tests.journeys.test_calls import heard

pytestmark = [pytest.mark.journey, pytest.mark.load]

COMES = {COLLEAGUE: Human(rings_s=0.5, talks_s=1.0)}
ORPHANS_S = 60.0  # what nobody holds is ended within this
ENDED_BY_US = "manually-canceled"  # Vapi's word for a call that was ended by its control address


def kill_the_worker_that_creates_it(house: House, call_sid: str) -> None:
    """Its pool, both processes: one of them has asked Vapi and waits for the answer."""
    house.eventually(lambda: house.vapi.asked[call_sid] == 1, within=LONGEST_S)
    for pid in children(house.stack.members["worker"].process.pid):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def phone(house: House) -> Iterator[TwilioCall]:
    """The call whose worker was killed; once it is over and the house has settled."""

    def placed() -> Future[TwilioCall]:
        phone, calling = house.dial(PLAIN, faults=Faults(create_delay_s=2.0), humans=COMES)
        kill_the_worker_that_creates_it(house, phone.call_sid)
        return calling

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox_vapi, "CONNECT_WITHIN_S", 300.0)  # a call that nobody connects to is ours to end, not the vendor's
        yield house.on_time(placed(), again=placed, within=ORPHANS_S).result()


def test_a_worker_that_is_killed_while_it_creates_a_session_leaves_neither_a_waiting_caller_nor_an_open_vapi_call(
    house: House, phone: TwilioCall
) -> None:
    assert heard(phone)[-1][0] == "human_hello"
    assert longest_silence(phone)[0] <= LOST_AFTER_S
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("human_ended", "handed_over", "R3")
    (orphan,) = house.at_vapi(phone.call_sid)
    assert (orphan.ended_reason, orphan.turns) == (ENDED_BY_US, None)
    assert "vapi-orphan-ended" in house.kinds(phone.call_sid)
