"""A process that answers nothing is missed after a lease; one whose parent stood still too has its time again."""

from __future__ import annotations

from calls.leases import LEASE_S
from supportvoice.presence import ASK_S, ENDED_AFTER_S, LATE_S, MISSED_AFTER_S, Presence


def missed_at(presence: Presence, *, looks: list[float]) -> list[float]:
    return [at for at in looks if presence.silent_s(at) >= MISSED_AFTER_S]


def every(s: float, *, start: float, end: float) -> list[float]:
    return [start + n * s for n in range(int((end - start) / s) + 1)]


def test_who_does_not_answer_is_missed_sooner_than_its_lease_would_end_and_not_for_standing_still_a_second() -> None:
    assert 1.0 + 2 * ASK_S <= MISSED_AFTER_S < LEASE_S < ENDED_AFTER_S
    assert missed_at(Presence(0.0), looks=every(ASK_S, start=0.0, end=3.0)) == every(ASK_S, start=MISSED_AFTER_S, end=3.0)


def test_an_answer_begins_the_wait_anew() -> None:
    presence = Presence(0.0)
    assert not missed_at(presence, looks=every(ASK_S, start=0.0, end=1.0))
    presence.answered(1.0)
    assert missed_at(presence, looks=every(ASK_S, start=1.25, end=4.0))[0] == 1.0 + MISSED_AFTER_S


def test_a_parent_that_looks_late_stood_still_itself_and_misses_nobody_for_a_whole_wait() -> None:
    presence = Presence(0.0)
    assert not missed_at(presence, looks=every(ASK_S, start=0.0, end=1.0))
    woke = 1.0 + LATE_S + 20.0
    assert missed_at(presence, looks=every(ASK_S, start=woke, end=woke + 3.0))[0] == woke + MISSED_AFTER_S
