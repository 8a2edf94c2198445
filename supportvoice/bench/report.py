"""What one run of the bench says: one JSON for the record, one table for whoever waits. docs/bench.md explains every key."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from supportvoice.bench.figures import combined, flat, ratios, stalls_by_cause

PACKAGES = ("django", "channels", "daphne", "uvicorn", "uvloop", "picows", "websockets", "orjson")
UP_DOWN_P50_MS, UP_DOWN_P99_MS, CLEAR_P99_MS, RSS_KIB, STALL_MS = 1.0, 5.0, 10.0, 300.0, 10.0
WS_VERSION = "require('ws/package.json').version"
OUR_CAUSES = ("gc", "database", "redis")
ROWS = ("open_streams", "live_calls", "live_sessions", "agent_places", "waiting", "commands")
GONE_WITH_A_CALL = ("tasks", "sockets", *ROWS)
OF_POOLS = {"descriptors": "database_files", "threads": "pool_threads"}  # threads are kept, each with its connection
BOUNDED = ("database_connections", "pool_threads")  # a pool has as many after its first calls as ever


def machine() -> dict[str, Any]:
    return {"cpu": _cpu_model(), "cores": os.cpu_count(), "kernel": platform.release(), "system": platform.system()}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return found | {
        name: said for name, said in {"node": _said("node", "--version"), "ws": _said("node", "-p", WS_VERSION)}.items() if said
    }


def commit(home: Path) -> str:
    """The commit that was measured, with a + when files had been changed since."""
    head = _said("git", "-C", str(home), "rev-parse", "--short=12", "HEAD")
    return head + ("+" if head and _said("git", "-C", str(home), "status", "--porcelain", "--untracked-files=no") else "")


def document(
    *,
    about: Mapping[str, Any],
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    left_out: Mapping[str, str],
    stalls: Mapping[str, Mapping[str, Any]],
    soak: Mapping[str, Any] | None,
    presets: Mapping[str, Mapping[str, int]],
) -> dict[str, Any]:
    """Everything, ready to be kept. `about`: when, what and where."""
    found: dict[str, Any] = {
        **about,
        "subjects": {name: combined(of_subject) for name, of_subject in runs.items()},
        "left_out": dict(left_out),
        "ratios": ratios(runs),
        "presets": dict(presets),
        "stalls": {name: _stalls(seen) for name, seen in stalls.items()},
        "soak": soaked(soak) if soak is not None else None,
        "runs": {name: list(of_subject) for name, of_subject in runs.items()},
    }
    found["goals"] = list(goals(found))
    return found


def soaked(soak: Mapping[str, Any]) -> dict[str, Any]:
    """Whether anything is left behind by calls that are over."""
    born, early, late = soak["at_start"], soak["states"][0], soak["states"][-1]
    left = left_behind(born, early, late)
    return {
        **soak,
        "after_first": early,
        "at_end": late,
        "rss_grown": late["rss_kib"] / early["rss_kib"] - 1,
        "flat": flat(early["rss_kib"], late["rss_kib"]),
        "kept_by_pools": {name: late[name] - born[name] for name in OF_POOLS.values()},
        "left_behind": left,
        "back_at_start": not left,
    }


def left_behind(born: Mapping[str, int], early: Mapping[str, int], late: Mapping[str, int]) -> list[str]:
    """Of what there is more at the end than at the start; of what pools keep, more than after the first calls."""
    more = [name for name in GONE_WITH_A_CALL if late[name] > born[name]]
    more += [name for name, pooled in OF_POOLS.items() if late[name] - late[pooled] > born[name] - born[pooled]]
    return more + [name for name in BOUNDED if late[name] > early[name]]


def goals(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The project's goals that this run can judge, and whether they are reached. A figure that nobody measured reaches none."""
    for name, ratio in found["ratios"].items():
        yield _goal(f"CPU at most {ratio['goal']} x {name}", ratio["ours_over_it"], ratio["goal"])
    ours = found["subjects"].get("ours", {})
    if ours.get("kept_up"):
        yield from _sound_goals(ours)
        yield _goal("memory of a live call, KiB", ours["rss_per_call_kib"], RSS_KIB)
    if found["stalls"]:
        yield from _stall_goal(found["stalls"]["ours"])
    if found["soak"] is not None and found["soak"]["failed"] < found["soak"]["calls"]:
        yield _goal("memory grown over the soak", found["soak"]["rss_grown"], 0.02)
        yield _goal("kinds of things left behind by the soak's calls", len(found["soak"]["left_behind"]), 0)


