"""The bench itself, small and for real: it finds what a faulty relay does, and says everything that is documented."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from supportvoice.bench import report
from supportvoice.bench.rounds import Plan, generate, idle_loop, measure
from supportvoice.bench.subjects import Ground, Running, Subject, ours, relay
from supportvoice.parent import listen

ROOT = Path(__file__).parents[2]
STRANGERS = ("load", "goodbye", "callers", "pattern", "wheel", "figures", "processes")
TRIES = 5
SMALL = ("--calls", "3", "--seconds", "2", "--rounds", "1")


async def run_of(subject: Subject, directory: Path) -> Mapping[str, Any]:
    with listen("127.0.0.1", 0) as vapi:
        runs, _ = await measure(Ground(directory, vapi), Plan(calls=2, seconds=2.0, rounds=1), {"faulty": subject})
    return runs["faulty"][0]


async def test_frames_that_a_relay_swaps_are_found(tmp_path: Path) -> None:
    run = await run_of(relay("swapping", module="tests.bench.swapping"), tmp_path)
    assert run["frames"]["up"]["reordered"] >= 4
    assert run["frames"]["down"]["reordered"] == 0
    assert not run["right"]


async def test_frames_that_a_relay_drops_are_found(tmp_path: Path) -> None:
    run = await run_of(relay("dropping", module="tests.bench.dropping"), tmp_path)
    assert run["frames"]["up"]["lost"] >= 4
    assert run["frames"]["up"]["reordered"] == 0
    assert not run["right"]


async def test_calls_that_no_agent_takes_make_a_run_that_does_not_count(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as vapi:
        ground = Ground(tmp_path, vapi)
        async with relay("mute", module="tests.bench.mute")(ground) as running:
            run = await generate(ground, running, calls=running.rows(2), seconds=0.5, warm_s=0.1, begin_within_s=0.3)
    assert run["why_not"] == "2 calls did not begin and 0 broke"


async def test_the_idle_loop_answers_as_often_as_it_is_asked() -> None:
    async with idle_loop() as idle:
        assert {*await idle.take()} == {*await idle.take()} == {"longest_ms", "stalls", "spans"}


async def test_beside_a_reference_that_carries_fewer_calls_ours_is_measured_with_as_few(tmp_path: Path) -> None:
    @asynccontextmanager
    async def weak(ground: Ground) -> AsyncIterator[Running]:
        async with relay("weak", module="supportvoice.bench.relays.bare")(ground) as running:
            yield replace(running, most_calls=1)

    with listen("127.0.0.1", 0) as vapi:
        runs, _ = await measure(Ground(tmp_path, vapi), Plan(calls=2, seconds=0.5, rounds=1), {"ours": ours, "tutorial": weak})
    assert {name: [run["calls"] for run in of_name] for name, of_name in runs.items()} == {
        "ours": [2],
        "tutorial": [1],
        "ours beside tutorial": [1],
    }


def keys(found: Any, path: str = "") -> set[str]:
    """Every key by its path; what is named by the run (a subject, a cause, a package) is a star."""
    if not isinstance(found, dict) or path == "stalls.*.by_cause":
        return {path}
    here = set()
    for key, value in found.items():
        star = path in ("subjects", "ratios", "versions", "left_out", "runs", "stalls", "stalls.*.spans", "presets")
        here |= keys(value, f"{path}.{'*' if star else key}".lstrip("."))
    return here


@pytest.mark.timeout(300)  # of all tries
def test_our_own_bridge_is_measured_and_the_record_has_every_documented_key(tmp_path: Path) -> None:
    out, record = StringIO(), tmp_path / "deep" / "bench.json"
    for _ in range(TRIES):  # beside other tests the generator may be late, and such a run counts for nothing
        out.seek(0)
        out.truncate()
        call_command("bench", *SMALL, "--only", "ours", "picows", "--json", str(record), stdout=out, stderr=StringIO())
        found = json.loads(record.read_text())
        if all(subject["kept_up"] for subject in found["subjects"].values()):
            break
    of_ours = found["subjects"]["ours"]
    assert of_ours["right"]
    assert of_ours["interruptions_unanswered"] == 0
    assert of_ours["cpu_ms_per_call_second"] > 0
    assert {line.split()[0] for line in out.getvalue().splitlines()[1:3]} == {"ours", "picows"}
    assert found["stalls"]["ours"]["seconds"] == 2
    assert found["stalls"]["ours"]["spans"]["database"]["count"] > 0
    assert found["presets"]["quiet"]["silence_ms"] < found["presets"]["noisy"]["silence_ms"]
    assert f"quiet {found['presets']['quiet']['silence_ms']} ms" in out.getvalue()
    documented = set(re.findall(r"^\| `([^`]+)`", (ROOT / "docs" / "bench.md").read_text(), re.MULTILINE))
    there = {path for path in keys(found) if not path.startswith("runs.")}
    assert documented - {path for path in documented if path.startswith("soak.")} <= there | {"runs.*", "soak", "left_out.*"}
    assert there <= documented | {"soak", "left_out"}


def test_a_soak_says_what_its_calls_left_behind(tmp_path: Path) -> None:
    record = tmp_path / "soak.json"
    call_command("bench", "--soak", "6", "--json", str(record), stdout=StringIO(), stderr=StringIO())
    soak = json.loads(record.read_text())["soak"]
    assert (soak["calls"], soak["failed"], soak["untold"], soak["right"]) == (6, 0, 0, True)
    assert [state["calls"] for state in soak["states"]] == [3, 6]
    assert [soak["at_end"][name] for name in report.ROWS] == [0] * len(report.ROWS)
    assert soak["at_end"]["tasks"] == soak["at_start"]["tasks"]
    assert soak["at_end"]["database_files"] > soak["at_end"]["database_connections"] > 0
    assert soak["at_end"]["pool_threads"] > 0
    documented = set(re.findall(r"^\| `(soak\.[^`]+)`", (ROOT / "docs" / "bench.md").read_text(), re.MULTILINE))
    assert documented == {path for path in keys({"soak": soak}) if not path.startswith(("soak.at_start.", "soak.at_end.", "soak.states."))}


def test_wideband_sound_is_measured_alone(tmp_path: Path) -> None:
    record = tmp_path / "wide.json"
    call_command("bench", *SMALL, "--pcm", "--json", str(record), stdout=StringIO(), stderr=StringIO())
    found = json.loads(record.read_text())
    assert (found["plan"]["sound"], list(found["subjects"])) == ("pcm16", ["ours"])
    assert found["subjects"]["ours"]["interruptions_unanswered"] == 0


@pytest.mark.parametrize("wrong", [("--calls", "0"), ("--seconds", "0"), ("--soak", "-1")])
def test_a_bench_of_nothing_is_refused(wrong: tuple[str, str]) -> None:
    with pytest.raises(CommandError):
        call_command("bench", *wrong)


@pytest.mark.parametrize("module", STRANGERS)
def test_the_generator_is_a_stranger_and_shares_no_line_with_our_codecs(module: str) -> None:
    tree = ast.parse((ROOT / "supportvoice" / "bench" / f"{module}.py").read_text())
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [name for name in imported if name.partition(".")[0] in ("supportvoice", "calls", "agents", "bridge")]
    assert all(name.startswith("supportvoice.bench") for name in ours)
