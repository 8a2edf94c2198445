"""A run of the laboratory that is broken off has not been for nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from supportvoice.laboratory import command, databases

GIVEN: dict[str, Any] = {"only": ["C9", "C14"], "runs": 1, "seed": 3, "nemesis": 0, "restarts": 0, "at_once": 0, "database": ""}


def played(tmp_path: Path, **changed: Any) -> tuple[dict[str, Any], list[str]]:
    """What is kept, and what was said, of a run that is broken off at once."""
    said: list[str] = []
    options = {**GIVEN, "json": tmp_path / "it.json", "html": tmp_path / "it.html", **changed}
    with pytest.raises(command.Interrupted):
        command.run(options, tell=said.append, directory=tmp_path)
    return json.loads((tmp_path / "it.json").read_text()), said


@pytest.mark.parametrize("by", [KeyboardInterrupt, asyncio.CancelledError], ids=["Ctrl-C", "SIGTERM"])
def test_what_was_played_until_somebody_interrupts_is_told_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: type[BaseException]
) -> None:
    async def interrupted(*_: Any) -> None:
        raise by

    monkeypatch.setattr(command, "_play", interrupted)
    kept, said = played(tmp_path)
    assert (kept["interrupted"], kept["calls"], kept["bound_95"]) == (True, 0, None)
    assert f"kept in {tmp_path / 'it.html'}" in said


@pytest.mark.parametrize("wrong", [{"restarts": -1}, {"restarts": 2, "nemesis": 10}], ids=["fewer than none", "two runs in one"])
def test_restarts_that_cannot_be_played_are_refused_before_a_house_is_opened(tmp_path: Path, wrong: Mapping[str, int]) -> None:
    with pytest.raises(command.Misused):
        command.run({**GIVEN, **wrong}, tell=print, directory=tmp_path)


def test_a_run_says_on_which_database_it_was_played_and_which_rows_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[str] = []

    async def interrupted(_: Any, to_play: Any, *__: Any) -> None:
        rows.extend(row.name for row in to_play)
        raise asyncio.CancelledError

    monkeypatch.setattr(command, "_play", interrupted)
    kept, said = played(tmp_path)
    assert kept["database"] == databases.named("")
    assert sorted(kept["not_covered"]) == ["C14 no answer", "C14 read-only", "C14 refused"]
    assert not {*rows} & {*kept["not_covered"]}
    assert any(line.startswith("not covered: C14 read-only, SQLite is a file") for line in said)
    monkeypatch.setattr(databases, "named", lambda server: "PostgreSQL 17.1")
    kept, _ = played(tmp_path, database="postgres://who:hunter2@db.test/postgres")
    assert (kept["database"], kept["not_covered"]) == ("PostgreSQL 17.1", {})
    assert {"C14 no answer", "C14 read-only", "C14 refused"} <= {*rows}
    assert "hunter2" not in json.dumps(kept)


@pytest.mark.parametrize(
    ("url", "why"),
    [("sqlite:///db.sqlite3", "--database takes postgres://"), ("postgres://who:hunter2@127.0.0.1:1/it", "No PostgreSQL answers")],
)
def test_a_database_on_which_nothing_can_be_played_is_one_sentence(tmp_path: Path, url: str, why: str) -> None:
    with pytest.raises(command.Misused, match=why) as misused:
        command.run({**GIVEN, "database": url}, tell=print, directory=tmp_path)
    assert "hunter2" not in str(misused.value)
