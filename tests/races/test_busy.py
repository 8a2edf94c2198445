"""A PostgreSQL that is busy as Vapi answers a create costs no second agent of the same name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.races.pair import Child

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]
LEARNT = ("calls_vendorhealth", "calls_linelimit")  # how an account takes calls
ITS_ROW = "calls_vapisession"
ONCE = {"made": 1, "ended": 0, "state": "live"}
STORED, KEPT = {**ONCE, "kept": 0, "cleared": False}, {**ONCE, "kept": 1, "cleared": True}


def test_an_agent_whose_create_is_answered_while_a_question_finds_no_answer_is_kept_and_made_once(migrated: str, tmp_path: Path) -> None:
    child = Child(migrated, str(tmp_path))
    try:
        child.ready()
        busy = [{"table": table, "gives_up": gives_up} for table in (*LEARNT, ITS_ROW) for gives_up in (False, True)]
        child.begin("make_while_busy", busy, 0.0)
        assert child.results() == [STORED] * 5 + [KEPT]
    finally:
        child.end()
