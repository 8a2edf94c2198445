"""The database, Valkey, the worker and beat are away, in the real house: nobody on the line notices, and afterwards everything is
in its place, once. For longer, alone and in pairs: `test_parts_away`.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from bridge.sandbox.clips import CLIPS
from bridge.sandbox.faults import Faults
from bridge.sandbox.proxy import Weather
from bridge.sandbox.script import CUT_OFF, PERSON_PLEASE, PLAIN, Heard, Press, Scenario, Step
from bridge.sandbox.twilio import TwilioCall
from supportvoice.laboratory.ground import connected_to, valkey_at
from supportvoice.laboratory.runs import Ways
from tests.journeys.conftest import lived_in
from tests.journeys.house import LONGEST_S, OF_CALL, House
from tests.journeys.outage import Wire, nobody_can_read, nobody_can_write, of_nobody_special, read_only, rights_revoked
from tests.journeys.test_calls import heard, nothing_to_complain_of
from tests.journeys.test_demo import database as database
from tests.journeys.test_killed import COMES
from tests.journeys.test_rescued import serving

pytestmark = pytest.mark.journey

AWAY_S = 20.0
BACK_WITHIN_S = 10.0
LONG_AWAY_S = 30.0  # whoever looks ever more rarely would look again half a minute after two calls
FIRST_SOUND_MS = 1000
MADE_BY = f"SELECT r.claimed_by FROM calls_vapisession r {OF_CALL}"
STATE = f"SELECT r.state FROM calls_vapisession r {OF_CALL}"
ENDED_BY_US = "manually-canceled"  # Vapi's word for a call that was ended by its control address
PRESSES_0 = replace(PLAIN, name="presses_0", caller=(Step(Heard("greeting"), Press("0")),))
TALK = ["disclosure", "greeting", "opening_hours", "goodbye"]
SAID = [CLIPS[name].text for name in ("disclosure", "greeting", "ask_hours", "opening_hours", "no_thanks", "goodbye")]
EACH_ONCE = [(role, "full") for role in ("system", "assistant", "user", "assistant", "user", "assistant")]
IN_ORDER = ("call-received", "stream-started", "vapi-connected", "greeting-heard", "stream-closed", "call-ended")


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[House]:
    """A house of its own: the others share one, and their calls would suffer."""
    with lived_in(House(tmp_path_factory.mktemp("lonely"), django_db_blocker)) as house:
        yield house


def spooled(house: House) -> list[Path]:
    return [path for path in (house.directory / "spool").rglob("*") if path.suffix in (".spool", ".call")]


def words_of_calls(house: House) -> list[Path]:
    """What was said on them, for whoever takes one up."""
    return list((house.directory / "spool" / "said").iterdir())


def whole_and_once(house: House, phone: TwilioCall) -> None:
    """The caller missed nothing, and neither did we. Being asked for a moment is no miss: their own process makes the Vapi call then."""
    nothing_to_complain_of(phone)
    assert [clip for clip, _ in heard(phone) if clip != "one_moment"] == TALK
    house.settle(phone.call_sid)
    row = house.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("agent_ended", "resolved", "R0")
    lines = [line for line in house.lines(phone.call_sid) if line[0] != "system" or line[1] == SAID[0]]
    assert [(role, heard) for role, _, heard in lines] == EACH_ONCE
    assert [said for _, said, _ in lines] == SAID
    assert len(house.at_vapi(phone.call_sid)) == 1
    assert [kind for kind in house.kinds(phone.call_sid) if kind in IN_ORDER] == list(IN_ORDER)


def test_calls_that_are_on_and_calls_that_come_while_the_database_is_away(lonely: House) -> None:
    _, before = lonely.talk(PLAIN)
    with nobody_can_write(lonely.directory / "db.sqlite3"):
        started = time.monotonic()
        phones = [lonely.place(PLAIN).result(LONGEST_S)]
        while time.monotonic() - started < AWAY_S:
            phones.append(lonely.place(PLAIN).result(LONGEST_S))
        phones.append(before.result(LONGEST_S))
        assert spooled(lonely)
    back = time.monotonic()
    lonely.eventually(lambda: not spooled(lonely), within=BACK_WITHIN_S)
    print(f"{len(phones)} calls, all written down {time.monotonic() - back:.1f} s after the database was back")  # noqa: T201
    for phone in phones:
        whole_and_once(lonely, phone)
        assert "history-spooled" in lonely.kinds(phone.call_sid)


def test_whoever_loses_the_agent_while_the_database_is_away_gets_another_one(lonely: House) -> None:
    """The third one of a minute is not to be had: that caller gets a person."""
    once, ever = (Faults(sessions=sessions, dies_with=1011) for sessions in (1, None))
    known = len(lonely.phones)
    with nobody_can_write(lonely.directory / "db.sqlite3"):
        calls = [lonely.place(CUT_OFF, faults=faults, humans=COMES) for faults in (once, ever)]
        phone, unlucky = (call.result(LONGEST_S) for call in calls)
    assert len(lonely.phones) == known + 2
    lonely.eventually(lambda: not spooled(lonely), within=BACK_WITHIN_S)
    after = ["cut_off", "you_cannot_log_in", "goodbye"]
    assert [clip for clip, _ in heard(phone)][-3:] == after
    assert heard(unlucky)[-1][0] == "human_hello"
    for call, agents, rung in ((phone, 2, "R1"), (unlucky, 3, "R3")):
        lonely.settle(call.call_sid)
        assert lonely.row(call.call_sid)["rung"] == rung
        assert [at_vapi.name for at_vapi in lonely.at_vapi(call.call_sid)] == [f"{call.call_sid}.{n}" for n in range(agents)]
        assert lonely.kinds(call.call_sid).count("conversation-lost") == agents - 1
    said = [text for _, text, _ in lonely.lines(phone.call_sid)]
    assert [said.count(CLIPS[name].text) for name in ("greeting", *after)] == [1, 1, 1, 1]


def rang_before(house: House) -> tuple[TwilioCall, Future[TwilioCall]]:
    """A call that has been answered from its row, and has an agent who waits for it while the caller hears the disclosure."""
    known = len(house.phones)
    calling = house.place(PLAIN)
    house.eventually(lambda: len(house.phones) > known)
    phone = house.phones[known]
    house.wait(phone.wait_for("say"))
    house.eventually(lambda: house.one(STATE, phone.call_sid) == "live")
    return phone, calling


def greeted_and_not_told_of_any_cut(house: House, phone: TwilioCall) -> None:
    """Nobody came for the agent that waited, and it did not wait for long."""
    sid = phone.call_sid
    house.settle(sid)
    nothing_to_complain_of(phone)
    assert len(phone.streams) == 1
    assert [clip for clip, _ in heard(phone) if clip != "one_moment"] == TALK
    row, kinds = house.row(sid), house.kinds(sid)
    assert (row["end_reason"], row["outcome"], row["rung"], row["epoch"]) == ("agent_ended", "resolved", "R0", 0)
    assert "conversation-lost" not in kinds
    assert [kind for kind in kinds if kind in IN_ORDER] == list(IN_ORDER)
    unheard, talked = sorted(house.at_vapi(sid), key=lambda call: len(call.name))
    assert (unheard.name, unheard.turns, unheard.ended_reason) == (f"{sid}.0", None, ENDED_BY_US)
    assert talked.name == f"{sid}.50"
    said = [text for role, text, _ in house.lines(sid) if role != "system"]
    assert said == SAID[1:]


def test_a_caller_who_rang_just_before_nobody_could_read_the_database_is_greeted_as_ever(
    tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> None:
    """In a house that has carried no call: its streams' threads have no connection yet, and one that is open can be read from."""
    with lived_in(House(tmp_path, django_db_blocker)) as house:
        phone, calling = rang_before(house)
        with nobody_can_read(house.directory / "db.sqlite3"):
            calling.result(LONGEST_S)
            assert spooled(house)
        house.eventually(lambda: not spooled(house), within=BACK_WITHIN_S)
        greeted_and_not_told_of_any_cut(house, phone)


