"""The report of the laboratory, and the fault table: what is told, and that nothing is told that was not measured."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import pytest

from bridge.sandbox.twilio import TwilioCall
from supportvoice.laboratory import matrix, report
from supportvoice.laboratory.databases import POSTGRESQL, SQLITE
from supportvoice.laboratory.judge import Verdict
from supportvoice.laboratory.person import Person
from supportvoice.laboratory.runs import Placed
from supportvoice.laboratory.witness import HandOver

FOUND: dict[str, Any] = {
    "date": "2026-11-29T08:00:00+00:00",
    "commit": "abc",
    "seed": 7,
    "machine": {"cores": 2, "cpu": "x<y", "system": "Linux", "kernel": "6"},
    "versions": {"python": "3.11"},
    "database": "PostgreSQL 15.18",
    "calls": 3000,
    "injected": 3000,
    "lost": 0,
    "bound_95": 0.001,
    "rung_again": 0,
    "asked_again": 0,
    "stream_sound_s": {"p50": 0.1, "p95": 0.2, "p99": 0.3, "max": 0.4, "n": 3000},
    "stream_sound_late": {"house": 0, "process_stopped": 0, "machine_stood_still": 0, "caller_spoke": 0},
    "documents_s": None,
    "restarts_s": None,
    "ids": [],
    "not_covered": {"P1": "no <call>"},
    "rows": [
        {
            "id": "C9",
            "fault": "C9 one stay",
            "says": "kill -9",
            "healthy": "R1",
            "calls": 3,
            "injected": 3,
            "lost": 1,
            "rung_again": 2,
            "noticed_s": {"p50": 1.0, "p95": 2.0, "max": 2.5},
            "served_again_s": None,
            "jitter_s": None,
            "handed_on": None,
            "well_again_s": None,
            "losses": [{"rule": "silence", "at_s": 3.2, "what": "nothing <for> the caller"}],
        }
    ],
}


def test_p95_is_a_value_that_was_measured() -> None:
    assert report.spread([]) is None
    assert report.spread([0.5]) == {"p50": 0.5, "p95": 0.5, "p99": 0.5, "max": 0.5, "n": 1}
    assert report.spread([float(each) for each in range(100, 0, -1)]) == {"p50": 51.0, "p95": 96.0, "p99": 100.0, "max": 100.0, "n": 100}


def test_the_bound_is_told_only_when_nobody_was_lost_and_enough_were_tried() -> None:
    assert (
        report.summary(FOUND)
        == "3000 calls, 3000 of them with a fault, 0 lost: with 95 % certainty at most 0.10% of calls with such a fault are."
    )
    assert report.summary({**FOUND, "lost": 1, "bound_95": None}) == "3000 calls, 3000 of them with a fault, 1 lost."
    assert "0 lost (2 more would count as lost, but this machine stood still" in report.summary({**FOUND, "rung_again": 2})
    assert report.summary({**FOUND, "bound_95": 1.5}).endswith("0 lost.")


def test_the_terminal_tells_each_fault_each_loss_and_what_was_not_tried() -> None:
    lines = list(report.table(FOUND))
    assert re.fullmatch(r"C9 one stay +3  1 +2 +1\.00 / 2\.00 / 2\.50 +- +kill -9", lines[1])
    assert "LOST C9 one stay: silence: nothing <for> the caller" in lines
    assert "not covered: P1, no <call>" in lines
    waited = "p50/p99/max 0.10 / 0.30 / 0.40 s of 3000; what Twilio waited for a document -."
    assert lines[-2] == f"First sound on a media stream, from its start, {waited}"
    assert not any("asked by themselves" in line for line in lines)
    assert any(line.endswith("asked by themselves: 2.") for line in report.table({**FOUND, "asked_again": 2}))
    late = {"house": 1, "process_stopped": 2, "machine_stood_still": 3, "caller_spoke": 4}
    whose = "3 because this machine stood still, 2 of processes made to stand still, 4 into the caller's own words, 1 of the house"
    assert f"of 3000, 10 of them after more than 1 s: {whose}; what Twilio" in report.waits({**FOUND, "stream_sound_late": late})
    assert lines[-1] == "seed 7, commit abc, PostgreSQL 15.18, 2 cores, x<y, 2026-11-29T08:00:00+00:00"


def test_the_page_is_one_file_escaped_and_reached_by_keyboard() -> None:
    page = report.page(FOUND)
    assert "<script" not in page
    assert "://" not in page
    assert "no &lt;call&gt;" in page
    assert "On PostgreSQL 15.18." in page
    assert "<p>First sound on a media stream" in page
    assert "nothing &lt;for&gt; the caller" in page
    assert 'tabindex="0" role="region" aria-label="Faults"' in page
    assert "prefers-color-scheme: dark" in page


def test_a_document_of_no_calls_is_json_and_promises_nothing() -> None:
    found = json.loads(json.dumps(report.document(about={"seed": 1}, calls=[], not_covered={})))
    assert (found["calls"], found["bound_95"], found["rows"]) == (0, None, [])


async def test_rows_of_one_id_are_added_up_and_discarded_calls_are_counted() -> None:
    lost = [Verdict("silence", 1.0, "nothing")]
    first, other = matrix.chosen(["C2 1001", "C2 1011"])
    unhurt = placed(matrix.chosen(["P6"])[0], struck_at=None, first_sounds_s=(0.4, 0.2))
    unhurt.person.asked = 2
    calls = [placed(other, rung_again=2, late_sounds=("house",)), placed(first, verdicts=lost), unhurt]
    found = report.document(about={}, calls=calls, not_covered={})
    counted = [(each["id"], each["calls"], each["injected"], each["lost"], each["rung_again"]) for each in found["ids"]]
    assert counted == [("P6", 1, 0, 0, 0), ("C2", 2, 2, 1, 2)]
    assert (found["rung_again"], [row["rung_again"] for row in found["rows"]]) == (2, [2, 0, 0])
    assert found["stream_sound_s"]["n"] == 2
    assert found["asked_again"] == 1
    assert found["stream_sound_late"] == {"house": 1, "process_stopped": 0, "machine_stood_still": 0, "caller_spoke": 0}


async def test_an_id_is_told_by_what_twilio_does_after_a_stream_that_broke_off() -> None:
    goes_on, stays = matrix.chosen(["C9 one next verb", "C9 one stay"])
    (other,) = matrix.chosen(["P6"])
    calls = [placed(goes_on, noticed_s=0.1, served_s=1.2), placed(stays, noticed_s=0.2, served_s=3.5), placed(stays), placed(other)]
    found = report.document(about={"restarts_s": None}, calls=calls, not_covered={})
    by_id = {each["id"]: each["twilio"] for each in found["ids"]}
    assert by_id["P6"] is None
    assert {way: (each["injected"], each["served_again_s"]["n"]) for way, each in by_id["C9"].items()} == {
        "goes_on": (1, 1),
        "stays": (2, 1),
    }
    assert list(report.special(found)) == [
        "C9, Twilio goes on: 1 with a fault, 0 lost; noticed p50/p95/max 0.10 / 0.10 / 0.10 s, served again 1.20 / 1.20 / 1.20 s of 1.",
        "C9, Twilio stays: 2 with a fault, 0 lost; noticed p50/p95/max 0.20 / 0.20 / 0.20 s, served again 3.50 / 3.50 / 3.50 s of 1.",
    ]


async def test_hand_overs_restarts_and_a_burst_are_told_at_the_terminal_and_on_the_page() -> None:
    (leaves,), (burst,) = matrix.chosen(["C12"]), matrix.chosen(["P19 tenfold"])
    handed = (HandOver(1.3, 1.5, 0.5), HandOver(0.8, 0.9, 0.4))
    calls = [placed(leaves, hand_overs=handed), placed(burst, jitter_s=(0.002, 0.03)), placed(burst, well_again_s=1.25)]
    found = report.document(about={**FOUND, "restarts_s": report.spread([61.0, 40.0])}, calls=calls, not_covered={})
    assert [row["handed_on"] is None for row in found["rows"]] == [False, True]
    said = [
        "2 rolling restarts of the whole house, each p50/p95/max 61.00 / 61.00 / 61.00 s.",
        "C12: handed on 2 times; nothing of us heard for p50/p95/max 1.30 / 1.30 / 1.30 s, of either side for 1.50 / 1.50 / 1.50,"
        " no stream for 0.50 / 0.50 / 0.50.",
        "P19 tenfold: jitter of who was carried p50/p99/max 30 / 30 / 30 ms of 2; no document late any more after 1.25 s at most.",
    ]
    assert list(report.special(found)) == said
    page = report.page(found)
    assert all(f"<p>{each}</p>" in page for each in said)
    assert said == [each for each in report.table(found) if each in said]


def placed(row: matrix.Row, **changed: Any) -> Placed:
    phone = TwilioCall(webhook_url="http://house/", auth_token="key", caller=Person(), web=cast(Any, None))
    return Placed(row, phone, cast(Any, None), "R1", **{"struck_at": 1.0, **changed})


def test_every_row_of_the_table_has_a_name_of_its_own() -> None:
    names = [row.name for row in matrix.MATRIX]
    assert len(set(names)) == len(names)


def test_every_id_of_the_fault_table_is_played_or_said_to_be_left_out() -> None:
    ids = {f"P{n}" for n in range(1, 22)} | {f"C{n}" for n in range(1, 23)} | {f"E{n}" for n in range(1, 10)}
    ids |= {f"R{n}" for n in range(1, 19)}
    assert {row.id for row in matrix.MATRIX} | set(matrix.NOT_COVERED) == ids
    assert {row.id for row in matrix.MATRIX} & set(matrix.NOT_COVERED) == set()


def test_all_pairs_of_eight_faults_are_played() -> None:
    assert len([row for row in matrix.MATRIX if row.id == "C22"]) == 28


def test_rows_are_chosen_by_id_or_by_name_and_an_unknown_one_is_told() -> None:
    assert {row.id for row in matrix.chosen(["c9"])} == {"C9"}
    assert [row.name for row in matrix.chosen(["C2 1011"])] == ["C2 1011"]
    assert matrix.chosen([]) == list(matrix.MATRIX)
    with pytest.raises(KeyError, match="C99"):
        matrix.chosen(["C99"])


def test_what_strikes_the_database_is_played_on_postgresql_or_it_is_said_why_not_on_sqlite() -> None:
    left_out = {row.name: row.not_here(SQLITE) for row in matrix.MATRIX if row.not_here(SQLITE)}
    assert {"P4 no answer", "P4 slow", "C14 refused", "C14 no answer", "C14 read-only"} <= left_out.keys() <= {*left_out, "P3"}
    assert all(why.startswith("SQLite is a file") for name, why in left_out.items() if name != "P3")
    assert [row.name for row in matrix.MATRIX if row.not_here(POSTGRESQL)] == []
    assert [row.name for row in matrix.MATRIX if row.house.is_wired and not row.not_here(SQLITE)] == []
