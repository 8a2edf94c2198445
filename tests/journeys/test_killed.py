"""Processes that are killed without a word (`kill -9`) while they have a call in hand: the caller is looked after, nothing stays open.

What carries a call is found by its sockets, as an operator would find it. When the process dies, the kernel closes them: Twilio
sees its stream end without a close frame, and goes on with the next verb of the document.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bridge.sandbox import vapi as sandbox_vapi
from bridge.sandbox.dial import Human
from bridge.sandbox.faults import Faults
from bridge.sandbox.media import Pipe
from bridge.sandbox.outcome import LOST_AFTER_S, longest_silence
from bridge.sandbox.script import PLAIN, TECHFLOW
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.web import Internet, SocketPipe
from supportvoice.demo import COLLEAGUE
from tests.journeys.house import LONGEST_S, House
from tests.journeys.test_calls import heard

pytestmark = [pytest.mark.journey, pytest.mark.load]

COMES = {COLLEAGUE: Human(rings_s=0.5, talks_s=1.0)}
ESTABLISHED = "01"
ORPHANS_S = 60.0  # what nobody holds is ended within this
ENDED_BY_US = "manually-canceled"  # Vapi's word for a call that was ended by its control address

Look = Callable[[str], TwilioCall]


# -- who is who ----------------------------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


class KnownSocket(Internet):
    """The network, with the port from which the media stream was opened."""

    port = 0

    async def socket(self, url: str, headers: Mapping[str, str]) -> Pipe:
        pipe = await super().socket(url, headers)
        assert isinstance(pipe, SocketPipe)
        self.port = pipe.port
        return pipe


Kill = Callable[[House, str, KnownSocket], None]


def connected_to(port: int, pids: list[int]) -> list[int]:
    """Those of the processes that hold an open connection to this port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{line[9]}]" for line in lines if line[2].endswith(f":{port:04X}") and line[3] == ESTABLISHED}
    return [pid for pid in pids if sockets & set(descriptors(pid))]


def descriptors(pid: int) -> Iterator[str]:
    with suppress(FileNotFoundError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                yield os.readlink(f"/proc/{pid}/fd/{number}")


def serving(house: House) -> list[int]:
    return children(house.stack.members["serve"].process.pid)


# -- the killing ---------------------------------------------------------------------------------------------------------


def the_child_that_carries_it(house: House, call_sid: str, line: KnownSocket) -> None:
    """In the middle of the agent's answer; the other child lives on."""
    phone = next(each for each in house.phones if each.call_sid == call_sid)
    house.wait(phone.wait_for("caller-says", within=LONGEST_S))
    time.sleep(2.5)
    (carrier,) = connected_to(line.port, serving(house))
    os.kill(carrier, signal.SIGKILL)


def the_worker_that_creates_it(house: House, call_sid: str, line: KnownSocket) -> None:
    """Its pool, both processes: one of them has asked Vapi and waits for the answer."""
    house.eventually(lambda: house.vapi.asked[call_sid] == 1, within=LONGEST_S)
    for pid in children(house.stack.members["worker"].process.pid):
        os.kill(pid, signal.SIGKILL)


def placed(house: House, kill: Kill, **how: Any) -> Future[TwilioCall]:
    """A call of which `kill` took a process."""
    known, line = len(house.phones), KnownSocket()
    calling = house.place(**how, humans=COMES, web=line)
    house.eventually(lambda: len(house.phones) > known)
    kill(house, house.phones[known].call_sid, line)
    return calling


@pytest.fixture(scope="module")
def look(house: House) -> Iterator[Look]:
    """The call whose worker, or whose serving child, was killed; once it is over and the house has settled."""
    killings: dict[str, Callable[[], Future[TwilioCall]]] = {
        "worker": lambda: placed(house, the_worker_that_creates_it, scenario=PLAIN, faults=Faults(create_delay_s=2.0)),
        "child": lambda: placed(house, the_child_that_carries_it, scenario=TECHFLOW),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox_vapi, "CONNECT_WITHIN_S", 300.0)  # a call that nobody connects to is ours to end, not the vendor's
        calls = {}
        for name, killing in killings.items():  # what is left of the first is cleared up during the second
            calls[name] = killing()
            calls[name].result(LONGEST_S)
        yield lambda name: house.on_time(calls[name], again=killings[name], within=ORPHANS_S).result()


# -- the promises --------------------------------------------------------------------------------------------------------


def test_a_serving_process_that_is_killed_mid_call_costs_its_caller_nothing_but_the_agent(house: House, look: Look) -> None:
    phone = look("child")
    (stream,) = phone.streams
    assert (stream.end, stream.close_code) == ("broken", 1006)
    assert heard(phone)[-1][0] == "human_hello"
    assert longest_silence(phone)[0] <= LOST_AFTER_S
    assert [dial.bridged for dial in phone.dials] == [True]
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("human_ended", "handed_over", "R3")
    (session,) = house.at_vapi(phone.call_sid)
    assert session.public["endedAt"]
    house.eventually(lambda: len(serving(house)) == house.stack.workers, within=LONGEST_S)  # the parent has started another


def test_a_worker_that_is_killed_while_it_creates_a_session_leaves_neither_a_waiting_caller_nor_an_open_vapi_call(
    house: House, look: Look
) -> None:
    phone = look("worker")
    assert heard(phone)[-1][0] == "human_hello"
    assert longest_silence(phone)[0] <= LOST_AFTER_S
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("human_ended", "handed_over", "R3")
    (orphan,) = house.at_vapi(phone.call_sid)
    assert (orphan.ended_reason, orphan.turns) == (ENDED_BY_US, None)
    assert "vapi-orphan-ended" in house.kinds(phone.call_sid)
