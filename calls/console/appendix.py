"""What stands around the conversation: recordings, Vapi's report, its sessions, and what each hop of the bridge carried."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from django.urls import reverse

from calls.console.conversation import as_text
from calls.console.shown import NOTHING, Item, length, metrics_of, numbers, percentile, span, stamp
from calls.models import CallSession, Recording, RecordingState, VapiAccount, VapiReport, VapiSession, VapiState

BYTES_PER_MS = 8  # 8 kHz mu-law
AUDIO = {
    "from_caller": ("Caller → us", "what Twilio sent us"),
    "from_caller_held_most": ("… held, at most", "kept at once until the agent was there"),
    "from_caller_dropped": ("… dropped", "older than the five seconds we keep until the agent is there"),
    "from_caller_left": ("… left", "kept for an agent who never came"),
    "to_agent": ("Us → agent", "what we sent to Vapi, the silence below among it"),
    "silence_to_agent": ("… silence", "filled in while the caller's sound paused"),
    "silence_waited": ("… waited for", "not filled in, for the caller's sound might still come"),
    "to_agent_dropped": ("… dropped", "Vapi did not read in time, or had closed"),
    "from_agent": ("Agent → us", "what Vapi sent us"),
    "from_agent_held_most": ("… held, at most", "waited here at once for its turn to be heard"),
    "from_agent_flushed": ("… flushed", "cancelled because the caller spoke"),
    "from_agent_dropped": ("… dropped", "more than we keep waiting"),
    "from_agent_let_go": ("… let go", "not sent on, because the caller spoke or left"),
    "from_agent_left": ("… left", "waited here when the stream ended"),
    "clips": ("Our own words", "clips the bridge itself played"),
    "to_caller": ("Us → caller", "what we sent to Twilio"),
    "to_caller_held_most": ("… held, at most", "waited at once because Twilio did not read"),
    "to_caller_held_back_most": ("… held back, at most", "gathered first because the network was uneven"),
    "to_caller_overtaken": ("… overtaken", "not on the wire yet when a clear came"),
    "to_caller_taken_back": ("… taken back", "cleared at Twilio; played again if it was no interruption"),
    "to_caller_left_out": ("… left out", "so that it is not heard ever later, for clocks differ"),
    "to_caller_repeated": ("… repeated", "so that there is not ever less in reserve, for clocks differ"),
}
MESSAGES = {
    "to_caller_held_back": ("Held back", "beginnings of what was said, because the network was uneven"),
    "keys": ("Keys", "pressed by the caller; which ones is kept nowhere"),
    "bad_messages": ("Bad messages", "of either side, thrown away; by their kind below"),
}
FRAMES = "_frames"  # after the name of a counter: the same in messages
PASSED = {"true": "passed", "false": "not passed"}  # the vendor's words of its pass-or-fail evaluation
SOUND_TONES = {RecordingState.IN_PROGRESS: "live", RecordingState.FAILED: "bad", RecordingState.COMPLETED: "good"}
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_-]")
PARTS = {"stt": "transcriber (stt)", "llm": "model (llm)", "tts": "voice (tts)", "vapi": "platform (vapi)"}
COUNTS = ("user_interrupted", "assistant_interrupted")


def recording(sound: Recording, call: CallSession) -> Item:
    """A recording; its `href` is a door of ours, and empty while there is nothing to hear."""
    ready = sound.state == RecordingState.COMPLETED and sound.erased_at is None
    return Item(
        id=f"recording-{sound.pk}",
        order=(round(sound.at.timestamp() * 1000), sound.pk),
        data={"tone": "plain" if sound.erased_at else SOUND_TONES.get(RecordingState(sound.state), "plain")},
        slots={
            "kind": sound.get_kind_display(),
            "state": "Erased" if sound.erased_at else sound.get_state_display(),
            "at": stamp(sound.at),
            "length": length(sound.seconds * 1000) if ready else NOTHING,
        },
        href=reverse("console:recording", args=[call.public_id, sound.sid]) if ready else "",
    )


def report_of(vapi: VapiSession) -> VapiReport | None:
    """The session's report, if it is in. Reads nothing when the session came with `select_related`."""
    return getattr(vapi, "report", None)


