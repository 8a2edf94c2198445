"""The fault laboratory against the real house: a handful of its faults cost no caller anything, and it sees planted bugs.

`make laboratory` plays all of them. What is planted is spoiled in the house's own processes as they start (`tests/laboratory/plants`).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supportvoice.laboratory.ground import open_ground
from supportvoice.laboratory.matrix import chosen
from supportvoice.laboratory.rolling import Rolling
from supportvoice.laboratory.runs import Laboratory, Placed
from supportvoice.stack import HOME
from tests.laboratory.test_databases import of_ours
from tests.laboratory.test_databases import server as server

HANDFUL = ("C2 1011", "C7", "C20 busy", "E3")
PLANTS = Path(__file__).parent.parent / "laboratory" / "plants"
LOST_BY = (  # what is planted, the fault that meets it, and the rule that tells of it
    ("no-resume-door", "C7", "ending"),
    ("no-resume-door", "P18", "ending"),
    ("no-rescuer", "C9 one stay", "silence"),
    ("no-claim", "P8", "rung"),
    ("no-epoch", "C7", "rung"),
    ("no-memory", "C2 1011", "memory"),
    ("no-backup", "P10 401 backup", "rung"),
    ("no-limit", "C18", "process"),
)


def played(directory: Path, *rows: str, planted: str = "") -> list[Placed]:
    async def play() -> list[Placed]:
        env = {"PYTHONPATH": str(PLANTS), "PLANTED": planted} if planted else {}
        wanted = chosen(rows)
        async with open_ground(directory, say=print, env=env, **wanted[0].house._asdict()) as ground:
            return await Laboratory(ground, random.Random(1), print).run(wanted, runs=1)

    return asyncio.run(play())


@pytest.mark.journey
@pytest.mark.alone
def test_a_handful_of_faults_costs_no_caller_anything(tmp_path: Path) -> None:
    calls = played(tmp_path, *HANDFUL)
    assert {call.row.name: call.verdicts for call in calls} == {name: [] for name in HANDFUL}
    assert all(call.struck_at is not None for call in calls)
    resumed = next(call for call in calls if call.row.name == "C2 1011")
    assert resumed.served_s is not None


def restarted(directory: Path, *, planted: str = "") -> list[Placed]:
    """The calls of a rolling restart of the whole house under six callers."""

    async def play() -> list[Placed]:
        env = {"PYTHONPATH": str(PLANTS), "PLANTED": planted} if planted else {}
        async with open_ground(directory, say=print, env=env, is_doubled=True) as ground:
            return await Rolling(ground, random.Random(1), print, at_once=6).play(1)

    return asyncio.run(play())


@pytest.mark.journey
@pytest.mark.load
@pytest.mark.timeout(400)
def test_a_rolling_restart_costs_no_caller_anything_and_hands_on_whom_it_meets(tmp_path: Path) -> None:
    calls = restarted(tmp_path)
    assert [call.verdicts for call in calls] == [[]] * len(calls)
    assert sum(len(call.hand_overs) for call in calls if call.struck_at is not None) >= 2
    assert all(call.jitter_s for call in calls)


@pytest.mark.journey
@pytest.mark.load
@pytest.mark.timeout(400)
def test_a_house_that_forgets_whom_it_hands_on_is_lost_in_a_rolling_restart(tmp_path: Path) -> None:
    assert "memory" in {verdict.rule for call in restarted(tmp_path, planted="no-memory") for verdict in call.verdicts}


@pytest.mark.journey
@pytest.mark.postgres
@pytest.mark.timeout(200)
async def test_a_run_that_is_told_to_leave_drops_its_database_and_says_what_was_played(tmp_path: Path, server: str) -> None:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "manage.py", "sandbox", "faults", "--database", server, "--only", "P6"),
        *("--json", str(tmp_path / "it.json"), "--html", str(tmp_path / "it.html")),
        cwd=HOME,
        env=os.environ | {"DEBUG": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as a shell's `&` does it
    )
    assert running.stdout is not None
    async with asyncio.timeout(60):
        while b"starting serve" not in await running.stdout.readline():
            pass
    assert len(of_ours(server)) == 1
    for _ in range(2):
        running.send_signal(signal.SIGTERM)
    said = (await asyncio.wait_for(running.communicate(), 60))[0].decode()
    assert running.returncode == 2, said
    kept = json.loads((tmp_path / "it.json").read_text())
    assert (kept["interrupted"], kept["database"].split()[0]) == (True, "PostgreSQL")
    assert of_ours(server) == []


@pytest.mark.journey
@pytest.mark.load
@pytest.mark.timeout(400)  # a caller whom nobody looks after waits for a hundred seconds
@pytest.mark.parametrize(("planted", "fault", "rule"), LOST_BY)
def test_the_laboratory_sees_a_bug_that_is_planted_in_the_house_for_what_it_is(tmp_path: Path, planted: str, fault: str, rule: str) -> None:
    told = {verdict.rule for call in played(tmp_path, fault, planted=planted) for verdict in call.verdicts if call.struck_at is not None}
    assert rule in told
