"""What the console says about a call: words and numbers, no markup and no reading.

One rule: everything a page shows of a call is an `Item`, a handful of plain texts. The template puts them into slots when
the page is made, the script puts later ones into the same slots, and neither ever reads them as HTML.
Times are ISO 8601 in UTC with milliseconds; the browser shows them in the viewer's own zone. `ms` counts from the answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.urls import reverse

from agents import account
from calls import breaker, circuit
from calls.models import CallMetrics, CallSession, EndReason, Outcome, Role, Status, VapiAccount, VendorHealth
from calls.queue_rows import LineLimit

NOTHING = "–"
ENDED_BY = {
    EndReason.CALLER_HUNG_UP: "Caller",
    EndReason.AGENT_ENDED: "Agent",
    EndReason.HUMAN_ENDED: "Colleague",
    EndReason.VOICEMAIL_LEFT: "Caller",
    EndReason.CALLBACK_PROMISED: "Agent",
    EndReason.MAX_DURATION: "Time limit",
    EndReason.SILENCE: "Silence",
    EndReason.TTL: "Clean-up",
    EndReason.REFUSED: "Us, at the door",
    EndReason.FAILED: "A fault",
}
SNIPPET = 60  # characters on either side of what was looked for
TONES = {
    Outcome.RESOLVED: "good",
    Outcome.HANDED_OVER: "good",
    Outcome.VOICEMAIL: "wait",
    Outcome.CALLBACK: "wait",
    Outcome.ABANDONED: "wait",
    Outcome.FAILED: "bad",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One row of a page. `order` sorts it among its neighbours, `data` are marks for the style sheet, `slots` the words."""

    id: str
    order: tuple[int, ...]
    slots: Mapping[str, str]
    data: Mapping[str, str] = field(default_factory=dict)
    href: str = ""


def stamp(at: datetime | None) -> str:
    """'2026-08-03T14:47:03.120Z', or nothing for no time."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else ""


def length(ms: int | None) -> str:
    """A length of time as people say it on a phone bill: 0:07, 12:03, 1:02:03."""
    if ms is None:
        return NOTHING
    minutes, seconds = divmod(max(ms, 0) // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def offset(ms: int) -> str:
    """Time since the answer, to the millisecond: 0:07.123. Events before the answer are negative."""
    return f"{'−' if ms < 0 else ''}{length(abs(ms))}.{abs(ms) % 1000:03}"


def span(ms: float | None) -> str:
    """A short time in the unit one would say it in: 340 ms, 1.24 s."""
    if ms is None:
        return NOTHING
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else NOTHING


def percentile(values: Iterable[float], percent: int) -> float | None:
    """The nearest-rank percentile; None for no values."""
    ranked = sorted(values)
    return ranked[max(math.ceil(percent / 100 * len(ranked)), 1) - 1] if ranked else None


def numbers(values: Any) -> list[float]:
    """The numbers in a stored JSON list; whatever else got in there is left out."""
    return [value for value in values if isinstance(value, int | float)] if isinstance(values, list) else []


def metrics_of(call: CallSession) -> CallMetrics | None:
    """The call's figures, if it has any yet. Reads nothing when the call came with `select_related`."""
    return getattr(call, "metrics", None)


def origin(call: CallSession) -> datetime:
    """The moment offsets count from."""
    return call.answered_at or call.started_at


def duration_ms(call: CallSession) -> int | None:
    """From answer to end; None while it lasts. The monotonic clock's word where the call's end was noted on it."""
    if call.ended_at is None:
        return None
    noted: int | None = getattr(call, "ended_ms", None)
    return noted if noted is not None else max(round((call.ended_at - origin(call)).total_seconds() * 1000), 0)


def state_words(call: CallSession) -> str:
    """How the call stands or ended, in the fewest plain words."""
    if not call.is_over:
        place = getattr(call, "queue_place", None) if call.status == Status.WAITING else None
        return f"{call.get_status_display()}, number {place}" if place else call.get_status_display()
    return "Ended" if call.outcome == Outcome.UNKNOWN else call.get_outcome_display()


