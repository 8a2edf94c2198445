"""The demo's verdict: every way in which a call can be wrong fails the check that names it."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.sandbox.ear import Final
from supportvoice.verdict import CALLER_HEARS, CALLER_SAYS, EXACT_LINE, TOOL, Evidence, Remembered, judge

SID = "CA" + "1" * 32


def heard(clip: str | None, at: float = 0.0, *, complete: bool = True, to_ms: int = 1000) -> Final:
    text = "No problem. To reset your" if clip == "reset_steps" else clip or ""
    return Final(clip, text, at, at, at, 1.0, heard_to_ms=to_ms, complete=complete)


def good() -> Any:
    """What is seen of a call that was right, open to be spoilt."""
    agent = SimpleNamespace(
        request={"name": f"{SID}.0"},
        evidence=SimpleNamespace(understood=[heard(clip) for clip in CALLER_SAYS]),
        ended_reason="assistant-ended-call",
        webhooks=lambda kind: [{}] if kind == "tool-calls" else [],
    )
    phone = SimpleNamespace(
        call_sid=SID,
        heard=[heard(clip, 10.0, complete=clip != "reset_steps", to_ms=3400) for clip in CALLER_HEARS],
        timeline=[SimpleNamespace(at=13.2, what="caller-says", detail={"clip": "already_tried"})],
        first_sound_ms=900,
        sound_after_clears_ms=[20],
        streams=[SimpleNamespace(end="server-closed")],
        violations=[],
        problems=[],
    )
    vapi = SimpleNamespace(calls={"1": agent}, open_calls=list, refused=[])
    remembered = {
        "status": "ended",
        "end_reason": "agent_ended",
        "session_states": ("ended",),
        "lines": (("user", EXACT_LINE, EXACT_LINE), ("assistant", "No problem. To reset your pass", "No problem. To reset")),
        "events": (("greeting-heard", {"ms": 900}), ("tts-buffer-flushed", {"cancelled_ms": 340})),
        "tool_results": ((TOOL, '{"status": "locked"}'),),
    }
    return SimpleNamespace(phone=phone, vapi=vapi, agent=agent, remembered=remembered)


def failed(seen: Any) -> list[str]:
    checks = judge(Evidence(seen.phone, seen.vapi, Remembered(**seen.remembered)))
    return [check.promise for check in checks if not check.kept]


def test_a_right_call_has_nothing_wrong() -> None:
    assert failed(good()) == []


def test_a_call_that_never_happened_keeps_no_promise_but_one() -> None:
    nobody = SimpleNamespace(call_sid=SID, heard=[], timeline=[], first_sound_ms=None, sound_after_clears_ms=[], streams=[])
    nobody.violations = nobody.problems = []
    vapi = SimpleNamespace(calls={}, open_calls=list, refused=[])
    checks = judge(Evidence(nobody, vapi, Remembered()))  # type: ignore[arg-type]
    assert [check.promise for check in checks if check.kept] == ["neither vendor has anything to complain of"]


def spoil(**changes: Any) -> Callable[[Any], None]:
    return lambda seen: seen.remembered.update(changes)


def hears(change: Callable[[list[Final]], list[Final]]) -> Callable[[Any], None]:
    return lambda seen: setattr(seen.phone, "heard", change(seen.phone.heard))


@pytest.mark.parametrize(
    ("wrong", "promise"),
    [
        (lambda seen: setattr(seen.phone, "first_sound_ms", 2100), "greets within 2 s"),
        (lambda seen: setattr(seen.phone.timeline[0], "at", 14.0), "interrupts 3.2 s"),
        (hears(lambda finals: [heard(final.clip_name, 10.0) for final in finals]), "which stops"),
        (spoil(events=(("greeting-heard", {}), ("tts-buffer-flushed", {"cancelled_ms": 0}))), "unheard speech is cancelled"),
        (lambda seen: setattr(seen.phone, "sound_after_clears_ms", [60]), "at most 40 ms"),
        (lambda seen: setattr(seen.phone, "sound_after_clears_ms", []), "at most 40 ms"),
        (spoil(tool_results=((TOOL, "error: no such account"),)), "answers from its result"),
        (lambda seen: setattr(seen.agent, "webhooks", lambda kind: [{}, {}]), "tool get_user_account is called once"),
        (spoil(lines=(("user", "I already tried", "I already tried"), ("assistant", "No problem. To", "No problem. To"))), "exactly"),
        (spoil(lines=(("user", EXACT_LINE, EXACT_LINE), ("assistant", "No problem. To reset your", "No problem. To"))), "within a word"),
        (spoil(lines=(("user", EXACT_LINE, EXACT_LINE), ("assistant", "No problem. To reset", "No problem. You"))), "within a word"),
        (hears(lambda finals: [*finals[:-1], heard("goodbye", complete=False)]), "goodbye is played to its end"),
        (lambda seen: setattr(seen.phone.streams[0], "end", "hung-up"), "goodbye is played to its end"),
        (spoil(end_reason="caller_hung_up"), "agent_ended"),
        (spoil(session_states=("live",)), "session is ended"),
        (lambda seen: setattr(seen.vapi, "open_calls", lambda: [1]), "session is ended"),
        (lambda seen: setattr(seen.agent.evidence, "understood", []), "understood every word"),
        (
            hears(lambda finals: [heard("another_way") if each.clip_name == "ask_email" else each for each in finals]),
            "caller heard the agent",
        ),
        (hears(lambda finals: finals[1:]), "disclosure first"),
        (lambda seen: seen.phone.violations.append("31951"), "complain"),
        (lambda seen: seen.vapi.refused.append(("/call", 400, ["x"])), "complain"),
    ],
)
def test_whatever_is_wrong_is_named(wrong: Callable[[Any], None], promise: str) -> None:
    seen = good()
    wrong(seen)
    assert any(re.search(promise, each) for each in failed(seen))
