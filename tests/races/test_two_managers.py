"""R17 on two processes: of two managers who save one row of the desk at the same moment, one does, and the other is told.

SQLite has one writer at a time; PostgreSQL lets both into their transactions, so there only a condition at the writing helps.
"""

from __future__ import annotations

import pytest

from tests.races.pair import Pair

TIMES = 6
WRITTEN = {"assistanttemplate": "prompt", "phoneline": "disclosure", "handofftarget": "name", "tool": "description", "team": "name"}
OTHER_WAY_ROUND = {"form-0": "form-1", "form-1": "form-0"}


def one_is_told_each_time(pair: Pair, kind: str) -> None:
    field = WRITTEN[kind]
    for number in range(TIMES):
        ((anns, bobs),) = pair.at_once("open_row", [{"by": "ann", "kind": kind}], "open_row", [{"by": "bob", "kind": kind}])
        anns["form"][field], bobs["form"][field] = f"ann, {number}", f"bob, {number}"
        ann, bob = both_save(pair, anns, bobs, kind)
        assert sorted((ann, bob)) == ["302", "told"]
        ((stored, _),) = pair.at_once("stored", [{"kind": kind, "field": field}])
        assert stored == (f"ann, {number}" if ann == "302" else f"bob, {number}")


def both_save(pair: Pair, anns: dict[str, object], bobs: dict[str, object], kind: str) -> tuple[str, str]:
    ((ann, bob),) = pair.at_once("save_page", [{"by": "ann", "kind": kind, **anns}], "save_page", [{"by": "bob", "kind": kind, **bobs}])
    return ann, bob


def one_order_stands_each_time(pair: Pair) -> None:
    """They send the two colleagues in opposite orders, as from lists that are sorted otherwise."""
    for number in range(TIMES):
        ((anns, bobs),) = pair.at_once("open_colleagues", [{"by": "ann"}], "open_colleagues", [{"by": "bob"}])
        of_ann, of_bob = [100 + number, 200 + number], [300 + number, 400 + number]
        for form, orders in ((anns["form"], of_ann), (bobs["form"], of_bob)):
            first, second = sorted((0, 1), key=lambda place: int(form[f"form-{place}-id"][0]))
            form[f"form-{first}-order"], form[f"form-{second}-order"] = orders
        bobs["form"] = {OTHER_WAY_ROUND.get(name[:6], name[:6]) + name[6:]: value for name, value in bobs["form"].items()}
        ann, bob = both_save(pair, anns, bobs, "handofftarget")
        assert sorted((ann, bob)) == ["302", "told"]
        ((stored, _),) = pair.at_once("stored_orders", [{}])
        assert stored == (of_ann if ann == "302" else of_bob)


@pytest.mark.parametrize("kind", WRITTEN)
def test_of_two_managers_who_save_one_row_at_once_one_is_told(pair: Pair, kind: str) -> None:
    one_is_told_each_time(pair, kind)


def test_of_two_managers_who_save_the_list_of_colleagues_at_once_one_is_told(pair: Pair) -> None:
    one_order_stands_each_time(pair)


@pytest.mark.postgres
@pytest.mark.timeout(300)
def test_of_two_managers_who_save_one_thing_at_once_one_is_told_on_postgresql(pair_on_postgresql: Pair) -> None:
    for kind in WRITTEN:
        one_is_told_each_time(pair_on_postgresql, kind)
    one_order_stands_each_time(pair_on_postgresql)
