"""A run of the laboratory that is broken off has not been for nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from supportvoice.laboratory import command

OPTIONS: Mapping[str, Any] = {"only": ["C9"], "runs": 1, "seed": 3, "nemesis": 0, "restarts": 0, "at_once": 0, "json": None, "html": None}


def test_what_was_played_until_somebody_interrupts_is_told_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_play", interrupted)
    said: list[str] = []
    options = {**OPTIONS, "json": tmp_path / "it.json", "html": tmp_path / "it.html"}
    with pytest.raises(command.Interrupted):
        command.run(options, tell=said.append, directory=tmp_path)
    kept = json.loads((tmp_path / "it.json").read_text())
    assert (kept["interrupted"], kept["calls"], kept["bound_95"]) == (True, 0, None)
    assert f"kept in {tmp_path / 'it.html'}" in said


@pytest.mark.parametrize("wrong", [{"restarts": -1}, {"restarts": 2, "nemesis": 10}], ids=["fewer than none", "two runs in one"])
def test_restarts_that_cannot_be_played_are_refused_before_a_house_is_opened(tmp_path: Path, wrong: Mapping[str, int]) -> None:
    with pytest.raises(command.Misused):
        command.run({**OPTIONS, **wrong}, tell=print, directory=tmp_path)
