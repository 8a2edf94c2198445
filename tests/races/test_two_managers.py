"""R17 on two processes: of two managers who save one draft at the same moment, one does, and the other is told.

SQLite has one writer at a time; PostgreSQL lets both into their transactions, so there only a condition at the writing helps.
"""

from __future__ import annotations

import pytest

from tests.races.pair import Pair

TIMES = 12


def one_is_told_each_time(pair: Pair) -> None:
    for number in range(TIMES):
        ((anns, bobs),) = pair.at_once("open_draft", [{"by": "ann"}], "open_draft", [{"by": "bob"}])
        anns["form"]["prompt"], bobs["form"]["prompt"] = f"ann, {number}", f"bob, {number}"
        ((ann, bob),) = pair.at_once("save_draft", [{"by": "ann", **anns}], "save_draft", [{"by": "bob", **bobs}])
        assert sorted((ann, bob)) == ["302", "told"]
        ((stored, _),) = pair.at_once("draft", [{"pk": anns["pk"]}])
        assert stored == (f"ann, {number}" if ann == "302" else f"bob, {number}")


def test_of_two_managers_who_save_one_draft_at_once_one_is_told(pair: Pair) -> None:
    one_is_told_each_time(pair)


@pytest.mark.postgres
@pytest.mark.timeout(300)
def test_of_two_managers_who_save_one_draft_at_once_one_is_told_on_postgresql(pair_on_postgresql: Pair) -> None:
    one_is_told_each_time(pair_on_postgresql)
