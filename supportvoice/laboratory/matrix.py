"""Which faults there are: one `Row` a way to inject one, by the ids of the fault table (P before a call stands, C in it, E after it).

`healthy` is the highest rung that the fault leaves standing; with `leads_there` nobody may stand on a higher one either. A row that
is `alone` strikes the house or the account at Vapi, so that all calls of that moment are its calls; the others are faults of one phone
call, many at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

from bridge.sandbox import malformed
from bridge.sandbox.faults import NO_CLOSE_FRAME, RESET, Faults
from bridge.sandbox.proxy import Weather
from supportvoice.laboratory import strikes
from supportvoice.laboratory.databases import POSTGRESQL, SQLITE
from supportvoice.laboratory.strikes import Strike

MID_S = 4.0  # into the call after the caller's first words: in the middle of the agent's long answer
OUTAGE_S = 20.0
FOUND_OUT_S = 3.0  # by then a process knows that its database is away
REST_AWAY_S = 2.0  # the rescuer's first two tries are refused, after 0.9 and 1.4 s; the third, a second later, comes in time
NEXT_VERB, STAYS = "next_verb", "stay"


class House(NamedTuple):
    """What it has that the usual one has not."""

    is_doubled: bool = False  # two `serve` with a balancer in front
    has_backup: bool = False  # a second account at Vapi
    is_wired: bool = False  # a network of ours on the way to PostgreSQL


USUAL, DOUBLED = House(), House(is_doubled=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One way to inject one fault.

    `vapi` are switches of the sandbox Vapi, `twilio` arguments of the phone. `strike` is done to the house for `lasts_s`, before the calls
    are placed (`mid` False) or MID_S after the first caller spoke. `wire` is the network of each call from then on, for `lasts_s`: of all
    its streams, or of the `first_stream_only`. `past_the_balancer`: that leads to the first `serve` of two, whatever became of it since, as
    with a balancer that does not know it yet; only those whom it refuses are hit. `not_here` says why this machine cannot do it, on
    SQLITE or POSTGRESQL; empty when it can.
    """

    id: str
    says: str
    how: str = ""
    vapi: Mapping[str, Any] = field(default_factory=dict)
    twilio: Mapping[str, Any] = field(default_factory=dict)
    healthy: str = "R0"
    strike: Strike | None = None
    wire: Weather | None = None
    first_stream_only: bool = False
    mid: bool = True
    rings_first: bool = False  # the strike waits for what the calls make the house do
    lasts_s: float = 0.0
    alone: bool = False
    breaks_stream: bool = False
    refuses_streams: int = 0
    asks_for_person: bool = False
    person: str = "answer"  # what becomes of a colleague's telephone
    leaves: bool = False
    may_repeat_a_create: bool = False
    in_a_second: int = 0  # so many callers at once, whatever else was asked for
    house: House = USUAL  # the one it needs; rows of the same one are played together
    leads_there: bool = False  # to the healthy rung: who is met and stands higher was not met, or it is told wrongly
    in_good_order: bool = False  # the process that is struck has time to leave: nobody's stream may break off
    one_is_there: bool = False  # one more caller is on the line before the strike, as a witness of it
    past_the_balancer: bool = False
    not_here: Callable[[str], str] = lambda database: ""

    @property
    def name(self) -> str:
        return f"{self.id} {self.how}".strip()

    def faults(self) -> Faults:
        return Faults(**self.vapi)


def _vapi(id: str, says: str, healthy: str, ways: Mapping[str, Mapping[str, Any]], *, alone: bool = False) -> Iterable[Row]:
    return [Row(id, says, how, vapi=switches, healthy=healthy, alone=alone) for how, switches in ways.items()]


def _account(id: str, says: str, healthy: str, ways: Mapping[str, Mapping[str, Any]]) -> Iterable[Row]:
    """What the account at Vapi does, it does to every call."""
    return _vapi(id, says, healthy, ways, alone=True)


def _house(id: str, says: str, how: str, strike: Strike, *, healthy: str = "R0", lasts_s: float = OUTAGE_S, **more: Any) -> Row:
    return Row(id, says, how, strike=strike, healthy=healthy, lasts_s=lasts_s, alone=True, **more)


