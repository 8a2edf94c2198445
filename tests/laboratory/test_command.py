"""A run of the laboratory that is broken off has not been for nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from supportvoice.laboratory import command


def test_what_was_played_until_somebody_interrupts_is_told_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_play", interrupted)
    said: list[str] = []
    options = {"only": ["C9"], "runs": 1, "seed": 3, "nemesis": 0, "at_once": 0, "json": tmp_path / "it.json", "html": tmp_path / "it.html"}
    with pytest.raises(command.Interrupted):
        command.run(options, tell=said.append, directory=tmp_path)
    kept = json.loads((tmp_path / "it.json").read_text())
    assert (kept["interrupted"], kept["calls"], kept["bound_95"]) == (True, 0, None)
    assert f"kept in {tmp_path / 'it.html'}" in said