def _sound_goals(ours: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of what there was: a run too short for an interruption says nothing of one."""
    for way, which in (("up_ms", "up"), ("down_ms", "down after a turn's cushion")):
        if ours[way]["n"]:
            yield _goal(f"added delay {which}, p50 ms", ours[way]["p50"], UP_DOWN_P50_MS)
            yield _goal(f"added delay {which}, p99 ms", ours[way]["p99"], UP_DOWN_P99_MS)
    if ours["clear_ms"]["n"]:
        yield _goal("interruption to clear, p99 ms", ours["clear_ms"]["p99"], CLEAR_P99_MS)
    if all(ours["frames"][way]["sent"] for way in ("up", "down")):
        wrong = sum(ours["frames"][way][what] for way in ("up", "down") for what in ("lost", "doubled", "reordered", "garbled", "stale"))
        yield _goal("frames lost, doubled, reordered, garbled or stale", wrong, 0)


def _stall_goal(seen: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of the causes that were there while somebody looked; an overloaded run says nothing of any."""
    there = [cause for cause in OUR_CAUSES if cause in seen["spans"]]
    if there and not seen["why_not"]:
        stalls = [stall["max_ms"] for name, stall in seen["by_cause"].items() if any(cause in name for cause in there)]
        yield _goal(f"longest stall beside {', '.join(there)}, ms", max(stalls, default=0.0), STALL_MS)


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a terminal."""
    head = (
        "",
        "calls",
        "CPU ms",
        "calls/core",
        "up ms p50/p99",
        "down ms p50/p99",
        "clear ms p50/p99",
        "silence p99",
        "KiB/call",
        "kept up",
    )
    rows = [head, *(_row(name, figures) for name, figures in found["subjects"].items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for name, why in found["left_out"].items():
        yield f"{name}: left out, {why}"
    for name, figures in found["subjects"].items():
        if figures.get("generator"):
            generator = figures["generator"]
            yield f"generator beside {name}: {generator['cores']:.2f} cores, late by {_pair(generator['late_ms'])} ms"
    for name, seen in found["stalls"].items():
        yield from _stalls_told(name, seen)
    if found["presets"]:
        told = ", ".join(f"{name} {preset['silence_ms']} ms" for name, preset in found["presets"].items())
        yield f"time to silence by preset, virtual time: {told}"
    if found["soak"] is not None:
        yield from _soak_told(found["soak"])
    for goal in found["goals"]:
        yield f"{'ok    ' if goal['reached'] else 'MISSED'} {goal['goal']}: {goal['measured']:.4g} (goal {goal['limit']:g})"


def _stalls_told(name: str, seen: Mapping[str, Any]) -> Iterator[str]:
    causes = ", ".join(f"{each['count']} beside {cause} (max {each['max_ms']:.0f})" for cause, each in seen["by_cause"].items())
    counted = f"{seen['count']} in {seen['seconds']:g} s, longest {seen['longest_ms']:.1f} ms"
    yield f"stalls over {STALL_MS:.0f} ms, {name}: {counted}{': ' + causes if causes else ''}"
    if name == "ours":
        spans = {cause: seen["spans"].get(cause, {"count": 0, "longest_ms": 0.0}) for cause in OUR_CAUSES}
        there = (f"{each['count']} of {cause} (max {each['longest_ms']:.1f} ms)" for cause, each in spans.items())
        yield f"what there was beside our loop: {', '.join(there)}"
        if seen["why_not"]:
            yield f"stalls do not count: {seen['why_not']}"


def _soak_told(soak: Mapping[str, Any]) -> Iterator[str]:
    yield f"soak: {soak['calls']} calls, {soak['failed']} did not begin, of {soak['untold']} the end was not taken"
    kept = ", ".join(f"{count} {name}" for name, count in soak["kept_by_pools"].items())
    yield f"more than at the start: kept by pools {kept}; left behind {', '.join(soak['left_behind']) or 'nothing'}"


def _row(name: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    kept = "yes" if figures["kept_up"] and figures["right"] else "no: " + "; ".join(figures["why_not"] or ["frames were lost or doubled"])
    if not figures["kept_up"]:
        return (name, str(figures["calls"]), *("-",) * 7, kept)
    cost = (f"{figures['cpu_ms_per_call_second']:.2f}", str(figures["calls_per_core"]))
    delays = tuple(_pair(figures[what]) for what in ("up_ms", "down_ms", "clear_ms"))
    silence = f"{figures['silence_ms']['p99']:.1f}" if figures["silence_ms"]["n"] else "-"
    return (name, str(figures["calls"]), *cost, *delays, silence, f"{figures['rss_per_call_kib']:.0f}", kept)


def _pair(spread: Mapping[str, float]) -> str:
    if not spread["n"]:
        return "-"
    return f"{spread['p50']:.2f} / {spread['p99']:.2f}"


def _goal(goal: str, measured: float, limit: float) -> dict[str, Any]:
    return {"goal": goal, "measured": measured, "limit": limit, "reached": measured <= limit}


def _stalls(seen: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: seen[key] for key in ("seconds", "why_not", "longest_ms", "spans")}
    return {"count": len(seen["stalls"]), **told, "by_cause": stalls_by_cause(seen["stalls"])}


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _said(*command: str) -> str:
    """What a program says; empty when it is not there or will not."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
