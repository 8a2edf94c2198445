"""The printed form of the event log is the article's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from calls.models import CallEvent
from calls.printed import printed

AT = datetime(2026, 3, 1, 14, 47, 3, 892_999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "detail", "line"),
    [
        ("agent-speech-started", {}, "agent-speech-started"),
        ("interruption-evidence", {"told": "speech", "by": "webhook"}, "interruption-evidence: speech, by the webhook"),
        ("tts-buffer-flushed", {"cancelled_ms": 340}, "TTS buffer flushed (340ms audio cancelled)"),
        ("transcript-partial", {"role": "user", "text": "I already"}, 'transcript-partial: "I already"'),
        ("transcript-final", {"role": "user", "text": "I already tried that"}, 'transcript-final: "I already tried that"'),
        ("tool-called", {"name": "get_user_account"}, "tool-called: get_user_account"),
        ("tool-answered", {"name": "get_user_account", "ms": 12}, "tool-answered: get_user_account (12ms)"),
        ("tool-answered", {"name": "look_up", "ms": 5000, "problem": "It was late."}, "tool-answered: look_up (5000ms): It was late."),
        ("voicemail-recorded", {"seconds": 14}, "voicemail-recorded (14s)"),
        ("callback-promised", {"within_hours": 4}, "callback-promised: within 4 h"),
        ("callback-done", {"by": "olga"}, "callback-done: olga"),
        ("keypad-pressed", {"count": 1}, "keypad-pressed: 1"),
        ("dial-result", {"target": "tier2", "status": "busy"}, "dial-result: tier2 busy"),
        ("call-ended", {"reason": "agent_ended"}, "call-ended: agent_ended"),
        ("greeting-heard", {"ms": 900}, "greeting-heard"),
        ("caller-hears-silence", {"ms": 104}, "caller-hears-silence (104ms after the caller spoke)"),
        ("dead-air", {"ms": 4000}, "dead-air (4000ms)"),
    ],
)
def test_an_event_is_one_line(kind: str, detail: dict[str, Any], line: str) -> None:
    assert printed(CallEvent(kind=kind, detail=detail, at=AT), "call-abc123") == f"14:47:03.892 [call-abc123] {line}"
