"""Processes that die, stand still or leave with callers on them: each caller goes on with the AI, which knows what was said.

Whoever carries a call is found by its socket. What is struck is struck while the agent speaks. After a stream that ended without a
close frame Twilio goes on with the next verb, or stays with the caller on the dead stream: nobody has proven which, so both must do.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pytest_django import DjangoDbBlocker

from bridge.sandbox.dial import Human
from bridge.sandbox.outcome import LOST_AFTER_S, longest_silence
from bridge.sandbox.proxy import Proxy, Weather
from bridge.sandbox.script import TECHFLOW
from bridge.sandbox.twilio import STALLED_MS, TwilioCall
from calls import resuming
from supportvoice.demo import COLLEAGUE
from supportvoice.laboratory.databases import OnPostgresql
from supportvoice.laboratory.ground import children, connected_to
from supportvoice.laboratory.person import Person
from supportvoice.laboratory.runs import Ways
from tests.journeys.conftest import lived_in
from tests.journeys.house import LONGEST_S, House
from tests.journeys.test_calls import heard
from tests.journeys.test_demo import database as database

pytestmark = [pytest.mark.journey, pytest.mark.alone]

GOES_ON, STAYS = "next_verb", "stay"
WITHIN_S = {GOES_ON: 3.0, STAYS: 4.0}
FROZEN_WITHIN_S = 4.5
TRIES = 3
GAP_S = 2.0


@dataclass
class OnTheLine:
    """A caller the agent is speaking to, and the moment their process was struck."""

    mode: str
    phone: TwilioCall
    ways: Ways
    calling: Future[TwilioCall]
    struck_at: float = 0.0

    def is_answered(self) -> bool:
        """The agent has begun to speak since the caller first did."""
        whats = [moment.what for moment in list(self.phone.timeline)]
        return "hears-speech" in whats[whats.index("caller-says") :]

    def moved_s(self) -> float | None:
        """From the strike until another process had the caller."""
        after = [stream.started_at for stream in list(self.phone.streams)[1:] if stream.started_at]
        return after[0] - self.struck_at if after else None

    def served_s(self) -> float:
        """From the strike until the next agent's first words, or until its caller, whose next sentence is due then too, cut them off."""
        words = [final.started_at for final in self.phone.heard if final.clip_name == "cut_off"]
        cuts = [moment.at for moment in self.phone.timeline if moment.what == "clear" and moment.at > self.struck_at]
        assert words or cuts, f"{self.mode}: " + ", ".join(f"{each.what} {each.at - self.struck_at:.2f}" for each in self.phone.timeline)
        return min(words or cuts) - self.struck_at


def serving(house: House) -> list[int]:
    return children(house.stack.members["serve"].process.pid)


