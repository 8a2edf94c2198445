"""How much a peer may send: the bounds themselves. Time is a number."""

from __future__ import annotations

import pytest

from bridge.manners import Manners, OutOfPatience


def test_more_than_twenty_bad_messages_within_ten_seconds_are_too_many() -> None:
    manners = Manners({})
    for n in range(20):
        manners.bad("malformed", n * 0.1)
    with pytest.raises(OutOfPatience):
        manners.bad("audio", 9.9)
    assert manners.as_figures("wire") == {"wire.malformed": 20, "wire.audio": 1}


def test_twenty_one_bad_messages_in_more_than_ten_seconds_are_borne() -> None:
    manners = Manners({})
    for n in range(1000):
        manners.bad("malformed", n * 0.51)
    assert manners.counts.total() == 1000


def test_a_pace_is_kept_in_the_long_run_and_a_burst_is_allowed() -> None:
    manners = Manners({"sound": (60, 500)})
    now = 1000.0
    assert all(manners.keeps_pace("sound", now) for _ in range(500))
    assert not manners.keeps_pace("sound", now)
    assert all(manners.keeps_pace("sound", now + 1 + n / 60) for n in range(6000))
    assert manners.as_figures("wire") == {"wire.flood": 1}
