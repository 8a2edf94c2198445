"""The call as the top of its own page: who, how it stands, why it ended, what is promised, and its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from calls import ended_reasons
from calls.console.shown import NOTHING, Item, metrics_of, numbers, percentile, row, span, stamp
from calls.models import CallbackRequest, CallSession, ErasedWhy, Report, Rung, Status, VapiSession

LATER = "known when the line closes"
REPORT_WORDS = {
    (Status.ENDED, ""): "not here yet",
    (Status.FINALISED, Report.MERGED): "complete",
    (Status.FINALISED, Report.MISSING): "never came",
    (Status.FINALISED, ""): "none to come",
}


def callback_of(call: CallSession) -> CallbackRequest | None:
    """The call back that was promised, if any. Reads nothing when the call came with `select_related`."""
    return getattr(call, "callback", None)


def standing(callback: CallbackRequest | None, now: datetime) -> str:
    """none, open, overdue or done."""
    if callback is None:
        return "none"
    if callback.done_at:
        return "done"
    return "overdue" if callback.due_at < now else "open"


STANDING_WORDS = {"none": "", "open": "To do", "overdue": "Overdue", "done": "Done"}


def kept_words(call: CallSession) -> str:
    """What of this call is gone, since when and why; nothing while all of it is kept."""
    if call.erased_at:
        why = ErasedWhy(call.erased_why).label if call.erased_why else "nobody wrote down why"
        return f"What was said here was erased on {call.erased_at:%Y-%m-%d}: {why}. Times, figures and reasons stay."
    said = []
    if call.unrecorded_at:
        said.append("The caller asked not to be recorded. Nothing they said is kept" + ("." if call.is_over else " when the call is over."))
    if call.sound_erased_at:
        said.append(f"Recordings were erased on {call.sound_erased_at:%Y-%m-%d}: {ErasedWhy.RETENTION.label}.")
    if call.bodies_erased_at and not call.unrecorded_at:
        said.append(f"Raw messages were erased on {call.bodies_erased_at:%Y-%m-%d}: {ErasedWhy.RETENTION.label}.")
    return " ".join(said)


def consent_words(call: CallSession) -> str:
    """What the caller was told, and what they said to it."""
    told = f"Told (text {call.disclosure_mark[:8]})" if call.disclosed_at else "Told nothing"
    asked = "; asked not to be recorded" if call.unrecorded_at else "; agreed to being recorded" if call.agreed_at else ""
    return told + asked


def promise(callback: CallbackRequest | None, now: datetime) -> Mapping[str, str]:
    """The slots of a promised call back; all empty when there is none."""
    return {
        "callback": STANDING_WORDS[standing(callback, now)],
        "callback_due": stamp(callback.due_at) if callback else "",
        "callback_done": stamp(callback.done_at) if callback else "",
        "callback_by": callback.done_by if callback else "",
        "callback_claimed": callback.claimed_by if callback else "",
        "callback_note": callback.note if callback else "",
    }


def head(
    call: CallSession, *, now: datetime, told: bool, sessions: Sequence[VapiSession] = (), silences_noted: Sequence[float] = ()
) -> Item:
    """Figures are stored when a stream closes; `silences_noted` are those of the event log, which is ahead while it is open.

    The note of a call back says what the caller wanted: it comes only where that is `told`.
    """
    summary = row(call)
    return Item(
        id="head",
        order=(),
        data={**summary.data, "live": "no" if call.is_over else "yes", "callback": standing(callback_of(call), now)},
        slots={
            **summary.slots,
            "to_number": call.to_number or NOTHING,
            "ended": stamp(call.ended_at),
            "rung": Rung(call.rung).label,
            "channel": call.get_channel_display(),
            "outcome": call.get_outcome_display() if call.is_over else NOTHING,
            "kept": kept_words(call),
            "consent": consent_words(call),
            "report": REPORT_WORDS.get((Status(call.status), call.report), NOTHING),
            **_vendors_word(sessions),
            **promise(callback_of(call), now),
            **({} if told else {"callback_note": ""}),
            **_figures(call, silences_noted),
        },
    )


def _vendors_word(sessions: Sequence[VapiSession]) -> Mapping[str, str]:
    """Why Vapi says its last session of this call ended, in plain words and in its own; or why there was no session at all."""
    last = next((session for session in reversed(sessions) if session.ended_reason or session.failure), None)
    if last is None or not last.ended_reason:
        return {"vendor_reason": last.failure if last else "", "vendor_raw": ""}
    return {"vendor_reason": ended_reasons.plain(last.ended_reason), "vendor_raw": last.ended_reason}


def _figures(call: CallSession, silences_noted: Sequence[float]) -> Mapping[str, str]:
    metrics = metrics_of(call)
    silences = max(numbers(metrics.time_to_silence_ms) if metrics else [], list(silences_noted), key=len)
    turns = numbers(metrics.turn_latency_ms) if metrics else []
    later = "" if metrics or call.is_over else LATER
    return {
        "first_sound_note": later,
        "silence": span(percentile(silences, 50)),
        "silence_note": f"each: {', '.join(span(ms) for ms in silences)}" if len(silences) > 1 else "",
        "turn": span(percentile(turns, 50)),
        "turn_note": f"slowest {span(max(turns))}, {len(turns)} turns" if len(turns) > 1 else later,
        "cost": f"${metrics.cost_usd:.4f}" if metrics and metrics.cost_usd is not None else NOTHING,
    }
