"""What of a call is due to go, decided from facts alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as some

from calls import keeping
from calls.keeping import ALL, Days, Facts, Parts, Wish

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MAYBE_DAYS = some.none() | some.integers(0, 400)
WISHES = some.builds(Wish, MAYBE_DAYS, MAYBE_DAYS, MAYBE_DAYS)


def over(days: float, *, gone: Parts = Parts(), books_closed: bool = True) -> Facts:  # noqa: B008
    return Facts(ended_at=NOW - timedelta(days=days), books_closed=books_closed, gone=gone)


def test_the_shorter_of_agent_and_line_holds_and_neither_outlasts_the_installation() -> None:
    assert keeping.days(90, Wish(text=30), Wish(text=7)).text == 7
    assert keeping.days(90, Wish(text=365), Wish()).text == 90
    assert keeping.days(90) == Days(90, 90, 90)


@given(some.integers(0, 400), WISHES, WISHES)
def test_sound_and_bodies_never_outlast_the_text(installation: int, agent: Wish, line: Wish) -> None:
    kept = keeping.days(installation, agent, line)
    assert kept.sound <= kept.text <= installation
    assert kept.bodies <= kept.text


def test_each_part_goes_at_its_own_time() -> None:
    kept = keeping.days(90, Wish(sound=7, bodies=1))
    assert keeping.due(over(0.5), kept, now=NOW) == Parts()
    assert keeping.due(over(1), kept, now=NOW) == Parts(bodies=True)
    assert keeping.due(over(7), kept, now=NOW) == Parts(sound=True, bodies=True)
    assert keeping.due(over(90), kept, now=NOW) == ALL


def test_what_is_gone_is_not_due_again() -> None:
    assert keeping.due(over(100, gone=Parts(sound=True, bodies=True)), keeping.days(90), now=NOW) == Parts(text=True)
    assert not keeping.due(over(100, gone=ALL), keeping.days(90), now=NOW)


def test_nothing_is_due_of_a_call_that_is_on_or_not_settled_whatever_the_days() -> None:
    nothing_kept = keeping.days(0)
    assert not keeping.due(Facts(ended_at=None, books_closed=False), nothing_kept, now=NOW)
    assert not keeping.due(over(0.01, books_closed=False), nothing_kept, now=NOW)
    assert keeping.due(over(0, books_closed=True), nothing_kept, now=NOW) == ALL


def test_books_that_nobody_ever_closed_do_not_keep_a_call_for_ever() -> None:
    assert keeping.due(over(91, books_closed=False), keeping.days(90), now=NOW) == ALL


def test_a_keeping_time_beyond_the_calendar_keeps() -> None:
    assert not keeping.due(over(4000), keeping.days(10**9), now=NOW)