@pytest.mark.load
@pytest.mark.parametrize("after_the_stream", ["next_verb", "stay"])
def test_a_process_that_is_killed_while_the_database_is_away_leaves_its_spool_to_the_next(lonely: House, after_the_stream: str) -> None:
    """Its callers have the agent again, who knows what was said, and what was told before the kill stands in its place, once."""
    line = Ways()
    with nobody_can_write(lonely.directory / "db.sqlite3"):
        phone, calling = lonely.talk(CUT_OFF, web=line, humans=COMES, on_abnormal_close=after_the_stream)
        wish = CLIPS["cannot_log_in"].text.encode()
        lonely.eventually(lambda: any(wish in path.read_bytes() for path in spooled(lonely)))
        (carrier,) = connected_to(line.port, serving(lonely))
        os.kill(carrier, signal.SIGKILL)
        calling.result(LONGEST_S)
        assert spooled(lonely)
    lonely.eventually(lambda: not spooled(lonely), within=LONGEST_S)
    assert [clip for clip, _ in heard(phone)][-3:] == ["cut_off", "you_cannot_log_in", "goodbye"]
    lonely.settle(phone.call_sid)
    lonely.eventually(lambda: "history-spooled" in lonely.kinds(phone.call_sid))
    row, kinds = lonely.row(phone.call_sid), lonely.kinds(phone.call_sid)
    assert (row["end_reason"], row["rung"], row["epoch"]) == ("agent_ended", "R1", 1)
    assert (kinds.count("stream-started"), kinds.count("greeting-heard"), kinds.count("conversation-lost")) == (2, 2, 1)
    assert [call.name for call in lonely.at_vapi(phone.call_sid)] == [f"{phone.call_sid}.0", f"{phone.call_sid}.100"]
    said = [text for _, text, _ in lonely.lines(phone.call_sid) if text != CLIPS["one_moment"].text]
    assert said[:2] == SAID[:2]
    assert [said.count(CLIPS[name].text) for name in ("greeting", "cannot_log_in", "cut_off", "goodbye")] == [1, 1, 1, 1]
    lonely.eventually(lambda: not words_of_calls(lonely), within=LONGEST_S)