def tone(call: CallSession) -> str:
    """good, wait, bad, live or plain: which colour says it."""
    if not call.is_over:
        return "live" if call.status in (Status.STREAMING, Status.TRANSFERRING) else "wait"
    return TONES.get(Outcome(call.outcome), "plain")


def agent_words(call: CallSession) -> str:
    return f"{call.version.name} v{call.version.number}" if call.version else "no agent"


def line_words(call: CallSession) -> str:
    return call.line.name if call.line and call.line.name else call.to_number or "unknown line"


def caller_words(call: CallSession) -> str:
    withheld = "Number erased" if call.erased_at else "Number withheld"
    return call.from_number or ("Browser" if call.channel == "browser" else withheld)


def _live_or_stored_interruptions(call: CallSession) -> int:
    metrics = metrics_of(call)
    stored = metrics.interruptions if metrics else 0
    return max(stored, getattr(call, "flushes", None) or 0)


def vapi_words(away: Iterable[VendorHealth], short: LineLimit | None) -> dict[str, str]:
    """Which account at Vapi takes no calls, or no further ones, since when, and who has them meanwhile; blank while both do."""
    rows = {row.account: row for row in away}
    row = rows.get(VapiAccount.MAIN) or rows.get(VapiAccount.BACKUP)
    if row is None and short is not None:
        carried = "1 call" if short.most == 1 else f"{short.most} calls"
        return _vapi(circuit.LINES, short.told_at, f"It carried {carried}. Who comes now waits in the queue.")
    if row is None:
        return {"vapi": "", "vapi_since": "", "vapi_instead": ""}
    if row.account == VapiAccount.BACKUP:
        instead = "This is the backup account: calls stay with the main one."
    elif account.has_backup() and VapiAccount.BACKUP not in rows:
        instead = "Calls go to the backup account."
    else:
        instead = "Calls go to people."
    return _vapi(row.why, row.opened_at, instead)


def _vapi(why: str, since: datetime | None, instead: str) -> dict[str, str]:
    return {"vapi": breaker.SENTENCES[why], "vapi_since": stamp(since), "vapi_instead": instead}


def snippet(said: str, looked_for: str) -> tuple[str, str, str]:
    """A line cut to what surrounds the words looked for, in three: before, the words as they were said, after."""
    place = said.lower().find(looked_for.lower()) if looked_for else -1
    if place < 0:
        return ("", "", "")
    end = place + len(looked_for)
    before, after = said[:place], said[end:]
    short_before = before if len(before) <= SNIPPET else "…" + before[-SNIPPET:]
    return short_before, said[place:end], after if len(after) <= SNIPPET else after[:SNIPPET] + "…"


def row(call: CallSession) -> Item:
    """A call as one row of a list. Needs `line`, `version` and `metrics` at hand, else each costs a query."""
    metrics = metrics_of(call)
    last_role = getattr(call, "last_role", None)
    before, hit, after = snippet(getattr(call, "found", None) or "", getattr(call, "looked_for", ""))
    return Item(
        id=f"call-{call.public_id.hex}",
        order=(-round(call.started_at.timestamp() * 1000), -call.pk),
        href=reverse("console:call", args=[call.public_id]),
        data={"tone": tone(call), "since": "" if call.is_over else stamp(origin(call))},
        slots={
            "started": stamp(call.started_at),
            "state": state_words(call),
            "caller": caller_words(call),
            "line": line_words(call),
            "agent": agent_words(call),
            "ended_by": ENDED_BY.get(EndReason(call.end_reason), "") if call.end_reason else NOTHING,
            "reason": call.get_end_reason_display() if call.end_reason else "",
            "duration": length(duration_ms(call)),
            "interruptions": str(_live_or_stored_interruptions(call)),
            "first_sound": span(metrics.first_audio_ms if metrics else None),
            "last_role": Role(last_role).label if last_role else "",
            "last_words": getattr(call, "last_words", None) or "",
            "found_before": before,
            "found": hit,
            "found_after": after,
        },
    )
