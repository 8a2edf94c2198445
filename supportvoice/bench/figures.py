"""The arithmetic of the bench: from many runs to one figure each, and what they are compared by. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

PERCENTS = (50, 95, 99)
GOALS: Mapping[str, float] = {"picows": 1.4, "tutorial": 0.2, "node": 0.75}  # ours may cost so many times what these cost


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent are not above."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99, max and how many; zeros of nothing."""
    if not values:
        return dict.fromkeys(("p50", "p95", "p99", "max", "n"), 0.0)
    return {f"p{percent}": percentile(values, percent) for percent in PERCENTS} | {"max": max(values), "n": float(len(values))}


def combined(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One subject's figures over the runs that count (all, when none does): the median of each, and the sum of the frames."""
    counted = [run for run in runs if not run["why_not"]]
    figures: dict[str, Any] = {
        "kept_up": bool(counted),
        "why_not": sorted({run["why_not"] for run in runs if run["why_not"]}),
        "runs": len(runs),
        "runs_counted": len(counted),
        "right": all(run["right"] for run in counted or runs),
        "calls": runs[0]["calls"],
        "interruptions_unanswered": sum(run["interruptions_unanswered"] for run in counted or runs),
    }
    figures["frames"] = {way: _summed([run["frames"][way] for run in counted or runs]) for way in ("up", "down")}
    if not counted:
        return figures
    figures["cpu_ms_per_call_second"] = median(run["cpu_ms_per_call_second"] for run in counted)
    figures["calls_per_core"] = calls_per_core(figures["cpu_ms_per_call_second"])
    figures["rss_per_call_kib"] = max(run["rss_per_call_kib"] for run in runs)  # the first run's: later ones find the memory there
    for name in ("up_ms", "down_ms", "cushion_ms", "clear_ms", "silence_ms"):
        figures[name] = _middle([run[name] for run in counted])
    late = _middle([run["generator"]["late_ms"] for run in counted])
    figures["generator"] = {"cores": median(run["generator"]["cores"] for run in counted), "late_ms": late}
    return figures


def calls_per_core(cpu_ms_per_call_second: float) -> int:
    return int(1000 / cpu_ms_per_call_second) if cpu_ms_per_call_second > 0 else 0


def beside(name: str) -> str:
    """What our own runs are called that carry as few calls as this reference, which cannot carry them all."""
    return f"ours beside {name}"


def ratios(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Ours beside each reference, both with the same calls: the median over the rounds in which both kept up."""
    found = {}
    for name, goal in GOALS.items():
        ours_then = runs.get(beside(name)) or runs.get("ours", ())
        pairs = zip(ours_then, runs.get(name, ()), strict=False)
        values = [
            ours["cpu_ms_per_call_second"] / theirs["cpu_ms_per_call_second"]
            for ours, theirs in pairs
            if not ours["why_not"] and not theirs["why_not"]
        ]
        if values:
            value = median(values)
            told = {"ours_over_it": value, "calls": ours_then[0]["calls"], "rounds": len(values)}
            found[name] = {**told, "goal": goal, "reached": value <= goal}
    return found


def stalls_by_cause(stalls: Sequence[tuple[float, str]]) -> dict[str, dict[str, float]]:
    """`stalls` are milliseconds and what coincided: how many of each, and the longest."""
    causes: dict[str, dict[str, float]] = {}
    for ms, cause in stalls:
        of_cause = causes.setdefault(cause, {"count": 0, "max_ms": 0.0})
        of_cause["count"] += 1
        of_cause["max_ms"] = max(of_cause["max_ms"], ms)
    return causes


def flat(first: float, last: float, *, within: float = 0.02) -> bool:
    """Whether memory has not grown by more than that share."""
    return last <= first * (1 + within)


def _middle(spreads: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure, over the runs that measured any."""
    measured = [each for each in spreads if each["n"]] or spreads
    return {key: median(each[key] for each in measured) for key in spreads[0]}


def _summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {key: sum(each[key] for each in counts) for key in counts[0]}