@pytest.mark.load
@pytest.mark.parametrize("scenario", [PERSON_PLEASE, PRESSES_0], ids=["asks the agent", "presses 0"])
def test_whoever_wants_a_person_while_the_database_is_away_gets_one(lonely: House, scenario: Scenario) -> None:
    with nobody_can_write(lonely.directory / "db.sqlite3"):
        phone = lonely.place(scenario, humans=COMES).result(LONGEST_S)
    lonely.eventually(lambda: not spooled(lonely), within=BACK_WITHIN_S)
    assert heard(phone)[-1][0] == "human_hello"
    lonely.settle(phone.call_sid)
    row = lonely.row(phone.call_sid)
    assert (row["end_reason"], row["outcome"], row["rung"]) == ("human_ended", "handed_over", "R3")
    assert len(lonely.at_vapi(phone.call_sid)) == 1


@pytest.mark.load
def test_calls_without_valkey_worker_and_beat(lonely: House) -> None:
    """One is on when Valkey stands still and both of Celery's processes are killed, one comes afterwards; then Valkey forgets all."""
    _, on = lonely.talk(PLAIN)
    stopped = valkey_at(lonely.stack.valkey_socket)
    assert stopped
    for name in ("worker", "beat"):
        lonely.wait(lonely.stack.kill(name))
    os.kill(stopped, signal.SIGSTOP)
    try:
        phones = [lonely.place(PLAIN).result(LONGEST_S), on.result(LONGEST_S)]
    finally:
        os.kill(stopped, signal.SIGCONT)
        for name in ("worker", "beat"):
            lonely.wait(lonely.stack.begin(name))
    _, flushed = lonely.talk(PLAIN)
    assert told_valkey(lonely, "FLUSHALL") == "+OK"
    for phone in [*phones, flushed.result(LONGEST_S)]:
        whole_and_once(lonely, phone)


def told_valkey(house: House, *commands: str) -> str:
    """What it answered to the last of these."""
    answer = ""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(house.stack.valkey_socket))
        for command in commands:
            asking.sendall(f"{command}\r\n".encode())
            answer = asking.recv(200).decode().rstrip()
    return answer


@contextmanager
def full_valkey(house: House) -> Iterator[None]:
    """It answers, lets itself be read, and takes nothing."""
    refused = told_valkey(house, "CONFIG SET maxmemory-policy noeviction", "CONFIG SET maxmemory 1", "SET anything 1")
    assert refused.startswith("-OOM")
    try:
        yield
    finally:
        assert told_valkey(house, "CONFIG SET maxmemory 256mb") == "+OK"