def _both_modes(row: Row) -> Iterable[Row]:
    """Whether Twilio goes on after a stream that ended without a close frame nobody has proven: either must do."""
    for mode in (NEXT_VERB, STAYS):
        how = f"{row.how} {mode.replace('_', ' ')}".strip()
        yield replace(row, how=how, twilio={**row.twilio, "on_abnormal_close": mode})


def _streams(row: Row) -> Iterable[Row]:
    """The next stream finds another way, or goes the same dead one, so that no stream is to be had: then a person is."""
    yield replace(row, how=f"{row.how} once", first_stream_only=True, healthy="R1")
    yield replace(row, healthy="R3")


def _backed_up(rows: Iterable[Row]) -> Iterable[Row]:
    """What costs these callers the agent leads them to the one at the second account, and not to a person."""
    return [replace(row, how=f"{row.how} backup", healthy="R2", leads_there=True, house=House(has_backup=True)) for row in rows]


def _not_as_root(database: str) -> str:
    """It is the right that counts: root may have given it away."""
    if database != SQLITE:
        return ""
    with NamedTemporaryFile() as file:
        os.fchmod(file.fileno(), 0)
        return "root may read every file" if os.access(file.name, os.R_OK) else ""


def _with_a_server(database: str) -> str:
    return "" if database == POSTGRESQL else "SQLite is a file of ours, and no server (--database plays it on PostgreSQL)"


ONCE: Mapping[str, Any] = {"sessions": 1}
REFUSE, DEAD = Weather(refuse=True), Weather(up_dead=True, down_dead=True)
LATE = Weather(delay_s=0.1)  # 0.2 s for each statement, there and back
ON_A_SERVER: Mapping[str, Any] = {"not_here": _with_a_server}
ON_A_WIRE: Mapping[str, Any] = {**ON_A_SERVER, "house": House(is_wired=True)}
KEY, POOR, BUSY, FAILS, SLOW = "Vapi refuses the key", "no money, or no line, left at Vapi", "Vapi says 429", "Vapi fails", "Vapi is slow"
SPOILED, NO_SOCKET = "Vapi's answer is malformed", "Vapi's audio socket cannot be had"
DIES, HANGS, GARBAGE, VOICE = (
    "Vapi's audio socket dies in a sentence",
    "Vapi hangs, its socket stays up",
    "Vapi sends garbage",
    "the voice stops",
)
HALF_OPEN, KILLED, FROZEN, BLOCKED = "the media socket is half open", "kill -9", "a serving process stands still", "the loop is blocked"
KILLED_UNREACHED = strikes.together(strikes.refuse_rest, strikes.to_carriers(signal.SIGKILL))
KILLED_LATER = strikes.later(strikes.to_carriers(signal.SIGKILL), after_s=FOUND_OUT_S)
LOCKED_AND_FROZEN = strikes.together(strikes.lock_database, strikes.to_carriers(signal.SIGSTOP))
VALKEY, DATABASE, HUNG = "Valkey in the middle of calls", "the database in the middle of calls", "the database hangs"