def report(vapi: VapiSession, found: VapiReport) -> Item:
    """What Vapi makes of a session, in its own words."""
    kept = [plain_name(name) for name, there in found.artifacts.items() if there] if isinstance(found.artifacts, dict) else []
    added = f"{found.lines_added} line{'s' if found.lines_added != 1 else ''} came with the report only" if found.lines_added else ""
    return Item(
        id=f"report-{vapi.n}",
        order=(vapi.n,),
        slots={
            "title": f"Session {vapi.n + 1}",
            "at": stamp(found.merged_at),
            "summary": found.summary or "No summary.",
            "success": f"Evaluation: {PASSED.get(found.success, found.success)}" if found.success else "",
            "kept": f"Kept at Vapi: {', '.join(kept)}" if kept else "",
            "added": added,
        },
    )


def figures(vapi: VapiSession, found: VapiReport, *, told: bool) -> list[Item]:
    """A report's outputs, times and prices, a row for each. Outputs are drawn from what was said: they come only where that is `told`."""
    rows = [*(_outputs(found.structured) if told else ()), *_times(found.latencies), *_prices(found.costs)]
    return [
        Item(id=f"figure-{vapi.n}-{place}", order=(vapi.n, place), slots={"part": part, "name": name, "value": value, "note": note})
        for place, (part, name, value, note) in enumerate(rows)
    ]


def plain_name(name: str) -> str:
    """`modelLatencyAverage` and `model_latency_average` as people write it: 'model latency average'."""
    return " ".join(CAMEL.sub(" ", str(name)).split()).lower()


Row = tuple[str, str, str, str]


def _outputs(structured: Any) -> Iterator[Row]:
    if isinstance(structured, dict):
        for name, value in structured.items():
            yield "Output", str(name), by_lines(value), ""


def by_lines(value: Any) -> str:
    """An object's entries a line each; anything else as it is."""
    if isinstance(value, dict):
        return "\n".join(f"{key}: {as_text(entry)}" for key, entry in value.items())
    return as_text(value)


def _times(latencies: Any) -> Iterator[Row]:
    """Averages as the vendor gives them, and from its single turns what an average hides."""
    if not isinstance(latencies, dict):
        return
    for name, value in latencies.items():
        for number in numbers([value]):
            yield (
                ("Turns", plain_name(name), f"{number:.0f} ×", "")
                if name in COUNTS
                else ("Time", plain_name(name), span(number), "average")
            )
    turns = [turn for turn in latencies.get("turns") or [] if isinstance(turn, Mapping)] if isinstance(latencies.get("turns"), list) else []
    for name in dict.fromkeys(name for turn in turns for name in turn):
        each = numbers([turn.get(name) for turn in turns])
        if each:
            yield "Turns", plain_name(name), span(percentile(each, 50)), f"95 of 100 within {span(percentile(each, 95))}, {len(each)} turns"


def _prices(costs: Any) -> Iterator[Row]:
    if isinstance(costs, dict):
        for name, value in costs.items():
            for usd in numbers([value]):
                yield "Cost", PARTS.get(name, plain_name(name)), f"${usd:.4f}", ""


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
            "note": " · ".join(filter(None, (_where(vapi), vapi.failure or vapi.ended_reason))) or NOTHING,
        },
    )


def _where(vapi: VapiSession) -> str:
    return "at the backup account" if vapi.account == VapiAccount.BACKUP else ""


def counters(call: CallSession) -> list[Item]:
    """What each hop of the bridge carried. Counters without words here are messages, shown under their own names."""
    metrics = metrics_of(call)
    stored = metrics.audio if metrics and isinstance(metrics.audio, dict) else {}
    rows = [name for name in stored if name.removesuffix(FRAMES) not in AUDIO]
    rows = [*(name for name in AUDIO if name in stored), *sorted(rows, key=lambda name: name not in MESSAGES)]
    return [Item(id=f"audio-{place}", order=(place,), slots=_counted(name, stored)) for place, name in enumerate(rows)]


def _counted(name: str, stored: Mapping[str, Any]) -> dict[str, str]:
    value = stored[name]
    what, meaning = (AUDIO | MESSAGES).get(name, (str(name).replace("_", " "), ""))
    sound = name in AUDIO
    return {
        "what": what,
        "meaning": meaning,
        "time": span(value / BYTES_PER_MS) if sound and _is_count(value) else "",
        "value": _shown(value) if sound else "",
        "frames": _shown(stored.get(f"{name}{FRAMES}", "")) if sound else _shown(value),
    }


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return f"{value:,}" if _is_count(value) else str(value)
