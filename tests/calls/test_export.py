"""The calls as other people's programs read them: docs/export-calls.md's object, in order, however many there are."""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import re
import tracemalloc
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from agents.models import DISCLOSURE
from calls import export, history
from calls.history import NewEvent
from calls.models import (
    CallEvent,
    CallMetrics,
    CallSession,
    EndReason,
    ErasedWhy,
    Heard,
    Outcome,
    Role,
    Rung,
    Source,
    Status,
    TranscriptLine,
    VapiSession,
)
from tests.builders import CALLER, EPOCH, LINE, a_call, session_of

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).parent.parent.parent
KEYS = (
    *("call_sid", "status", "end_reason", "outcome", "rung", "epoch", "from", "to", "template", "version", "vapi_call_ids"),
    *("started_at", "answered_at", "ended_at", "lines", "events", "metrics", "consent", "erased"),
)


def printed(*args: str) -> str:
    out = io.StringIO()
    call_command("export_calls", *args, stdout=out)
    return out.getvalue()


def objects(*args: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed(*args).split("\n")[:-1]]


def table(*args: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(printed("--format", "csv", *args), newline="")))


def say(call: CallSession, text: str, *, role: str = "user", seconds: float = 1.0, vapi: str = "v-1") -> None:
    at = EPOCH + timedelta(seconds=seconds)
    history.add_line(call=call, vapi_call_id=vapi, role=role, text=text, vendor_ms=round(at.timestamp() * 1000), at=at, n=0)


def a_finished_call() -> CallSession:
    over: dict[str, Any] = {"ended_at": EPOCH + timedelta(seconds=61), "end_reason": "agent_ended", "outcome": Outcome.RESOLVED}
    call = a_call(
        sid="CA1", status=Status.FINALISED, at=EPOCH, answered_at=EPOCH + timedelta(milliseconds=70), rung=Rung.RESUMED, epoch=2, **over
    )
    VapiSession.objects.filter(call=call).update(vapi_call_id="v-1")
    VapiSession.objects.create(call=call, n=1, vapi_call_id="v-2", asked_at=EPOCH)
    VapiSession.objects.create(call=call, n=2, asked_at=EPOCH)
    TranscriptLine.objects.filter(role="system").update(said="This call is answered by an AI agent.", at=EPOCH + timedelta(seconds=0.5))
    say(call, "Hi, how can I help you?", role="assistant", seconds=2)
    say(call, "I already tried that", seconds=1.5)
    TranscriptLine.objects.filter(role="assistant").update(heard=Heard.PART, heard_text="Hi, how")
    CallMetrics.objects.create(call=call, first_audio_ms=480, interruptions=1, time_to_silence_ms=[104], turn_latency_ms=[600, 710])
    return call


def test_a_call_is_the_object_of_the_contract() -> None:
    call = a_finished_call()
    [told] = objects()
    assert tuple(told) == KEYS
    assert call.version is not None
    assert told.pop("consent") == {
        "disclosed_at": "2026-03-01T14:47:03.120Z",
        "disclosure_sha256": hashlib.sha256(DISCLOSURE.encode()).hexdigest(),
        "agreed_at": None,
        "unrecorded_at": None,
    }
    assert told.pop("erased") == {"text_at": None, "why": None, "sound_at": None, "bodies_at": None}
    assert {key: told[key] for key in told if key not in ("lines", "events")} == {
        "call_sid": "CA1",
        "status": "finalised",
        "end_reason": "agent_ended",
        "outcome": "resolved",
        "rung": "R1",
        "epoch": 2,
        "from": CALLER,
        "to": LINE,
        "template": call.version.template.slug,
        "version": 1,
        "vapi_call_ids": ["v-1", "v-2"],
        "started_at": "2026-03-01T14:47:03.120Z",
        "answered_at": "2026-03-01T14:47:03.190Z",
        "ended_at": "2026-03-01T14:48:04.120Z",
        "metrics": {"first_audio_ms": 480, "interruptions": 1, "time_to_silence_ms": [104], "turn_latency_ms": [600, 710]},
    }