@contextmanager
def standing_still(pids: Sequence[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # who stands still for long is ended by its parent
                os.kill(pid, signal.SIGCONT)


def nobody_else(house: House, others: Sequence[int]) -> AbstractContextManager[None]:
    """Only who is left takes what comes; and the parent, which would replace those who stand still, looks away."""
    return standing_still([house.stack.members["serve"].process.pid, *others])


def placed(house: House, mode: str) -> OnTheLine:
    ways = Ways()
    phone, calling = house.dial(TECHFLOW, caller=Person(), web=ways, on_abnormal_close=mode)
    return OnTheLine(mode, phone, ways, calling)


def on_one_child(house: House, *modes: str) -> tuple[int, list[OnTheLine]]:
    """A call in each mode, all carried by one child, the agent in its long answer."""
    house.eventually(lambda: len(serving(house)) == house.stack.workers, within=LONGEST_S)
    carrier, *others = serving(house)
    with nobody_else(house, others):  # they end themselves when they wake, and are replaced
        lines = [placed(house, mode) for mode in modes]
        house.eventually(lambda: all(line.ways.port and connected_to(line.ways.port, [carrier]) for line in lines))
    for line in lines:
        house.wait(line.phone.wait_for("caller-says", within=LONGEST_S))
    house.eventually(lambda: all(line.is_answered() for line in lines), within=LONGEST_S)
    house.eventually(lambda: len(serving(house)) == house.stack.workers, within=LONGEST_S)
    return carrier, lines


def struck(
    house: House,
    strike: Callable[[House, int, Sequence[OnTheLine]], None],
    *modes: str,
    on: Callable[..., tuple[int, list[OnTheLine]]] = on_one_child,
) -> list[OnTheLine]:
    """The calls, over and settled; placed again when this machine did not keep their time."""
    for tries_left in reversed(range(TRIES)):
        carrier, lines = on(house, *modes)
        for line in lines:
            line.struck_at = time.monotonic()
        strike(house, carrier, lines)
        for line in lines:
            house.settle(line.calling.result(LONGEST_S).call_sid)
        if all(line.phone.late_ms <= STALLED_MS for line in lines) or not tries_left:
            break
        print("The machine stood still: the calls are placed again")  # noqa: T201
    return lines


def went_on_with_the_agent(house: House, line: OnTheLine, *, event: str = "conversation-lost") -> None:
    phone = line.phone
    clips = [name for name, _ in heard(phone)]
    assert clips.count("greeting") == 1
    assert {"you_cannot_log_in", "account_locked"} & set(clips)  # said by who knows what the first agent was told
    assert phone.dials == []
    assert longest_silence(phone)[0] <= LOST_AFTER_S
    row, kinds = house.row(phone.call_sid), house.kinds(phone.call_sid)
    assert (row["end_reason"], row["rung"], row["epoch"]) == ("agent_ended", "R1", 1)
    assert kinds.count(event) == 1
    assert len([session for session in house.at_vapi(phone.call_sid) if session.public["endedAt"]]) == 2


def lost_no_agent(house: House, line: OnTheLine) -> None:
    """It is written down as the death of our own process, which leads no rung down."""
    assert [detail["raw"] for kind, detail in house.events(line.phone.call_sid) if kind == "conversation-lost"] == [resuming.GONE]


# -- what is done to them ------------------------------------------------------------------------------------------------


def killed(house: House, carrier: int, lines: Sequence[OnTheLine]) -> None:
    os.kill(carrier, signal.SIGKILL)


def frozen(house: House, carrier: int, lines: Sequence[OnTheLine]) -> None:
    """Until the last of its callers is with another."""
    with standing_still([carrier]):
        house.eventually(lambda: all(line.moved_s() is not None for line in lines), within=LONGEST_S)


def frozen_behind_a_lock(database: str, house: House, carrier: int, lines: Sequence[OnTheLine]) -> None:
    """Nobody reads a lease meanwhile: somebody has every table of the PostgreSQL, as a migration does."""
    with OnPostgresql(os.environ["TEST_POSTGRES_URL"], urlsplit(database).path.lstrip("/")).locked():
        for line in lines:
            line.struck_at = time.monotonic()
        frozen(house, carrier, lines)


def told_to_leave(house: House, carrier: int, lines: Sequence[OnTheLine]) -> None:
    os.kill(carrier, signal.SIGTERM)


# -- the promises --------------------------------------------------------------------------------------------------------


def test_callers_of_a_process_that_is_killed_go_on_with_the_agent_whether_twilio_goes_on_or_stays(house: House) -> None:
    for line in struck(house, killed, GOES_ON, STAYS):
        went_on_with_the_agent(house, line)
        lost_no_agent(house, line)
        assert line.served_s() <= WITHIN_S[line.mode]
        assert line.phone.streams[0].end == "broken"
        rescued = [detail["how"] for kind, detail in house.events(line.phone.call_sid) if kind == "call-rescued"]
        assert rescued == ["redirected"] if line.mode == STAYS else "redirected" not in rescued


def test_a_caller_on_a_stream_that_is_dead_one_way_goes_on_on_the_next_one_or_with_a_person_if_that_is_dead_too(house: House) -> None:
    """Nothing gets to Twilio on the first stream of one call; nothing gets to us on any stream of another."""
    once, always = on_a_bad_wire(house, only_once=True), on_a_bad_wire(house, only_once=False)
    for line, wire, way in ((*once, Weather(down_dead=True)), (*always, Weather(up_dead=True))):
        house.wait(line.phone.wait_for("caller-says", within=LONGEST_S))
        house.eventually(line.is_answered, within=LONGEST_S)
        wire.weather = way
    for line, wire in (once, always):
        house.settle(line.calling.result(LONGEST_S).call_sid)
        house.wait(wire.__aexit__(None, None, None))
        assert longest_silence(line.phone)[0] <= LOST_AFTER_S
    went_on_with_the_agent(house, once[0])
    assert [attempt.bridged for attempt in always[0].phone.dials] == [True]
    assert house.row(always[0].phone.call_sid)["rung"] == "R3"


def on_a_bad_wire(house: House, *, only_once: bool) -> tuple[OnTheLine, Proxy]:
    """A call whose streams, or the first of them, go through a proxy of their own."""
    wire = Proxy(("127.0.0.1", house.stack.port))
    house.wait(wire.__aenter__())
    ways = Ways(tunnel={house.stack.url: f"http://127.0.0.1:{wire.port}"}, only_once=only_once)
    phone, calling = house.dial(TECHFLOW, caller=Person(), web=ways, humans={COLLEAGUE: Human(rings_s=1.0, talks_s=2.0)})
    return OnTheLine(GOES_ON, phone, ways, calling), wire


def went_to_another_process(house: House, line: OnTheLine) -> None:
    """In time, with no AI lost, and the one that stood still has written nothing of it since."""
    went_on_with_the_agent(house, line)
    lost_no_agent(house, line)
    moved_s = line.moved_s()
    assert moved_s is not None
    assert moved_s <= FROZEN_WITHIN_S
    closed = [detail for kind, detail in house.events(line.phone.call_sid) if kind == "stream-closed"]
    assert [detail["why"] for detail in closed] == ["agent-ended"]


@pytest.mark.load
def test_a_process_that_stands_still_loses_its_callers_to_another_and_writes_nothing_when_it_wakes(house: House) -> None:
    (line,) = struck(house, frozen, STAYS)
    went_to_another_process(house, line)
    house.eventually(lambda: len(serving(house)) == house.stack.workers, within=LONGEST_S)


@pytest.mark.load
@pytest.mark.postgres
@pytest.mark.timeout(300)
def test_a_process_that_stands_still_while_nobody_can_read_a_row_loses_its_callers_to_another_as_soon(
    tmp_path: Path, database: str, django_db_blocker: DjangoDbBlocker
) -> None:
    with lived_in(House(tmp_path, django_db_blocker, database_url=database)) as house:
        lines = struck(house, partial(frozen_behind_a_lock, database), STAYS, GOES_ON)
        for line in lines:
            went_to_another_process(house, line)


@pytest.mark.load
def test_a_process_that_leaves_hands_its_callers_on_between_two_sentences_and_nobody_hears_of_it(house: House) -> None:
    for line in struck(house, told_to_leave, GOES_ON, STAYS):
        went_on_with_the_agent(house, line, event="conversation-handed-on")
        first, second = line.phone.streams
        assert not {"cut_off", "trouble"} & {final.clip_name for final in line.phone.heard}
        assert ("ask_email", True) in heard(line.phone)  # what the agent was saying was heard to its end
        assert first.ended_at is not None
        assert second.started_at - first.ended_at <= GAP_S
        assert "conversation-lost" not in house.kinds(line.phone.call_sid)