BEFORE: tuple[Row, ...] = (
    _house(  # who rang a moment before has a row that says the stream may come, and nobody can read it: they are let in on a mark
        "P3", "the database cannot be opened", "", strikes.close_database, mid=False, not_here=_not_as_root
    ),
    _house("P4", HUNG, "locked", strikes.lock_database, mid=False),
    _house("P4", HUNG, "no answer", strikes.database_weather(DEAD), mid=False, **ON_A_WIRE),
    _house("P4", HUNG, "slow", strikes.database_weather(LATE), mid=False, **ON_A_WIRE),
    _house("P5", "the disk is full", "", strikes.full_disk, mid=False),
    _house("P6", "Valkey is gone", "", strikes.kill_valkey, mid=False),
    _house("P7", "Valkey hangs", "", strikes.stop_valkey, mid=False),
    _house("P8", "the worker is gone", "", strikes.kill_worker, mid=False),
    replace(
        _house("P9", "the worker dies after Vapi was asked", "", strikes.kill_creators, healthy="R1", mid=False, lasts_s=1.0),
        vapi={"create_delay_s": 1.5},
        may_repeat_a_create=True,
        rings_first=True,
    ),
    *_account("P10", KEY, "R3", {str(code): {"create_status": code} for code in (401, 403)}),
    *_backed_up(_account("P10", KEY, "R2", {"401": {"create_status": 401}})),
    *_account("P11", POOR, "R3", {"402": {"create_status": 402}}),
    *(
        _house("P11", POOR, f"limit {how}", strikes.limit_forgotten, healthy="R3", mid=False, vapi={"line_limit": how})
        for how in ("refused", "blocked", "ended")
    ),
    *_account("P12", BUSY, "R3", {f"wait {wait}": {"create_status": 429, "retry_after": wait} for wait in ("", "9999", "soon")}),
    *_account("P12", BUSY, "R0", {"once": {"create_status": 429, "create_times": 1, "retry_after": "1"}}),
    *_account("P13", FAILS, "R3", {str(code): {"create_status": code} for code in (500, 503)}),
    *_account("P13", FAILS, "R0", {"503 once": {"create_status": 503, "create_times": 1}}),
    _house("P13", FAILS, "refused", strikes.vapi_weather(REFUSE), healthy="R3", mid=False),
    *_account("P14", SLOW, "R3", {f"{late} s": {"create_delay_s": float(late)} for late in (3, 10, 60)}),
    *_account("P14", SLOW, "R3", {"drip": {"create_drips": True}}),
    _house("P14", SLOW, "no answer", strikes.vapi_weather(DEAD), healthy="R3", mid=False),
    *_backed_up([_house("P14", SLOW, "no answer", strikes.vapi_weather(DEAD), mid=False)]),
    *_account("P15", SPOILED, "R3", {kind: {"create_malformed": kind} for kind in malformed.KINDS}),
    *_account("P16", NO_SOCKET, "R3", {str(code): {"socket_status": code} for code in (403, 500)}),
    *_account("P16", NO_SOCKET, "R3", {"never": {"socket_never": True}, "half TLS": {"socket_tls_half": True}}),
    *_account("P16", NO_SOCKET, "R3", {"subprotocol": {"socket_protocol": "chat.v9"}}),
    *_account("P16", NO_SOCKET, "R3", {"closes at once": {"strikes_in_turn": 0, "dies_with": 1008}}),
    Row("P17", "Twilio does not open the stream", refuses_streams=1, healthy="R1"),
    _house(
        "P18",
        "a `serve` that leaves refuses the stream",
        "",
        strikes.leave_one_of_two,
        healthy="R1",
        mid=False,
        lasts_s=0.0,
        house=DOUBLED,
        one_is_there=True,
        past_the_balancer=True,
        first_stream_only=True,
    ),
    _house("P19", "more callers than lines", "two lines", strikes.vapi_carries(2), healthy="R3", mid=False, lasts_s=30.0),
    _house("P19", "more callers than lines", "tenfold", strikes.vapi_carries(10), healthy="R3", mid=False, lasts_s=30.0, in_a_second=100),
    *_both_modes(_house("P20", "the web tier is down", "", strikes.kill_serve, healthy="R5", mid=False, lasts_s=10.0)),
)

