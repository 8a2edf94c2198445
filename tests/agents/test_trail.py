"""The trail: each line follows the one before it, and nobody changes one unseen."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, Error, connection, transaction

from agents import trail
from agents.models import AuditEntry, TrailIsKept
from agents.trail import Head, Who
from tests.builders import EPOCH, at_once

pytestmark = pytest.mark.django_db
TABLE = AuditEntry._meta.db_table


def note(number: int = 1, **fields: Any) -> AuditEntry:
    told: dict[str, Any] = {"actor": "ann", "subject": f"agent {number}", "detail": {"fields": ["greeting"]}, "address": "192.0.2.7"}
    return trail.record("changed", at=EPOCH + timedelta(seconds=number), **{**told, **fields})


def notes(count: int = 5) -> list[AuditEntry]:
    return [note(number) for number in range(1, count + 1)]


def verified(*args: str) -> str:
    out = io.StringIO()
    call_command("audit_verify", *args, stdout=out)
    return out.getvalue()


def refused(*args: str) -> str:
    with pytest.raises(CommandError) as why:
        verified(*args)
    assert why.value.returncode == 1
    return str(why.value)


def tamper(sql: str, *values: Any) -> None:
    """As somebody does who has the database."""
    with connection.cursor() as cursor:
        cursor.execute(sql.replace("TRAIL", TABLE), values)


# -- writing -----------------------------------------------------------------------------------------------------------


def test_each_line_has_the_next_number_and_the_hash_of_the_one_before_it() -> None:
    first, second, third = notes(3)
    assert [line.number for line in (first, second, third)] == [1, 2, 3]
    assert [line.before for line in (first, second, third)] == [trail.BEGINNING, first.hash, second.hash]


def test_the_hash_is_what_the_page_about_the_trail_says_it_is() -> None:
    line = note(actor="änn")
    written = (
        '{"action":"changed","actor":"\\u00e4nn","address":"192.0.2.7","at":"2026-03-01T14:47:04.120000+00:00",'
        f'"before":"{"0" * 64}","detail":{{"fields":["greeting"]}},"number":1,"subject":"agent 1"}}'
    )
    assert line.hash == hashlib.sha256(written.encode()).hexdigest()


@pytest.mark.parametrize(
    "detail",
    [
        {"n": 2**70, "yes": True, "none": None, "list": ["a", 1, {"deep": ["ü", "\U0001f600"]}]},
        {"nul": "a\0b", "half": "\ud83d", "lines": "a\r\n\u2028b", 7: 1.5, "pair": (1, EPOCH), "set": {1}},
        {},
    ],
)
def test_whatever_is_told_verifies_after_the_database_gave_it_back(detail: dict[Any, Any]) -> None:
    note(detail=detail, actor="a\0" * 200, subject="\ud83d\n" * 300, address="f" * 99)
    trail.record("x" * 99, actor="", at=datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC))
    assert trail.verify().number == 2
    for line in AuditEntry.objects.all():
        assert (line.actor + line.subject + json.dumps(line.detail, ensure_ascii=False)).isprintable()


def test_a_line_is_neither_changed_nor_taken_out() -> None:
    line, *_ = notes(2)
    head = trail.verify()
    line.actor = "nobody"
    attempts: tuple[Callable[[], object], ...] = (
        line.save,
        lambda: line.save(update_fields=["actor"]),
        line.delete,
        lambda: AuditEntry.objects.update(actor="nobody"),
        lambda: AuditEntry.objects.filter(number=1).delete(),
        lambda: AuditEntry.objects.bulk_update([line], ["actor"]),
        lambda: AuditEntry.objects.bulk_create([AuditEntry(number=9)]),
        lambda: AuditEntry.objects.update_or_create(number=1, defaults={"actor": "nobody"}),
    )
    for attempt in attempts:
        with pytest.raises(TrailIsKept):
            attempt()
    with pytest.raises(DatabaseError), transaction.atomic():
        AuditEntry(pk=line.pk, number=9, at=EPOCH, action="x").save()
    assert trail.verify() == head


def test_a_line_lives_and_dies_with_the_transaction_of_what_it_tells() -> None:
    note(1)
    with transaction.atomic():
        note(2)
        transaction.set_rollback(True)
    note(3)
    assert list(AuditEntry.objects.order_by("number").values_list("number", "subject")) == [(1, "agent 1"), (2, "agent 3")]
    assert trail.verify().number == 2


@pytest.mark.django_db(transaction=True)
def test_writers_who_come_at_once_leave_one_chain_without_a_gap() -> None:
    def write(name: str) -> Callable[[], None]:
        def work() -> None:
            for number in range(5):
                with transaction.atomic():
                    note(number, actor=name)

        return work

    at_once([write(f"writer-{number}") for number in range(8)])
    assert trail.verify().number == 40
    for number in range(8):
        of_one = AuditEntry.objects.filter(actor=f"writer-{number}").order_by("number").values_list("subject", flat=True)
        assert list(of_one) == [f"agent {place}" for place in range(5)]


def test_whoever_is_overtaken_each_time_gives_up_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    notes(3)
    monkeypatch.setattr(trail, "_head", lambda: Head(1, "old"))  # somebody else always has the next number by now
    with pytest.raises(trail.NotRecorded):
        note(4)
    assert issubclass(trail.NotRecorded, Error)
    assert AuditEntry.objects.count() == 3


# -- looking -----------------------------------------------------------------------------------------------------------


def look(*, who: str = "ann", address: str = "192.0.2.7", subject: str = "call-1", minutes: float = 0, action: str = "call-read") -> None:
    trail.seen(action, who=Who(who, address), subject=subject, at=EPOCH + timedelta(minutes=minutes))


def test_looking_again_within_five_minutes_is_one_line_and_after_them_another() -> None:
    for minutes in (0, 0.1, 4.9, 5.1, 9.9):
        look(minutes=minutes)
    assert AuditEntry.objects.count() == 2


def test_somebody_else_something_else_or_somewhere_else_is_a_line_of_its_own() -> None:
    look()
    look(who="bob")
    look(subject="call-2")
    look(address="198.51.100.1")
    look(action="recording-heard")
    assert AuditEntry.objects.count() == 5


@pytest.mark.django_db(transaction=True)
def test_eight_pages_that_open_in_the_same_moment_are_one_line() -> None:
    at_once([look] * 8)
    assert AuditEntry.objects.count() == 1


# -- verifying ---------------------------------------------------------------------------------------------------------


def test_a_sound_trail_is_one_line_with_its_count_and_head() -> None:
    assert verified() == f"0 entries, each as it was written. Head: 0:{trail.BEGINNING}\n"
    *_, last = notes(3)
    assert verified() == f"3 entries, each as it was written. Head: 3:{last.hash}\n"


def test_no_entry_is_left_out_where_handfuls_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "READ_AT_ONCE", 2)
    notes(5)
    assert trail.verify().number == 5
    tamper("UPDATE TRAIL SET actor = 'bob' WHERE number = 3")
    assert refused() == "Entry 3 was changed after it was written."


def test_a_head_that_was_noted_down_is_found_again_however_long_the_trail_has_become() -> None:
    head = trail.verify()
    notes(3)
    assert verified("--expect", str(head)).startswith("3 entries")
    noted = trail.verify()
    note(4)
    assert verified("--expect", str(noted)).startswith("4 entries")


CHANGES: dict[str, Any] = {
    "at": "2026-03-01 14:47:09",
    "actor": "bob",
    "address": "",
    "action": "deleted",
    "subject": "agent 33",
    "detail": '{"fields":["prompt"]}',
    "before": "f" * 64,
    "hash": "f" * 64,
    "number": 33,
}


def test_a_change_of_every_column_is_tried() -> None:
    assert set(CHANGES) == {field.column for field in AuditEntry._meta.concrete_fields} - {"id"}  # the row's own name says nothing


@pytest.mark.parametrize("place", [1, 3, 5])
@pytest.mark.parametrize("column", sorted(set(CHANGES) - {"number"}))
def test_a_changed_column_is_found_in_its_entry(column: str, place: int) -> None:
    notes()
    tamper(f"UPDATE TRAIL SET {column} = %s WHERE number = %s", CHANGES[column], place)
    assert refused() == f"Entry {place} was changed after it was written."


@pytest.mark.parametrize("place", [1, 3])
def test_a_changed_number_leaves_a_gap_that_is_found(place: int) -> None:
    notes()
    tamper("UPDATE TRAIL SET number = 33 WHERE number = %s", place)
    assert refused() == f"Entry {place} is missing."


@pytest.mark.parametrize("place", [1, 3])
def test_an_entry_that_was_taken_out_is_missed(place: int) -> None:
    notes()
    tamper("DELETE FROM TRAIL WHERE number = %s", place)
    assert refused() == f"Entry {place} is missing."


def test_an_entry_that_was_taken_out_is_missed_when_the_others_close_ranks() -> None:
    notes()
    tamper("DELETE FROM TRAIL WHERE number = 3")
    for number in (4, 5):
        tamper("UPDATE TRAIL SET number = %s WHERE number = %s", number - 1, number)
    assert refused() == "Entry 3 is another one: entries were reordered."


def test_two_entries_that_changed_places_are_found() -> None:
    notes()
    for old, new in ((2, 99), (4, 2), (99, 4)):
        tamper("UPDATE TRAIL SET number = %s WHERE number = %s", new, old)
    assert refused() == "Entry 2 is another one: entries were reordered."


def test_an_entry_before_the_first_is_found() -> None:
    note()
    tamper("UPDATE TRAIL SET number = 0")
    assert refused() == "Entry 0 has a number that is never given."


def test_an_entry_that_was_sealed_again_does_not_fit_the_next_one() -> None:
    _, second, *_ = notes()
    second.actor = "bob"
    tamper("UPDATE TRAIL SET actor = 'bob', hash = %s WHERE number = 2", trail.seal(second))
    assert refused() == "Entry 3 does not follow entry 2: one of them was written anew."


def test_an_end_that_was_cut_off_is_found_by_the_head_that_was_noted_down() -> None:
    notes()
    noted = str(trail.verify())
    tamper("DELETE FROM TRAIL WHERE number = 5")
    assert verified().startswith("4 entries")  # which is why a head is to be kept elsewhere
    assert refused("--expect", noted) == "Entry 5 is missing: the trail was cut off, it went on to entry 5."


def test_a_trail_that_was_written_anew_is_found_by_the_head_that_was_noted_down() -> None:
    notes()
    noted = str(trail.verify())
    tamper("DELETE FROM TRAIL")
    for number in range(1, 8):
        note(number, actor="bob")
    assert verified().startswith("7 entries")
    assert refused("--expect", noted) == "Entry 5 is not the one that is expected: the trail was written anew."


@pytest.mark.parametrize(("column", "value"), [("detail", "{"), ("at", "yesterday")])
def test_a_value_that_cannot_even_be_read_is_named_too(column: str, value: str) -> None:
    if connection.vendor != "sqlite":
        return  # PostgreSQL refuses such values itself
    notes()
    if column == "detail":
        tamper("PRAGMA ignore_check_constraints = ON")
    tamper(f"UPDATE TRAIL SET {column} = %s WHERE number = 3", value)
    tamper("PRAGMA ignore_check_constraints = OFF")
    assert "Entry 3" in refused()


@pytest.mark.parametrize("head", ["5", "x:y", f"-1:{'0' * 64}", f"1:{'0' * 63}", f"{'9' * 30}:{'0' * 64}"])
def test_a_head_nobody_printed_is_one_sentence_and_exit_code_2(head: str) -> None:
    with pytest.raises(CommandError, match=r"^--expect takes a head as audit_verify prints it, NUMBER:HASH\.$") as why:
        verified(f"--expect={head}")
    assert why.value.returncode == 2


def test_the_end_is_checked_by_itself_and_only_the_end() -> None:
    assert trail.verify_end(3) == 0
    notes(2)
    assert trail.verify_end(3) == 2
    notes(4)
    assert trail.verify_end(3) == 3
    tamper("UPDATE TRAIL SET actor = 'bob' WHERE number = 2")
    assert trail.verify_end(3) == 3
    with pytest.raises(trail.Broken, match="Entry 2 was changed"):
        trail.verify_end(5)
    tamper("DELETE FROM TRAIL WHERE number = 5")
    with pytest.raises(trail.Broken, match="Entry 5 is missing"):
        trail.verify_end(3)


def test_whoever_runs_a_command_is_known_by_the_machine_and_not_by_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "somebody-else")
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert Who.at_the_shell().actor.startswith("command:")
    assert "somebody-else" not in Who.at_the_shell().actor
