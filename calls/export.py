"""What happened, for other people's programs: each call as the object of docs/export-calls.md, or as a row of a table.

Calls come in the order they began and are read in handfuls, each from where the last one ended, as plain values: memory
stays flat however many there are, and no reading stays open over the database. What is not known, or not yet, is null.
What a version leaves out is left out here once more: rows may be older than its rules.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from django.db.models import Q, QuerySet

from calls.discretion import rules_of
from calls.models import CallEvent, CallSession, Heard, TranscriptLine, VapiSession
from calls.redaction import Rules, Said, redact, redact_body, redact_talk

Row = Mapping[str, Any]

HANDFUL = 50  # calls in memory at a time
BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # the wide ones too: some spreadsheets take them
LONGEST_CELL = 32_000  # characters; spreadsheets break off a little later
CUT = " … (the rest is in the JSON export)"
CALL_FIELDS = (
    *("pk", "call_sid", "status", "end_reason", "outcome", "rung", "epoch", "from_number", "to_number"),
    *("version_id", "version__template__slug", "version__number", "started_at", "answered_at", "ended_at"),
    *("disclosed_at", "disclosure_mark", "agreed_at", "unrecorded_at", "erased_at", "erased_why", "sound_erased_at", "bodies_erased_at"),
    *("metrics__first_audio_ms", "metrics__interruptions", "metrics__time_to_silence_ms", "metrics__turn_latency_ms"),
)
COLUMNS = (
    *("call_sid", "status", "end_reason", "outcome", "rung", "epoch", "from", "to", "template", "version", "vapi_call_ids"),
    *("started_at", "answered_at", "ended_at", "lines", "transcript", "events"),
    *("first_audio_ms", "interruptions", "time_to_silence_ms", "turn_latency_ms"),
    *("disclosed_at", "agreed_at", "unrecorded_at", "erased_at", "erased_why"),
)


def calls(*, since: datetime | None = None, call_sid: str = "") -> QuerySet[CallSession]:
    """The calls to tell of."""
    chosen = CallSession.objects.order_by("started_at", "pk")
    if since is not None:
        chosen = chosen.filter(started_at__gte=since)
    return chosen.filter(call_sid=call_sid) if call_sid else chosen


def told(calls: QuerySet[CallSession]) -> Iterator[dict[str, Any]]:
    """Each call as its object. Calls that begin meanwhile come along at the end."""
    rows = calls.values(*CALL_FIELDS)
    after = Q()
    while handful := list(rows.filter(after)[:HANDFUL]):
        pks = [row["pk"] for row in handful]
        lines, events = (
            _by_call(TranscriptLine.objects.filter(call__in=pks), _line),
            _by_call(CallEvent.objects.filter(call__in=pks), _event),
        )
        known = VapiSession.objects.filter(call__in=pks).exclude(vapi_call_id=None).exclude(vapi_call_id="")
        vapi_ids = _by_call(known, lambda session: session["vapi_call_id"])
        for row in handful:
            pk, rules = row["pk"], rules_of(row["version_id"])
            yield _call(
                row,
                vapi_call_ids=vapi_ids.get(pk, []),
                lines=_as_stored(lines.get(pk, []), rules),
                events=redact_body(events.get(pk, []), rules),
            )
        last = handful[-1]
        after = Q(started_at__gt=last["started_at"]) | Q(started_at=last["started_at"], pk__gt=last["pk"])


def _as_stored(lines: list[Any], rules: Rules) -> list[Any]:
    moments = [round(datetime.fromisoformat(line["at"]).timestamp() * 1000) for line in lines]
    texts = redact_talk([Said(line["role"], ms, line["text"]) for line, ms in zip(lines, moments, strict=True)], rules)
    return [
        {**line, "text": text, "heard_text": text if line["heard"] == Heard.FULL else redact(line["heard_text"], rules)}
        for line, text in zip(lines, texts, strict=True)
    ]


def _by_call(rows: QuerySet[Any], shape: Callable[[Row], Any]) -> dict[int, list[Any]]:
    """What belongs to each call, in the rows' own order."""
    found: dict[int, list[Any]] = {}
    for row in rows.values():
        found.setdefault(row["call_id"], []).append(shape(row))
    return found