IN_IT: tuple[Row, ...] = (
    *_vapi("C1", "Vapi closes as if the assistant had ended", "R3", {"1000": {"dies_with": 1000}}),
    *_vapi("C2", DIES, "R1", {str(code): {**ONCE, "dies_with": code} for code in (1001, 1008, 1011, 1012, 1013)}),
    *_vapi("C2", DIES, "R1", {"no close frame": {**ONCE, "dies_with": NO_CLOSE_FRAME}, "reset": {**ONCE, "dies_with": RESET}}),
    *_vapi("C2", DIES, "R1", {"twice": {"sessions": 2, "dies_with": 1011}}),
    *_backed_up(_vapi("C2", DIES, "R2", {"twice": {"sessions": 2, "dies_with": 1011}})),
    *_vapi("C2", DIES, "R3", {"every time": {"dies_with": 1011}}),
    *_vapi("C3", HANGS, "R1", {"mute": {**ONCE, "strikes_after_s": 0.0, "falls_silent": True}, "frozen": {**ONCE, "freezes": True}}),
    *_vapi("C3", HANGS, "R1", {"voiceless": {**ONCE, "mute": True}, "deaf": {**ONCE, "deaf": True}}),
    *_vapi("C3", HANGS, "R1", {"mute in the greeting": {**ONCE, "strikes_in_turn": 1, "falls_silent": True}}),
    *_vapi("C4", GARBAGE, "R1", {kind: {**ONCE, "garbage": kind} for kind in ("bad-json", "empty", "flood", "huge-text")}),
    *_vapi("C4", GARBAGE, "R0", {kind: {"garbage": kind} for kind in ("unknown", "giant-audio")}),
    *_vapi("C4", GARBAGE, "R0", {"odd sizes": {"odd_sizes": True}}),
    *_vapi("C5", "Vapi speaks fifty times as fast", "R0", {"": {"pace": 50.0}}),
    *_vapi("C6", VOICE, "R1", {"for good": {**ONCE, "falls_silent": True}}),
    *_vapi("C6", VOICE, "R0", {"for 4 s": {"stall_s": 4.0}, "model 6 s slow": {"strikes_after_s": 0.0, "slow_s": 6.0}}),
    Row("C7", "Twilio's stream breaks, the caller stays", breaks_stream=True, healthy="R1"),
    Row("C8", HALF_OPEN, "both", twilio={"half_open_after_s": 8.0}, healthy="R1"),
    *_streams(Row("C8", HALF_OPEN, "to us", wire=Weather(up_dead=True), lasts_s=OUTAGE_S)),
    *_streams(Row("C8", HALF_OPEN, "to Twilio", wire=Weather(down_dead=True), lasts_s=OUTAGE_S)),
    *_both_modes(_house("C9", KILLED, "one", strikes.to_carriers(signal.SIGKILL), healthy="R1", lasts_s=1.0)),
    _house("C9", KILLED, "one stay, REST away", KILLED_UNREACHED, healthy="R1", lasts_s=REST_AWAY_S, twilio={"on_abnormal_close": STAYS}),
    *_both_modes(_house("C9", KILLED, "all", strikes.kill_serve, healthy="R5", lasts_s=0.0)),
    *_both_modes(_house("C9", KILLED, "one serve of two", strikes.kill_one_of_two, healthy="R1", lasts_s=10.0, house=DOUBLED)),
    *_both_modes(_house("C10", FROZEN, "20 s", strikes.to_carriers(signal.SIGSTOP), healthy="R1")),
    _house("C11", BLOCKED, "0.3 s", strikes.block_loop, lasts_s=0.3),
    _house("C11", BLOCKED, "1 s", strikes.block_loop, lasts_s=1.0),
    *_both_modes(_house("C11", BLOCKED, "5 s", strikes.block_loop, lasts_s=5.0, healthy="R1")),
    _house("C12", "a serving process is told to leave", "", strikes.to_carriers(signal.SIGTERM), healthy="R1", in_good_order=True),
    _house("C13", VALKEY, "killed", strikes.kill_valkey),
    _house("C13", VALKEY, "hangs", strikes.stop_valkey),
    _house("C13", VALKEY, "flushed", strikes.flush_valkey, lasts_s=1.0),
    _house("C14", DATABASE, "locked", strikes.lock_database),
    _house("C14", DATABASE, "refused", strikes.close_database, **ON_A_SERVER),
    _house("C14", DATABASE, "no answer", strikes.database_weather(DEAD), **ON_A_WIRE),
    _house("C14", DATABASE, "read-only", strikes.read_only_database, **ON_A_SERVER),
    _house("C14", DATABASE, "and kill -9", strikes.together(strikes.lock_database, strikes.to_carriers(signal.SIGKILL)), healthy="R1"),
    *_both_modes(_house("C14", DATABASE, "and frozen", LOCKED_AND_FROZEN, healthy="R1")),
    _house("C14", DATABASE, "and kill -9 later", strikes.together(strikes.lock_database, KILLED_LATER), healthy="R1"),
    _house("C15", "the disk fills up in the middle of calls", "", strikes.full_disk),
    Row("C16", "Twilio reads slowly", twilio={"slow_reader_after_s": 8.0}, healthy="R1"),
    Row("C17", "a bad line", "late", wire=Weather(delay_s=0.1, jitter_s=0.4), lasts_s=OUTAGE_S),
    Row("C17", "a bad line", "slow", wire=Weather(bytes_per_s=1000.0), lasts_s=5.0, healthy="R1"),
    _house("C18", "a serving process leaks", "", strikes.leak, healthy="R1", lasts_s=30.0, in_good_order=True),
    _house("C19", "no file descriptors left", "", strikes.no_descriptors, mid=False),
    *(
        Row("C20", "the colleague cannot be had", outcome, asks_for_person=True, person=outcome, healthy="R4")
        for outcome in ("busy", "no-answer", "failed")
    ),
)

