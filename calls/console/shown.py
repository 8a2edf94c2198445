"""What the console says about a call: words and numbers, no markup and no reading.

One rule: everything a page shows of a call is an `Item`, a handful of plain texts. The template puts them into slots when
the page is made, the script puts later ones into the same slots, and neither ever reads them as HTML.
Times are ISO 8601 in UTC with milliseconds; the browser shows them in the viewer's own zone. `ms` counts from the answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.urls import reverse

from calls.models import (
    CallEvent,
    CallMetrics,
    CallSession,
    EndReason,
    Heard,
    Outcome,
    Report,
    Role,
    Rung,
    Status,
    ToolRun,
    TranscriptLine,
    VapiSession,
    VapiState,
)
from calls.printed import words

NOTHING = "–"
LATER = "known when the line closes"
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
TONES = {
    Outcome.RESOLVED: "good",
    Outcome.HANDED_OVER: "good",
    Outcome.VOICEMAIL: "wait",
    Outcome.CALLBACK: "wait",
    Outcome.ABANDONED: "wait",
    Outcome.FAILED: "bad",
}
AUDIO = {
    "from_caller": ("Caller → us", "what Twilio sent us"),
    "from_caller_dropped": ("… dropped", "the agent's side did not take it in time"),
    "silence_to_agent": ("Silence → agent", "filled in while the caller's sound paused"),
    "from_agent": ("Agent → us", "what Vapi sent us"),
    "from_agent_flushed": ("… flushed", "cancelled because the caller spoke"),
    "from_agent_dropped": ("… dropped", "more than we keep waiting"),
    "clips": ("Our own words", "clips the bridge itself played"),
    "to_caller": ("Us → caller", "what we sent to Twilio"),
}
REPORT_WORDS = {
    (Status.ENDED, ""): "not here yet",
    (Status.FINALISED, Report.MERGED): "complete",
    (Status.FINALISED, Report.MISSING): "never came",
    (Status.FINALISED, ""): "none to come",
}
BYTES_PER_MS = 8  # 8 kHz mu-law
HEARD = {Heard.PART: "cut off", Heard.NONE: "not heard"}


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
        return call.get_status_display()
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
    return call.from_number or ("Browser" if call.channel == "browser" else "Number withheld")


def _live_or_stored_interruptions(call: CallSession) -> int:
    metrics = metrics_of(call)
    stored = metrics.interruptions if metrics else 0
    return max(stored, getattr(call, "flushes", None) or 0)


def row(call: CallSession) -> Item:
    """A call as one row of a list. Needs `line`, `version` and `metrics` at hand, else each costs a query."""
    metrics = metrics_of(call)
    last_role = getattr(call, "last_role", None)
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
        },
    )


def head(call: CallSession, *, silences_noted: Sequence[float] = ()) -> Item:
    """The call as the top of its own page: who, how it stands, and its figures.

    Figures are stored when a stream closes; `silences_noted` are those of the event log, which is ahead while it is open.
    """
    metrics = metrics_of(call)
    stored = numbers(metrics.time_to_silence_ms) if metrics else []
    silences = max(stored, list(silences_noted), key=len)
    turns = numbers(metrics.turn_latency_ms) if metrics else []
    summary = row(call)
    return Item(
        id="head",
        order=(),
        data={**summary.data, "live": "no" if call.is_over else "yes"},
        slots={
            **summary.slots,
            "to_number": call.to_number or NOTHING,
            "ended": stamp(call.ended_at),
            "rung": Rung(call.rung).label,
            "channel": call.get_channel_display(),
            "outcome": call.get_outcome_display() if call.is_over else NOTHING,
            "report": REPORT_WORDS.get((Status(call.status), call.report), NOTHING),
            "first_sound_note": "" if metrics or call.is_over else LATER,
            "silence": span(max(silences)) if silences else NOTHING,
            "silence_note": f"each: {', '.join(span(ms) for ms in silences)}" if len(silences) > 1 else "",
            "turn": span(percentile(turns, 50)),
            "turn_note": f"slowest {span(max(turns))}, {len(turns)} turns" if len(turns) > 1 else "" if metrics or call.is_over else LATER,
            "cost": f"${metrics.cost_usd:.4f}" if metrics and metrics.cost_usd is not None else NOTHING,
        },
    )


def event(happened: CallEvent, short_id: str) -> Item:
    """One milestone, worded as the printed log words it. Partial speech is repeated in a slot of its own."""
    kind, detail = happened.kind, happened.detail if isinstance(happened.detail, dict) else {}
    partial = kind == "transcript-partial"
    return Item(
        id=f"event-{happened.seq}",
        order=(happened.seq,),
        data={"source": happened.source, "kind": kind, "ms": str(happened.ms), "role": str(detail.get("role", ""))[:10]},
        slots={
            "at": stamp(happened.at),
            "offset": offset(happened.ms),
            "source": happened.get_source_display(),
            "words": words(kind, detail),
            "partial": str(detail.get("text", "")) if partial else "",
        },
    )


def heard_and_not(line: TranscriptLine) -> tuple[str, str]:
    """What the caller heard of a line, and the tail that was cut off.

    `heard_text` is normally how the line begins. Where it is not (the vendor worded it otherwise), as many words count as heard.
    """
    if line.heard == Heard.FULL:
        return line.said, ""
    if line.heard == Heard.NONE:
        return "", line.said
    if line.said.startswith(line.heard_text):
        return line.heard_text.rstrip(), line.said[len(line.heard_text) :].lstrip()
    said, count = line.said.split(), len(line.heard_text.split())
    return " ".join(said[:count]), " ".join(said[count:])


def spoken(line: TranscriptLine, call: CallSession) -> Item:
    """One line of the transcript."""
    heard, unheard = heard_and_not(line)
    ms = max(round((line.at - origin(call)).total_seconds() * 1000), 0)
    return Item(
        id=f"line-{line.pk}",
        order=(line.n, line.vendor_ms, 0, line.pk),
        data={"role": line.role, "heard": line.heard, "ms": str(ms)},
        slots={
            "who": line.get_role_display(),
            "at": stamp(line.at),
            "offset": length(ms),
            "heard": heard,
            "unheard": unheard,
            "mark": HEARD.get(Heard(line.heard), ""),
        },
    )


def tool(run: ToolRun, call: CallSession, sessions: Sequence[VapiSession]) -> Item:
    """A tool call, to stand in the transcript where it happened: after what was said before it."""
    ms = max(round((run.started_at - origin(call)).total_seconds() * 1000), 0)
    took = round((run.ended_at - run.started_at).total_seconds() * 1000) if run.ended_at else None
    n = max((session.n for session in sessions if session.asked_at <= run.started_at), default=0)
    return Item(
        id=f"tool-{run.pk}",
        order=(n, round(run.started_at.timestamp() * 1000), 1, run.pk),
        data={"role": "tool", "heard": "full", "ms": str(ms), "tone": "bad" if run.problem else "wait" if took is None else "good"},
        slots={
            "at": stamp(run.started_at),
            "offset": length(ms),
            "name": run.name,
            "arguments": ", ".join(f"{key}: {value}" for key, value in run.arguments.items())
            if isinstance(run.arguments, dict)
            else str(run.arguments),
            "result": run.problem or run.result or ("no answer" if call.is_over else "running …"),
            "took": span(took) if took is not None else "",
        },
    )


def session(vapi: VapiSession) -> Item:
    """One Vapi call behind this phone call; never its addresses."""
    created = round((vapi.live_at - vapi.asked_at).total_seconds() * 1000) if vapi.live_at else None
    tones = {VapiState.LIVE: "live", VapiState.FAILED: "bad", VapiState.ENDED: "plain"}
    return Item(
        id=f"session-{vapi.n}",
        order=(vapi.n,),
        data={"tone": tones.get(VapiState(vapi.state), "wait")},
        slots={
            "n": str(vapi.n + 1),
            "state": vapi.get_state_display(),
            "vapi_id": vapi.vapi_call_id or NOTHING,
            "created": f"{span(created)} by the {vapi.claimed_by or 'worker'}" if created is not None else NOTHING,
            "note": vapi.failure or vapi.ended_reason or NOTHING,
        },
    )


def counters(call: CallSession) -> list[Item]:
    """What each hop of the bridge carried. Counters without words here are shown under their own names."""
    metrics = metrics_of(call)
    stored = metrics.audio if metrics and isinstance(metrics.audio, dict) else {}
    known = [name for name in AUDIO if name in stored]
    found = []
    for place, name in enumerate([*known, *(name for name in stored if name not in AUDIO)]):
        hop, meaning = AUDIO.get(name, (str(name).replace("_", " "), ""))
        value = stored[name]
        counted = isinstance(value, int) and not isinstance(value, bool)
        slots = {
            "what": hop,
            "meaning": meaning,
            "value": f"{value:,}" if counted else str(value),
            "time": span(value / BYTES_PER_MS) if counted and name in AUDIO else "",
        }
        found.append(Item(id=f"audio-{place}", order=(place,), slots=slots))
    return found