@pytest.mark.load
def test_calls_while_valkey_is_full(lonely: House) -> None:
    """One is on when Valkey begins to refuse every write, two come meanwhile; when it takes some again the worker works again."""
    _, on = lonely.talk(PLAIN)
    with full_valkey(lonely):
        phones = [lonely.place(PLAIN).result(LONGEST_S), lonely.place(PLAIN).result(LONGEST_S), on.result(LONGEST_S)]
    last = lonely.place(PLAIN).result(LONGEST_S)
    for phone in (*phones, last):
        whole_and_once(lonely, phone)
        assert phone.first_sound_ms is not None
        assert phone.first_sound_ms <= FIRST_SOUND_MS
    assert [lonely.one(MADE_BY, phone.call_sid) for phone in (*phones[:2], last)] == ["consumer", "consumer", "worker"]


@pytest.mark.load
@pytest.mark.postgres
@pytest.mark.timeout(300)
def test_calls_while_postgresql_says_nothing_and_while_it_refuses(
    tmp_path: Path, database: str, django_db_blocker: DjangoDbBlocker, request: pytest.FixtureRequest
) -> None:
    """Of either, one call is on when it begins, and two come meanwhile; afterwards no process takes the database for away any more."""
    wire = Wire(database)
    request.addfinalizer(wire.close)
    house = House(tmp_path, django_db_blocker, database_url=wire.url)
    request.addfinalizer(house.stop)
    house.start()
    for weather in (Weather(up_dead=True, down_dead=True), Weather(refuse=True)):
        _, on = house.talk(PLAIN)
        with wire.weather(weather):
            began = time.monotonic()
            phones = [house.place(PLAIN).result(LONGEST_S), on.result(LONGEST_S)]
            while time.monotonic() - began < LONG_AWAY_S:
                phones.append(house.place(PLAIN).result(LONGEST_S))
            assert spooled(house)
        house.eventually(lambda: not spooled(house) and known_to_be_back(house), within=BACK_WITHIN_S)
        for phone in phones:
            whole_and_once(house, phone)
            assert "history-spooled" in house.kinds(phone.call_sid)


def known_to_be_back(house: House) -> bool:
    """To each process that found the database away."""
    logs = house.logs()
    return 0 < logs.count("The database is away;") == logs.count("The database is back")


@pytest.mark.load
@pytest.mark.postgres
def test_a_caller_who_rang_just_before_postgresql_refused_is_greeted_as_ever(
    tmp_path: Path, database: str, django_db_blocker: DjangoDbBlocker, request: pytest.FixtureRequest
) -> None:
    wire = Wire(database)
    request.addfinalizer(wire.close)
    with lived_in(House(tmp_path, django_db_blocker, database_url=wire.url)) as house:
        phone, calling = rang_before(house)
        with wire.weather(Weather(refuse=True)):
            calling.result(LONGEST_S)
            assert spooled(house)
        house.eventually(lambda: not spooled(house), within=BACK_WITHIN_S)
        greeted_and_not_told_of_any_cut(house, phone)


TAKES_NOTHING: dict[str, Callable[[str, str], AbstractContextManager[None]]] = {
    "is read-only": read_only,
    "lets nobody write": partial(rights_revoked, rights="INSERT, UPDATE, DELETE"),
    "lets nobody read or write": partial(rights_revoked, rights="ALL"),
}


@pytest.mark.load
@pytest.mark.postgres
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", TAKES_NOTHING)
def test_a_postgresql_that_answers_and_takes_nothing_is_as_good_as_away(
    tmp_path: Path, database: str, django_db_blocker: DjangoDbBlocker, how: str
) -> None:
    """One call is on when it begins, and one comes meanwhile."""
    server = os.environ["TEST_POSTGRES_URL"]
    with of_nobody_special(server, database) as url, lived_in(House(tmp_path, django_db_blocker, database_url=url)) as house:
        _, on = house.talk(PLAIN)
        with TAKES_NOTHING[how](server, url):
            phones = [house.place(PLAIN).result(LONGEST_S), on.result(LONGEST_S)]
            assert spooled(house)
        house.eventually(lambda: not spooled(house), within=LONGEST_S)  # after a cut the pool tries again ever more rarely
        for phone in phones:
            whole_and_once(house, phone)
            assert "history-spooled" in house.kinds(phone.call_sid)