def _call(row: Row, *, vapi_call_ids: list[str], lines: list[Any], events: list[Any]) -> dict[str, Any]:
    return {
        "call_sid": row["call_sid"],
        "status": row["status"],
        "end_reason": row["end_reason"] or None,
        "outcome": row["outcome"],
        "rung": row["rung"],
        "epoch": row["epoch"],
        "from": row["from_number"],
        "to": row["to_number"],
        "template": row["version__template__slug"],
        "version": row["version__number"],
        "vapi_call_ids": vapi_call_ids,
        "started_at": stamp(row["started_at"]),
        "answered_at": stamp(row["answered_at"]),
        "ended_at": stamp(row["ended_at"]),
        "lines": lines,
        "events": events,
        "metrics": {
            "first_audio_ms": row["metrics__first_audio_ms"],
            "interruptions": row["metrics__interruptions"] or 0,  # no figures before the line is closed
            "time_to_silence_ms": row["metrics__time_to_silence_ms"] or [],
            "turn_latency_ms": row["metrics__turn_latency_ms"] or [],
        },
        "consent": {
            "disclosed_at": stamp(row["disclosed_at"]),
            "disclosure_sha256": row["disclosure_mark"] or None,
            "agreed_at": stamp(row["agreed_at"]),
            "unrecorded_at": stamp(row["unrecorded_at"]),
        },
        "erased": {
            "text_at": stamp(row["erased_at"]),
            "why": row["erased_why"] or None,
            "sound_at": stamp(row["sound_erased_at"]),
            "bodies_at": stamp(row["bodies_erased_at"]),
        },
    }


def stamp(at: datetime | None) -> str | None:
    """'2026-08-03T14:47:03.120Z'."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else None


def _line(row: Row) -> dict[str, Any]:
    return {
        "at": stamp(row["at"]),
        "role": row["role"],
        "text": row["said"],
        "heard": row["heard"],
        "heard_text": row["said"] if row["heard"] == Heard.FULL else row["heard_text"],
        "vapi_call_id": row["vapi_call_id"] or None,
    }


def _event(row: Row) -> dict[str, Any]:
    return {"at": stamp(row["at"]), "source": row["source"], "kind": row["kind"], "detail": row["detail"]}


def jsonl(calls: QuerySet[CallSession]) -> Iterator[str]:
    """One object a line; ASCII, so that no character of a transcript ends a line for anybody."""
    return (json.dumps(each) + "\n" for each in told(calls))


def as_csv(calls: QuerySet[CallSession]) -> Iterator[str]:
    """One row a call, under a row of names. Every cell is quoted, and none is a formula to a spreadsheet."""
    page = _Page()
    writer = csv.writer(page, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    yield page.turn()
    for each in told(calls):
        row = _row(each)
        writer.writerow([safe(row[column]) for column in COLUMNS])
        yield page.turn()


class _Page:
    """What a csv writer wrote since the page was turned."""

    def __init__(self) -> None:
        self._written = ""

    def write(self, text: str) -> None:
        self._written += text

    def turn(self) -> str:
        written, self._written = self._written, ""
        return written


def _row(call: Row) -> dict[str, Any]:
    metrics = call["metrics"]
    return {
        **call,
        **metrics,
        **call["consent"],
        "erased_at": call["erased"]["text_at"],
        "erased_why": call["erased"]["why"],
        "vapi_call_ids": _joined(call["vapi_call_ids"]),
        "lines": len(call["lines"]),
        "transcript": "\n".join(f"{line['role']}: {line['text']}" for line in call["lines"]),
        "events": len(call["events"]),
        "time_to_silence_ms": _joined(metrics["time_to_silence_ms"]),
        "turn_latency_ms": _joined(metrics["turn_latency_ms"]),
    }


def _joined(values: Iterable[Any]) -> str:
    return " ".join(map(str, values))


def safe(value: Any) -> str:
    """A cell's text: nothing for null, and a ' before what a spreadsheet would take for a formula."""
    text = "" if value is None else str(value)
    if len(text) > LONGEST_CELL:
        text = text[:LONGEST_CELL] + CUT
    return f"'{text}" if text.startswith(BEGINS_A_FORMULA) else text


FORMATS: Mapping[str, Callable[[QuerySet[CallSession]], Iterator[str]]] = {"jsonl": jsonl, "csv": as_csv}
