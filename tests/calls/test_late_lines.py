"""A line of the agent's is marked by the turn in which it was said, however late the vendor tells it and whatever our clock does."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from calls import history
from calls.clock import monotonic
from calls.history import NewEvent
from calls.models import CallSession, Heard
from tests.builders import a_call

pytestmark = pytest.mark.django_db
ANSWERED = datetime(2026, 1, 1, tzinfo=UTC)
ANSWERED_S = monotonic(ANSWERED)  # on the clock that does not jump
VENDOR_MS = 1_790_000_000_000  # what the vendor's clock said when we answered: months from ours
FIRST, SECOND = "one two three four", "five six seven eight"
HALF_HEARD = [(FIRST, Heard.PART, "one two"), (SECOND, Heard.PART, "five six")]


def at(seconds: float) -> datetime:
    return ANSWERED + timedelta(seconds=seconds)


def noted(call: CallSession, kind: str, seconds: float, *, jump_s: float = 0.0, **detail: object) -> None:
    event = NewEvent(kind, "bridge", at(seconds + jump_s), detail, now=ANSWERED_S + seconds)
    history.record_events(call_sid=call.call_sid, events=[event])


def ended(call: CallSession, seconds: float, *, heard_ms: int, jump_s: float = 0.0) -> None:
    noted(call, "agent-turn-ended", seconds, jump_s=jump_s, said_ms=4000, heard_ms=heard_ms, interrupted=heard_ms < 4000)


def told(call: CallSession, text: str, *, said: float, came: float, role: str = "assistant") -> None:
    vendor_ms = VENDOR_MS + int(said * 1000)
    history.add_line(call=call, vapi_call_id="v", role=role, text=text, vendor_ms=vendor_ms, at=at(came), n=0)


def marks(call: CallSession) -> list[tuple[str, str, str]]:
    return list(call.lines.filter(role="assistant").values_list("said", "heard", "heard_text"))


@pytest.mark.parametrize("came", [4.1, 6.2, 9.5])
@pytest.mark.parametrize("second_ms", [2000, 4000], ids=["and the next one is cut too", "and the next one is heard"])
def test_a_line_that_comes_after_the_next_turn_began_is_marked_by_its_own(came: float, second_ms: int) -> None:
    call = a_call(at=ANSWERED)
    news: list[tuple[float, Callable[[], None]]] = [
        (1.0, lambda: noted(call, "agent-speech-started", 1.0)),
        (4.0, lambda: ended(call, 4.0, heard_ms=2000)),
        (came, lambda: told(call, FIRST, said=4.0, came=came)),
        (6.0, lambda: noted(call, "agent-speech-started", 6.0)),
        (9.0, lambda: ended(call, 9.0, heard_ms=second_ms)),
        (9.1, lambda: told(call, SECOND, said=9.0, came=9.1)),
    ]
    for _, tell in sorted(news, key=lambda each: each[0]):
        tell()
    second = HALF_HEARD[1] if second_ms < 4000 else (SECOND, Heard.FULL, "")
    assert marks(call) == [HALF_HEARD[0], second]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_lines_of_two_cut_turns_and_the_news_of_those_come_in_any_order(order: tuple[int, ...]) -> None:
    """What the bridge tells comes in its own order; the lines anywhere between."""
    call = a_call(at=ANSWERED)
    told(call, "Hello?", said=0.5, came=0.6, role="user")
    bridge = iter([(1.0, 4.0), (6.0, 9.0)])
    for each in order:
        if each < 2:
            told(call, (FIRST, SECOND)[each], said=(4.0, 9.0)[each], came=20.0 + each)
        else:
            began, over = next(bridge)
            noted(call, "agent-speech-started", began)
            ended(call, over, heard_ms=2000)
    assert marks(call) == HALF_HEARD


@pytest.mark.parametrize("jump_s", [7200.0, -7200.0], ids=["forward", "back"])
def test_a_clock_that_jumps_by_two_hours_moves_no_line_to_another_turn(jump_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    call = a_call(at=ANSWERED)
    noted(call, "agent-speech-started", 1.0)
    ended(call, 4.0, heard_ms=4000)
    told(call, FIRST, said=4.0, came=4.1)
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + jump_s)
    noted(call, "agent-speech-started", 6.0, jump_s=jump_s)
    ended(call, 9.0, heard_ms=2000, jump_s=jump_s)
    told(call, SECOND, said=9.0, came=9.1 + jump_s)
    assert marks(call) == [(FIRST, Heard.FULL, ""), HALF_HEARD[1]]