def test_lines_come_in_the_vendors_order_with_what_was_heard() -> None:
    a_finished_call()
    [told] = objects()
    assert told["lines"] == [
        {
            "at": "2026-03-01T14:47:03.620Z",
            "role": "system",
            "text": "This call is answered by an AI agent.",
            "heard": "full",
            "heard_text": "This call is answered by an AI agent.",
            "vapi_call_id": None,
        },
        {
            "at": "2026-03-01T14:47:04.620Z",
            "role": "user",
            "text": "I already tried that",
            "heard": "full",
            "heard_text": "I already tried that",
            "vapi_call_id": "v-1",
        },
        {
            "at": "2026-03-01T14:47:05.120Z",
            "role": "assistant",
            "text": "Hi, how can I help you?",
            "heard": "part",
            "heard_text": "Hi, how",
            "vapi_call_id": "v-1",
        },
    ]


def test_events_come_in_their_order_with_their_detail() -> None:
    call = a_finished_call()
    history.record_events(call_sid=call.call_sid, events=[NewEvent("dial-result", "twilio", EPOCH, {"status": "busy", "deep": {"a": [1]}})])
    [told] = objects()
    assert told["events"][0]["kind"] == "call-received"
    assert told["events"][-1] == {
        "at": "2026-03-01T14:47:03.120Z",
        "source": "twilio",
        "kind": "dial-result",
        "detail": {"status": "busy", "deep": {"a": [1]}},
    }
    assert len(told["events"]) == CallEvent.objects.filter(call=call).count()


def test_a_live_call_has_null_for_what_is_not_known_yet() -> None:
    call = a_call(status=Status.STREAMING)
    CallSession.objects.update(version=None, answered_at=None)
    assert not session_of(call).vapi_call_id
    [told] = objects()
    unknown = {key for key in KEYS if told[key] is None}
    assert unknown == {"end_reason", "template", "version", "answered_at", "ended_at"}
    assert told["metrics"] == {"first_audio_ms": None, "interruptions": 0, "time_to_silence_ms": [], "turn_latency_ms": []}
    assert told["vapi_call_ids"] == []


def test_calls_come_in_the_order_they_began_and_those_of_one_moment_in_the_order_they_came() -> None:
    for sid, seconds in (("CAc", 9), ("CAa", 5), ("CAb", 5), ("CAd", 1)):
        a_call(sid=sid, at=EPOCH + timedelta(seconds=seconds))
    assert [each["call_sid"] for each in objects()] == ["CAd", "CAa", "CAb", "CAc"]


