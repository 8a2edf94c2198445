"""The event log as people read it: one line per milestone."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from calls.models import CallEvent

TELLING = {  # the one detail that says most
    "call-ended": "reason",
    "stream-closed": "why",
    "tool-called": "name",
    "tool-answered": "name",
    "vapi-session-failed": "why",
    "rung-changed": "to",
    "handover-requested": "target",
    "clip-played": "clip",
    "callback-done": "by",
    "callback-claimed": "by",
    "taken-back": "why",
    "keypad-pressed": "count",
    "model-told-what-was-heard": "words",
    "dial-refused": "target",
    "queue-joined": "place",
    "queue-left": "why",
}


def printed(event: CallEvent, short_id: str) -> str:
    """`14:47:03.892 [call-abc123] TTS buffer flushed (340ms audio cancelled)`; the time is the wall's, in the site's zone."""
    at = timezone.localtime(event.at)
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03d} [{short_id}] {words(event.kind, event.detail)}"


def words(kind: str, detail: dict[str, Any]) -> str:
    """What happened, without when and to whom."""
    match kind:
        case "caller-hears-silence":
            return f"caller-hears-silence ({detail.get('ms', 0)}ms after the caller spoke)"
        case "interruption-evidence":
            return f"interruption-evidence: {detail.get('told', '')}, by the {detail.get('by', '')}"
        case "call-rescued":
            return f"call-rescued: {detail.get('how', '')} ({detail.get('ms', 0)}ms after the last sign of its process)"
        case "dead-air" | "audio-stuck":
            return f"{kind} ({detail.get('ms', 0)}ms)"
        case "tts-buffer-flushed":
            return f"TTS buffer flushed ({detail.get('cancelled_ms', 0)}ms audio cancelled)"
        case "transcript-partial" | "transcript-final":
            return f'{kind}: "{detail["text"]}"' if "text" in detail else f"{kind}: erased"
        case "dial-result":
            return f"dial-result: {detail.get('target', '')} {detail.get('status', '')}"
        case "tool-answered":
            answered = f"tool-answered: {detail.get('name', '')} ({detail.get('ms', 0)}ms)"
            return f"{answered}: {detail['problem']}" if detail.get("problem") else answered
        case "voicemail-recorded":
            return f"voicemail-recorded ({detail.get('seconds', 0)}s)"
        case "callback-promised":
            return f"callback-promised: within {detail.get('within_hours', 0)} h"
    telling = detail.get(TELLING.get(kind, ""), "")
    return f"{kind}: {telling}" if telling else kind
