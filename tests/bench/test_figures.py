"""The bench's arithmetic."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import Any

import pytest

from supportvoice.bench.figures import calls_per_core, combined, flat, percentile, ratios, spread, stalls_by_cause
from supportvoice.bench.pattern import Counts
from supportvoice.bench.report import document, soaked, table
from supportvoice.bench.stalls import NOTHING, StallWatch


def a_run(cpu_ms: float, *, why_not: str = "", **more: Any) -> dict[str, Any]:
    none = spread([1.0])
    frames = {"up": {"sent": 5, "lost": 1}, "down": {"sent": 5, "lost": 0}}
    delays = dict.fromkeys(("up_ms", "down_ms", "cushion_ms", "clear_ms", "silence_ms"), none)
    rest = {"right": True, "calls": 30, "interruptions_unanswered": 0, "rss_per_call_kib": cpu_ms, "frames": frames}
    return {"cpu_ms_per_call_second": cpu_ms, "why_not": why_not, **rest, **delays, "generator": {"cores": 0.2, "late_ms": none}, **more}


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (95, 95), (99, 99), (100, 100), (1, 1)])
def test_a_percentile_is_a_value_that_was_measured(percent: int, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == expected


def test_a_percentile_of_few_values_is_not_rounded_down() -> None:
    assert percentile([1.0, 2.0], 99) == 2.0
    assert percentile([3.0], 50) == 3.0


def test_nothing_measured_is_zeros_and_not_an_error() -> None:
    assert spread([]) == {"p50": 0, "p95": 0, "p99": 0, "max": 0, "n": 0}


def test_the_middle_run_counts_and_one_that_did_not_keep_up_does_not() -> None:
    figures = combined([a_run(2.0), a_run(0.1, why_not="it fell behind"), a_run(3.0), a_run(9.0)])
    assert figures["cpu_ms_per_call_second"] == 3.0
    assert figures["why_not"] == ["it fell behind"]
    assert (figures["runs"], figures["runs_counted"], figures["kept_up"]) == (4, 3, True)
    assert figures["frames"]["up"] == {"sent": 15, "lost": 3}
    assert figures["rss_per_call_kib"] == 9.0


def test_a_run_that_measured_nothing_of_a_kind_does_not_make_its_figure_smaller() -> None:
    figures = combined([a_run(2.0, clear_ms=spread([])), a_run(2.0, clear_ms=spread([])), a_run(2.0, clear_ms=spread([7.0]))])
    assert (figures["clear_ms"]["p99"], figures["clear_ms"]["n"]) == (7.0, 1)


def test_a_subject_that_never_kept_up_has_no_cost() -> None:
    figures = combined([a_run(0.1, why_not="it fell behind")])
    assert not figures["kept_up"]
    assert "cpu_ms_per_call_second" not in figures


def test_wrong_sound_in_one_run_that_counts_is_wrong_altogether() -> None:
    assert not combined([a_run(1.0), a_run(1.0, right=False)])["right"]
    assert combined([a_run(1.0), a_run(1.0, right=False, why_not="the generator itself was late")])["right"]


def test_a_ratio_pairs_the_runs_of_a_round_and_leaves_out_rounds_that_do_not_count() -> None:
    ours = [a_run(2.0), a_run(8.0), a_run(3.0)]
    bare = [a_run(2.0), a_run(4.0), a_run(0.1, why_not="it fell behind")]
    found = ratios({"ours": ours, "picows": bare, "node": [a_run(1.0, why_not="the generator itself was late")] * 3})
    assert found == {"picows": {"ours_over_it": 1.5, "calls": 30, "rounds": 2, "goal": 1.4, "reached": False}}


def test_a_ratio_to_what_carries_fewer_calls_is_of_our_runs_with_as_few() -> None:
    few, tutorial = [a_run(4.0, calls=15)], [a_run(16.0, calls=15)]
    found = ratios({"ours": [a_run(2.0)], "ours beside tutorial": few, "tutorial": tutorial, "picows": [a_run(2.0)]})
    assert (found["tutorial"]["ours_over_it"], found["tutorial"]["calls"], found["tutorial"]["reached"]) == (0.25, 15, False)
    assert (found["picows"]["ours_over_it"], found["picows"]["calls"]) == (1.0, 30)


def test_a_core_is_a_thousand_milliseconds_a_second() -> None:
    assert (calls_per_core(2.5), calls_per_core(0.0)) == (400, 0)


def test_stalls_are_told_by_what_coincided() -> None:
    assert stalls_by_cause([(12.0, "gc"), (30.0, "gc"), (11.0, NOTHING)]) == {
        "gc": {"count": 2, "max_ms": 30.0},
        NOTHING: {"count": 1, "max_ms": 11.0},
    }


@pytest.mark.parametrize(("last", "is_flat"), [(100, True), (102, True), (102.1, False), (90, True)])
def test_memory_is_flat_within_two_percent(last: float, is_flat: bool) -> None:
    assert flat(100, last) is is_flat


def test_counts_of_two_calls_are_added() -> None:
    counts = Counts(sent=1, lost=2)
    counts.add(Counts(sent=3, stale=1))
    assert counts == Counts(sent=4, lost=2, stale=1)


def test_a_stall_is_laid_to_what_overlaps_it_also_when_that_is_not_over() -> None:
    watch = StallWatch()
    assert watch._cause(0.0, 1e12) == NOTHING
    with watch.during("database"):
        pass
    with watch.during("redis"):
        assert watch._cause(0.0, 1e12) == "database and redis"
    assert watch._cause(1e11, 1e12) == NOTHING


async def test_what_falls_into_a_watched_time_is_counted_by_cause_with_the_longest_of_each() -> None:
    busy = True
    watch = StallWatch(busy=lambda: busy)
    with watch.during("database"):
        pass
    watching = asyncio.create_task(watch.run())
    await asyncio.sleep(0)
    assert watch.take()["spans"] == {}  # nobody looked yet
    for seconds in (0.0, 0.002):
        with watch.during("database"):
            time.sleep(seconds)  # noqa: ASYNC251 - the loop's own time is what is measured
    busy = False
    with watch.during("redis"):
        pass
    spans = watch.take()["spans"]
    watching.cancel()
    assert {name: span["count"] for name, span in spans.items()} == {"database": 2}
    assert spans["database"]["longest_ms"] >= 2
    assert watch.take()["spans"] == {}


def a_look(*, why_not: str = "", **spans: float) -> dict[str, Any]:
    """Stalls of 30 ms beside a collection and of 40 ms beside Redis, and so long spans of each kind."""
    stalls = [(30.0, "gc"), (40.0, "redis")]
    seen = {kind: {"count": 1, "longest_ms": ms} for kind, ms in spans.items()}
    return {"stalls": stalls, "longest_ms": 40.0, "spans": seen, "seconds": 6.0, "why_not": why_not}


def what_is_said(
    *, ours: list[dict[str, Any]] | None = None, stalls: dict[str, Any] | None = None, soak: dict[str, Any] | None = None
) -> tuple[dict[str, float], str]:
    """The goals that are judged, with what was measured, and the table."""
    runs = {"ours": ours} if ours else {}
    found = document(about={}, runs=runs, left_out={}, stalls={"ours": stalls} if stalls else {}, soak=soak, presets={})
    return {goal["goal"]: goal["measured"] for goal in found["goals"]}, "\n".join(table(found))


FRAMES = dict.fromkeys(("lost", "doubled", "reordered", "garbled", "stale"), 0)
SOUND = {way: {"sent": 5, **FRAMES} for way in ("up", "down")}


@pytest.mark.parametrize(
    ("unmeasured", "goals"),
    [
        ({"clear_ms": spread([])}, {"interruption to clear, p99 ms"}),
        ({"up_ms": spread([])}, {"added delay up, p50 ms", "added delay up, p99 ms"}),
        (
            {"down_ms": spread([]), "frames": {**SOUND, "down": {"sent": 0, **FRAMES}}},
            {
                "added delay down after a turn's cushion, p50 ms",
                "added delay down after a turn's cushion, p99 ms",
                "frames lost, doubled, reordered, garbled or stale",
            },
        ),
    ],
    ids=["no interruption", "nothing up", "nothing down"],
)
def test_a_figure_that_nobody_measured_reaches_no_goal_and_is_no_number_in_the_table(unmeasured: dict[str, Any], goals: set[str]) -> None:
    whole, told = what_is_said(ours=[a_run(1.0, frames=SOUND)])
    partly, told_then = what_is_said(ours=[a_run(1.0, **{"frames": SOUND, **unmeasured})])
    assert set(whole) - set(partly) == goals
    assert (" -  " in told, " -  " in told_then) == (False, True)
    assert not any(goal in told_then for goal in goals)


def test_a_soak_of_which_no_call_began_reaches_no_goal() -> None:
    states = [{"calls": 500, **AT_REST}, {"calls": 1000, **AT_REST}]
    goals, _ = what_is_said(soak={"calls": 1000, "failed": 1000, "untold": 0, "at_start": AT_REST, "states": states})
    assert goals == {}


def test_only_causes_that_were_there_are_judged() -> None:
    assert what_is_said(stalls=a_look(gc=30.0))[0] == {"longest stall beside gc, ms": 30.0}
    assert what_is_said(stalls=a_look(gc=30.0, redis=40.0))[0] == {"longest stall beside gc, redis, ms": 40.0}
    goals, told = what_is_said(stalls=a_look())
    assert goals == {}
    assert "0 of database" in told


def test_stalls_of_an_overloaded_run_are_no_goal_and_the_table_says_why() -> None:
    goals, told = what_is_said(stalls=a_look(why_not="it fell behind", gc=30.0))
    assert goals == {}
    assert "do not count: it fell behind" in told


AT_REST = {
    "rss_kib": 1000,
    "tasks": 2,
    "descriptors": 30,
    "sockets": 10,
    "database_files": 6,
    "database_connections": 3,
    "threads": 9,
    "pool_threads": 4,
    "open_streams": 0,
    "live_calls": 0,
    "live_sessions": 0,
    "agent_places": 0,
    "waiting": 0,
    "commands": 0,
}
POOLS_FILLED = {**AT_REST, "descriptors": 34, "database_files": 10, "database_connections": 5, "threads": 11, "pool_threads": 6}


@pytest.mark.parametrize(
    ("more", "left"),
    [
        ({}, []),
        ({"live_sessions": 1, "agent_places": 1}, ["live_sessions", "agent_places"]),
        ({"tasks": 3}, ["tasks"]),
        ({"descriptors": 35, "sockets": 11}, ["sockets", "descriptors"]),
        ({"threads": 12}, ["threads"]),
        ({"threads": 12, "pool_threads": 7}, ["pool_threads"]),
        ({"descriptors": 36, "database_files": 12}, []),  # SQLite's own, for the next connection
        ({"descriptors": 36, "database_files": 12, "database_connections": 6}, ["database_connections"]),
    ],
)
def test_a_soak_is_held_against_its_start_and_only_what_pools_keep_against_its_first_calls(more: dict[str, int], left: list[str]) -> None:
    states = [{"calls": 500, **POOLS_FILLED}, {"calls": 1000, **POOLS_FILLED, **more}]
    soak = {"calls": 1000, "failed": 0, "untold": 0, "at_start": AT_REST, "states": states}
    found = soaked(soak)
    assert (found["left_behind"], found["back_at_start"]) == (left, not left)
    assert found["kept_by_pools"] == {name: states[-1][name] - AT_REST[name] for name in ("database_files", "pool_threads")}
    goals, told = what_is_said(soak=soak)
    assert goals["kinds of things left behind by the soak's calls"] == len(left)
    assert f"left behind {', '.join(left) or 'nothing'}" in told


def test_many_at_once_leave_their_spans_and_nothing_breaks() -> None:
    watch = StallWatch()
    with ExitStack() as open_now:
        for _ in range(3):
            open_now.enter_context(watch.during("database"))
    assert watch._cause(0.0, 1e12) == "database"
