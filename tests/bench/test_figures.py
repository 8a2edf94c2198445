"""The bench's arithmetic."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from supportvoice.bench.figures import calls_per_core, combined, flat, percentile, ratios, spread, stalls_by_cause
from supportvoice.bench.pattern import Counts
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
    assert found == {"picows": {"ours_over_it": 1.5, "rounds": 2, "goal": 1.4, "reached": False}}


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


def test_many_at_once_leave_their_spans_and_nothing_breaks() -> None:
    watch = StallWatch()
    with ExitStack() as open_now:
        for _ in range(3):
            open_now.enter_context(watch.during("database"))
    assert watch._cause(0.0, 1e12) == "database"