def test_no_call_is_left_out_or_told_twice_where_handfuls_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "HANDFUL", 2)
    sids = [a_call(at=EPOCH + timedelta(seconds=place // 3)).call_sid for place in range(9)]
    assert [each["call_sid"] for each in objects()] == sids


def test_one_call_or_those_since_a_time_can_be_asked_for() -> None:
    for sid, day in (("CAa", 1), ("CAb", 2), ("CAc", 3)):
        a_call(sid=sid, at=datetime(2026, 3, day, 12, tzinfo=UTC))

    def since(moment: str) -> list[str]:
        return [each["call_sid"] for each in objects("--since", moment)]

    assert [each["call_sid"] for each in objects("--call", "CAb")] == ["CAb"]
    assert since("2026-03-02") == ["CAb", "CAc"]
    assert since("2026-03-02T12:00:00Z") == since("2026-03-02T12:00:00") == since("2026-03-02T14:00:00+02:00") == ["CAb", "CAc"]
    assert since("2026-03-02T12:00:00.001Z") == ["CAc"]
    assert objects("--since", "2026-03-02", "--call", "CAa") == []


@pytest.mark.parametrize("moment", ["yesterday", "2026-13-01", "2026-02-30T10:00", "14:47", "0001-01-01T00:00:00+14:00", "9" * 400])
def test_a_time_nobody_can_read_is_one_sentence_and_exit_code_2(moment: str) -> None:
    with pytest.raises(CommandError, match=r"^--since takes a day or a time, like .+\.$") as refused:
        printed("--since", moment)
    assert refused.value.returncode == 2


def test_an_unknown_call_is_one_sentence_and_exit_code_2() -> None:
    with pytest.raises(CommandError, match=r"^There is no such call\.$") as refused:
        printed("--call", "CA404")
    assert refused.value.returncode == 2


def test_no_call_at_all_prints_nothing_or_only_the_names_of_the_columns() -> None:
    assert printed() == ""
    assert printed("--format", "csv").count("\n") == 1


def test_no_character_of_a_transcript_ends_a_line() -> None:
    call = a_call()
    said = "one\r\ntwo\u2028three\u2029four\x85five\x1b[31m \U0001f600 ü"
    say(call, said)
    text = printed()
    assert text.isascii()
    assert len(text.splitlines()) == 1
    assert said in [line["text"] for line in json.loads(text)["lines"]]


def test_the_page_of_the_export_names_every_key_and_value() -> None:
    page = (ROOT / "docs" / "export-calls.md").read_text()
    told = {name for row in re.findall(r"^\| (`.+?`) \|", page, re.MULTILINE) for name in re.findall(r"`([a-z_]+)`", row)}
    assert told == set(KEYS)
    for choices in (Status, EndReason, Outcome, Role, Heard, Source, ErasedWhy):
        assert [value for value in choices.values if not re.search(rf"\b{value}\b", page)] == []


PROMISED = {
    *("call-received", "stream-started", "vapi-session-live", "greeting-heard", "clear-sent", "interruption-confirmed"),
    *("interruption-dismissed", "tool-called", "tool-answered", "rung-changed", "handover-requested", "dial-result"),
    *("voicemail-recorded", "stream-closed", "call-ended", "agent-speech-started", "user-speech-started", "tts-buffer-flushed"),
    *("transcript-partial", "transcript-final", "agent-response-queued"),
}


def words_of(tree: ast.Module) -> dict[str, str]:
    """The texts that a module gives a name."""
    named = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)]
    return {target.id: str(node.value.value) for node in named for target in node.targets if isinstance(target, ast.Name)}  # type: ignore[attr-defined]


def kinds_in_code() -> set[str]:
    """The kind of every event that is written anywhere: first of `Noted` and `NewEvent`, `kind` of `note_once`."""
    found: set[str] = set()
    paths = [*(ROOT / "bridge").glob("*.py"), *(ROOT / "calls").rglob("*.py")]
    trees = {".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text()) for path in paths}
    for tree in trees.values():
        named = words_of(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in trees:
                named |= {each.name: word for each in node.names if (word := words_of(trees[node.module]).get(each.name))}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            kinds = node.args[:1] if name in ("Noted", "NewEvent") else []
            kinds += [keyword.value for keyword in node.keywords if (name, keyword.arg) == ("note_once", "kind")]
            found |= {str(kind.value) for kind in kinds if isinstance(kind, ast.Constant)}
            found |= {named[kind.id] for kind in kinds if isinstance(kind, ast.Name) and kind.id in named}
    return found


def test_the_page_of_the_export_names_every_kind_of_event_that_is_written_and_none_was_renamed() -> None:
    page = (ROOT / "docs" / "export-calls.md").read_text().split("## Kinds of events")[1].split("\n## ")[0]
    told = {kind for row in re.findall(r"^\| (`.+?`) \|", page, re.MULTILINE) for kind in re.findall(r"`([a-z-]+)`", row)}
    assert told == kinds_in_code() >= PROMISED


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", '=HYPERLINK("http://x")', "=cmd|'/c calc'!A0", "＝1"]


def test_no_cell_of_the_table_is_a_formula_to_a_spreadsheet(monkeypatch: pytest.MonkeyPatch) -> None:
    for place, formula in enumerate(FORMULAS):
        a_call(sid=f"{formula}{place}", at=EPOCH + timedelta(seconds=place), from_number=formula)
    monkeypatch.setattr(export, "COLUMNS", ("call_sid", "from", "to", "epoch", "end_reason"))
    rows = table()
    assert [row["from"] for row in rows] == [f"'{formula}" for formula in FORMULAS]
    assert [row["call_sid"][0] for row in rows] == ["'"] * len(rows)
    assert {row["to"] for row in rows} == {f"'{LINE}"}
    assert {(row["epoch"], row["end_reason"]) for row in rows} == {("0", "")}


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_a_cell_says_what_it_said_and_never_begins_a_formula(text: str) -> None:
    cell = export.safe(text)
    assert not cell.startswith(export.BEGINS_A_FORMULA)
    assert cell in (text, f"'{text}")


def test_the_table_has_a_row_a_call_and_quotes_every_cell() -> None:
    a_finished_call()
    [row] = table()
    assert (row["call_sid"], row["outcome"], row["vapi_call_ids"], row["lines"]) == ("CA1", "resolved", "v-1 v-2", "3")
    assert row["transcript"].split("\n")[1:] == ["user: I already tried that", "assistant: Hi, how can I help you?"]
    assert (row["time_to_silence_ms"], row["turn_latency_ms"], row["first_audio_ms"]) == ("104", "600 710", "480")
    names, first = printed("--format", "csv").split("\r\n", 1)
    assert names == ",".join(f'"{name}"' for name in export.COLUMNS)
    assert first.startswith('"CA1","finalised",')
    assert first.endswith('"\r\n')


def test_quotes_and_line_ends_of_callers_stay_inside_their_cell() -> None:
    call = a_call()
    say(call, 'he said "no",\r\n"=1+1"\n;x')
    [row] = table()
    assert row["transcript"].split("\nsystem:")[0] == 'user: he said "no",\r\n"=1+1"\n;x'


def test_a_transcript_too_long_for_a_cell_is_cut_and_says_so() -> None:
    call = a_call(at=EPOCH)
    say(call, "word " * 10_000)
    [row] = table()
    assert len(row["transcript"]) < 32_767
    assert row["transcript"].endswith("(the rest is in the JSON export)")


# -- many of them ------------------------------------------------------------------------------------------------------


def many_calls(count: int) -> None:
    first = a_call(at=EPOCH)
    VapiSession.objects.all().delete()
    new = CallSession.objects.bulk_create(
        CallSession(
            call_sid=f"CA{place:032}",
            status=Status.STREAMING,
            version=first.version,
            started_at=EPOCH + timedelta(seconds=place),
            last_seen_at=EPOCH,
        )
        for place in range(1, count)
    )
    said = "words " * 20
    TranscriptLine.objects.bulk_create(
        TranscriptLine(call=call, role="user", said=said, vendor_ms=n, text_hash=str(n), at=EPOCH) for call in new for n in range(3)
    )
    CallEvent.objects.bulk_create(
        CallEvent(call=call, seq=n, source="vapi", kind="transcript-final", at=EPOCH, ms=n, detail={"text": said})
        for call in new
        for n in range(1, 4)
    )


def length_of(lines: Iterable[str]) -> int:
    return sum(1 for _ in lines)


def most_memory(lines: Iterable[str]) -> int:
    """The most bytes in use at once while the lines are gone through and forgotten."""
    tracemalloc.start()
    try:
        length_of(lines)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.long
def test_thousands_of_calls_cost_no_more_memory_than_hundreds_and_few_queries() -> None:
    count = 1000
    many_calls(count)
    middle = CallSession.objects.order_by("started_at")[count - 150].started_at
    most_memory(export.jsonl(export.calls(since=middle)))  # what is loaded once is no part of it
    few, all_ = most_memory(export.jsonl(export.calls(since=middle))), most_memory(export.jsonl(export.calls()))
    assert all_ < 1.25 * few + 100_000
    with CaptureQueriesContext(connection) as seen:
        assert length_of(export.as_csv(export.calls())) == count + 1
    assert len(seen) <= 4 * (count / export.HANDFUL) + 1