AFTER: tuple[Row, ...] = (
    Row("E1", "Twilio's status callbacks do not come", twilio={"callbacks": "none"}, leaves=True),
    *_vapi("E2", "Vapi's report does not come", "R0", {"": {"lost": frozenset({"end-of-call-report"})}}),
    *_vapi("E3", "Vapi's report comes a hundred times", "R0", {"": {"copies": {"end-of-call-report": 100}}}),
    *_vapi("E4", "webhooks in another order", "R0", {"late lines": {"late_s": {"transcript": 5.0}}, "shuffled": {"shuffle_s": 2.0}}),
    _house("E7", "beat is dead, and no callback comes", "", strikes.kill_beat, twilio={"callbacks": "none"}, leaves=True, mid=False),
    _house("E9", "kill -9 while the call ends", "", strikes.kill_serve, leaves=True, healthy="R5", lasts_s=2.0),
)

PAIRED: Mapping[str, tuple[Strike | None, Mapping[str, Any], str]] = {
    "C2": (None, {**ONCE, "dies_with": 1011}, "R1"),
    "C3": (None, {**ONCE, "strikes_after_s": 0.0, "falls_silent": True}, "R1"),
    "C9": (strikes.to_carriers(signal.SIGKILL), {}, "R1"),
    "C10": (strikes.to_carriers(signal.SIGSTOP), {}, "R1"),
    "C13": (strikes.stop_valkey, {}, "R0"),
    "C14": (strikes.lock_database, {}, "R0"),
    "P8": (strikes.kill_worker, {}, "R0"),
    "P14": (strikes.vapi_weather(DEAD), {}, "R3"),
}


def _pairs() -> Iterable[Row]:
    for (one, (strike, vapi, healthy)), (other, (strike_too, vapi_too, healthy_too)) in combinations(PAIRED.items(), 2):
        both = [each for each in (strike, strike_too) if each is not None]
        switches = {**vapi, **vapi_too}
        row = Row("C22", "two faults at once", f"{one} {other}", vapi=switches, healthy=max(healthy, healthy_too), alone=True)
        yield replace(row, strike=strikes.together(*both) if both else None, lasts_s=OUTAGE_S)


MATRIX: tuple[Row, ...] = (*BEFORE, *IN_IT, *_pairs(), *AFTER)

NOT_COVERED: Mapping[str, str] = {
    "P1": "an attacker's request is no call; every forgery is tried at the door by the tests",
    "P2": "a wrong token of ours is a setting, tried by the tests of rotation",
    "P21": "clocks cannot be moved without root; the deadlines' clocks are arguments, tried by the tests",
    "C21": "an expired certificate needs TLS in front; the house has none",
    "E5": "reports of unknown calls are no caller's, tried at the door by the tests",
    "E6": "as E5: reports of 5 MB are tried by the tests",
    "E8": "the sweep against live calls is tried in virtual time by the tests",
    **{f"R{n}": "a race: who is first decides, and only the tests can decide who is (docs/races.md)" for n in range(1, 19)},
}


def chosen(only: Iterable[str]) -> list[Row]:
    """The rows of these ids (C9) or names ("C9 next verb"); all of them for none. Raises KeyError with what is no such thing."""
    wanted = list(only)
    for each in wanted:
        if not any(each.lower() in (row.id.lower(), row.name.lower()) for row in MATRIX):
            raise KeyError(each)
    names = {each.lower() for each in wanted}
    return [row for row in MATRIX if not names or row.id.lower() in names or row.name.lower() in names]
