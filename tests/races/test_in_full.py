"""R1, R2, R6 and R11 of a call as wide as they come: many workers of two processes, on SQLite and on PostgreSQL.

What every test run plays is small; `make races` plays them as often as one may ask. Rows are made and looked at by the first process,
so the same lines play on either database.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from tests.races.pair import Pair

POSTS = 25  # of each process
WORKERS = 4  # of each process
SWEEPERS = 2  # of each process
TTL_S, SOUNDS_EVERY_S, SECONDS_AT_ONCE = 60, 5, 20
WITHIN_S = 0.01
TRIES = 3
Race = Callable[[Pair, int], bool]  # whether there was one: on a busy machine the same side may come first every time


def run(race: Race, pair: Pair, times: int) -> None:
    assert any(race(pair, times) for _ in range(TRIES)), "one of them always came first: there was no race"


def posts_make_one_call(pair: Pair, calls: int) -> bool:
    """R1: fifty identical posts, and every worker they woke."""
    pair.first("make_line")
    both_asked = 0
    for _ in range(calls):
        sid = f"CA{uuid.uuid4().hex}"
        ((one, two),) = pair.at_once("post_at_once", [{"sid": sid, "times": POSTS}])
        assert len({*one["said"], *two["said"]}) == 1, "they were answered otherwise"
        assert one["said"][0].startswith("200 ")
        assert one["created"] + two["created"] == 1
        assert pair.first("rows_of", sid=sid) == {"calls": 1, "sessions": 1, "live": 1}
        both_asked += bool(one["asked"] and two["asked"])
    return both_asked > 0


def news_lead_to_one_end(pair: Pair, seeds: int, how_many: int = 1000) -> bool:
    """R2: a call's news in a random order, by eight workers, leave what they leave in order, by one."""
    in_order, *others = pair.first("make_calls", how_many=1 + seeds)
    assert pair.first("hear_in_order", sid=in_order, how_many=how_many) == [200]
    expected = pair.first("caught_up", sid=in_order)
    assert (len(expected["lines"]), expected["waiting"], expected["numbered"]) == (how_many // 3, 0, True)
    for seed, sid in enumerate(others):
        halves = [{"sid": sid, "how_many": how_many, "seed": seed, "half": half, "workers": WORKERS} for half in (0, 1)]
        assert pair.at_once("hear_at_once", halves[:1], "hear_at_once", halves[1:]) == [([200], [200])]
        assert pair.first("caught_up", sid=sid) == expected, f"the order of news made a difference, seed {seed}"
    return True


def a_call_that_sounds_is_left_alone(pair: Pair, seconds: int) -> bool:
    """R6: a call whose caller and agent just talk, one whose caller talks with a person, and one that is over, under four sweeps a second.

    The seconds are the call's: nobody waits for them.
    """
    (talks,), (over,) = pair.first("make_calls", how_many=1), pair.first("make_calls", how_many=1)
    (with_person,) = pair.first("make_calls", how_many=1, status="transferring")
    begun, ended = datetime.now(tz=UTC), list[str]()
    for from_second in range(0, seconds, SECONDS_AT_ONCE):
        moments = [
            {"at": (begun + timedelta(seconds=second)).isoformat(), "workers": SWEEPERS, "ttl_s": TTL_S, "alive": [with_person]}
            for second in range(from_second, from_second + SECONDS_AT_ONCE)
        ]
        carried = [{**each, "sid": talks, "sounds": second % SOUNDS_EVERY_S == 0} for second, each in enumerate(moments)]
        for elsewhere, here in pair.at_once("sweep_at_once", moments, "sound_and_sweep", carried, each_time=False):
            assert here["heard"]
            ended += [*elsewhere, *here["ended"]]
    assert [sid for sid in ended if sid in (talks, with_person, over)] == [over]
    assert [pair.first("how_it_stands", sid=sid)["is_over"] for sid in (talks, with_person, over)] == [False, False, True]
    return True


def a_sweep_or_a_sound_wins(pair: Pair, calls: int) -> bool:
    """R6: what gives its first sign for hours while it is swept is left alone, or knows that it is over."""
    sids = pair.first("make_calls", how_many=calls, silent=True)
    at = datetime.now(tz=UTC).isoformat()
    sweeps = [{"workers": 2 * SWEEPERS, "at": at, "ttl_s": TTL_S, "alive": [], "says_after_s": WITHIN_S}]
    beats = [{"sids": [*reversed(sids)], "at": at, "each_s": WITHIN_S, "after_s": WITHIN_S / 2}]
    ((ended, beaten),) = pair.at_once("sweep_at_once", sweeps, "beat_each", beats)
    swept = [sid for sid in ended if sid in sids]
    assert len(swept) == len(set(swept)), "a call was ended twice"
    assert set(swept) ^ set(beaten) == set(sids)
    assert not set(swept) & set(beaten), "one that gave a sign was ended, and does not know it"
    for sid in sids:
        stands = pair.first("how_it_stands", sid=sid)
        assert (stands["is_over"], stands["events"].get("call-ended", 0)) == (sid in swept, int(sid in swept))
    return bool(swept and beaten)


def one_hand_over(pair: Pair, times: int) -> bool:
    """R11: Twilio, redirected by a rescuer, asks at the very door where it asks by itself within ten milliseconds of that, either way."""
    of_both = pair.first("make_silent_processes", how_many=times)
    rescuer = "00000000-0000-4000-8000-000000000011"
    gaps = [WITHIN_S * (2 * number / times - 1) for number in range(times)]
    rescues = [{"boot": boot, "by": rescuer, "after_s": max(0.0, gap)} for (boot, _), gap in zip(of_both, gaps, strict=True)]
    asks = [{"sid": sid, "epoch": 0, "after_s": max(0.0, -gap)} for (_, sid), gap in zip(of_both, gaps, strict=True)]
    done = pair.at_once("rescue_all", rescues, "knock_at_resume", asks)
    for (_, sid), (led, asked) in zip(of_both, done, strict=True):
        stands = pair.first("how_it_stands", sid=sid)
        assert (stands["epoch"], stands["sessions"], stands["held_by"]) == (1, [0, 1], rescuer)
        assert asked.startswith("200 ")
        assert "<Stream" in asked
        assert set(led) <= {asked}, "the two were led to different places"
        assert stands["events"]["conversation-lost"] == 1
        assert len(led) <= stands["events"].get("call-rescued", 0) <= 1
    return {len(led) for led, _ in done} == {0, 1}


def test_r1_fifty_posts_on_two_processes_make_one_call_and_one_agent(pair: Pair) -> None:
    run(posts_make_one_call, pair, 3)


def test_r2_a_calls_news_leave_the_same_rows_in_whichever_order_eight_workers_bring_them(pair: Pair) -> None:
    run(partial(news_lead_to_one_end, how_many=120), pair, 2)


def test_r6_a_call_with_a_sign_of_life_outlives_every_sweep(pair: Pair) -> None:
    run(a_call_that_sounds_is_left_alone, pair, 120)


def test_r6_a_call_that_is_swept_gives_no_sign_of_life_and_one_that_does_is_not_swept(pair: Pair) -> None:
    run(a_sweep_or_a_sound_wins, pair, 30)


def test_r11_a_rescuer_and_twilios_own_question_hand_a_caller_over_once_whoever_comes_first(pair: Pair) -> None:
    run(one_hand_over, pair, 40)


@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_all_of_it_holds_on_postgresql(pair_on_postgresql: Pair) -> None:
    run(posts_make_one_call, pair_on_postgresql, 2)
    run(partial(news_lead_to_one_end, how_many=120), pair_on_postgresql, 1)
    run(a_call_that_sounds_is_left_alone, pair_on_postgresql, 80)
    run(a_sweep_or_a_sound_wins, pair_on_postgresql, 20)
    run(one_hand_over, pair_on_postgresql, 20)


#: as often as `make races` plays each; a call of three hours among them. R2's seeds are the environment's to say
IN_FULL: dict[str, tuple[Race, int]] = {
    "R1": (posts_make_one_call, 40),
    "R2": (news_lead_to_one_end, int(os.environ.get("SEEDS", "5"))),
    "R6, a long call": (a_call_that_sounds_is_left_alone, 3 * 60 * 60),
    "R6, a late sign": (a_sweep_or_a_sound_wins, 300),
    "R11": (one_hand_over, 500),
}


@pytest.mark.load
@pytest.mark.timeout(0)
@pytest.mark.parametrize("race", IN_FULL)
def test_it_holds_as_often_as_may_be_asked(pair: Pair, race: str) -> None:
    play, times = IN_FULL[race]
    run(play, pair, times)


@pytest.mark.load
@pytest.mark.postgres
@pytest.mark.timeout(0)
@pytest.mark.parametrize("race", IN_FULL)
def test_it_holds_as_often_as_may_be_asked_on_postgresql(pair_on_postgresql: Pair, race: str) -> None:
    play, times = IN_FULL[race]
    run(play, pair_on_postgresql, times)
