"""Was the demo's call right? Named checks, each from evidence of somebody who did not write what is checked.

What the caller heard comes from the sandbox Twilio's playout, what the agent understood from the sandbox Vapi's ear on the
audio that arrived, and what is remembered from the database. Nothing here reads the script's intentions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.sandbox.ear import Final
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.vapi import SandboxCall, VapiSandbox

GREETED_WITHIN_MS = 2000
INTERRUPTS_AFTER_S, ABOUT_S = 3.2, 0.15
AFTER_CLEAR_MS = 40
CALLER_SAYS = ["cannot_log_in", "already_tried", "email_is_alex", "thanks_goodbye"]
CALLER_HEARS = ["disclosure", "greeting", "reset_steps", "ask_email", "account_locked", "goodbye"]
EXACT_LINE = "I already tried that"
TOOL = "get_user_account"


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the database says of the call."""

    status: str = ""
    end_reason: str = ""
    session_states: tuple[str, ...] = ()
    lines: tuple[tuple[str, str, str], ...] = ()  # (role, said, what of it was heard)
    events: tuple[tuple[str, dict[str, Any]], ...] = ()  # (kind, detail)
    tool_results: tuple[tuple[str, str], ...] = ()  # (name, result)

    def details(self, kind: str) -> list[dict[str, Any]]:
        return [detail for each, detail in self.events if each == kind]

    def said(self, role: str) -> list[str]:
        return [said for each, said, _ in self.lines if each == role]


@dataclass(frozen=True, slots=True)
class Check:
    """One promise about the call. `found` says what was seen, whether or not that is right."""

    promise: str
    kept: bool
    found: str


@dataclass(frozen=True, slots=True)
class Evidence:
    phone: TwilioCall
    vapi: VapiSandbox
    remembered: Remembered

    @property
    def agent(self) -> SandboxCall | None:
        """The call at Vapi; None unless there is exactly one of ours."""
        ours = [call for call in self.vapi.calls.values() if str(call.request.get("name", "")).startswith(self.phone.call_sid)]
        return ours[0] if len(ours) == 1 else None

    def heard(self, clip: str) -> Final | None:
        return next((final for final in self.phone.heard if final.clip_name == clip), None)


def judge(evidence: Evidence) -> list[Check]:
    return [check for look in LOOKS for check in look(evidence)]


def _greeting(seen: Evidence) -> Iterator[Check]:
    first = seen.phone.first_sound_ms
    greeting, told = seen.heard("greeting"), seen.remembered.details("greeting-heard")
    yield Check(
        "the agent greets within 2 s of the stream",
        first is not None and first <= GREETED_WITHIN_MS and greeting is not None and greeting.complete and bool(told),
        f"first sound after {first} ms, greeting {_cut(greeting)}, event {told or 'missing'}",
    )


def _interruption(seen: Evidence) -> Iterator[Check]:
    explained = seen.heard("reset_steps")
    began = [each.at for each in seen.phone.timeline if each.what == "caller-says" and each.detail.get("clip") == "already_tried"]
    after = began[0] - explained.started_at if began and explained else None
    yield Check(
        "the caller interrupts 3.2 s into the explanation, which stops",
        after is not None and abs(after - INTERRUPTS_AFTER_S) <= ABOUT_S and explained is not None and not explained.complete,
        f"interrupted after {after} s, explanation {_cut(explained)}" if after is None else f"after {after:.2f} s, {_cut(explained)}",
    )
    cancelled = [detail.get("cancelled_ms", 0) for detail in seen.remembered.details("tts-buffer-flushed")]
    yield Check("the unheard speech is cancelled", any(ms > 0 for ms in cancelled), f"cancelled ms: {cancelled}")
    after_clear = seen.phone.sound_after_clears_ms
    yield Check(
        "at most 40 ms of the interrupted turn are played after the clear",
        bool(after_clear) and max(after_clear) <= AFTER_CLEAR_MS,
        f"{after_clear} ms after each clear",
    )


def _tool(seen: Evidence) -> Iterator[Check]:
    asked = [] if seen.agent is None else seen.agent.webhooks("tool-calls")
    results = [result for name, result in seen.remembered.tool_results if name == TOOL]
    answered = seen.heard("account_locked")
    yield Check(
        f"the tool {TOOL} is called once and the agent answers from its result",
        len(asked) == 1 and len(results) == 1 and "locked" in results[0] and answered is not None and answered.complete,
        f"{len(asked)} tool calls, result {results}, answer {_cut(answered)}",
    )


def _transcript(seen: Evidence) -> Iterator[Check]:
    lines = seen.remembered.said("user")
    yield Check(f'the caller\'s line is exactly "{EXACT_LINE}"', lines.count(EXACT_LINE) == 1, f"the caller's lines: {lines}")
    explained = seen.heard("reset_steps")
    truly = explained.text.split() if explained else []
    marked = [heard for role, said, heard in seen.remembered.lines if role == "assistant" and truly and said.split()[:2] == truly[:2]]
    yield Check(
        "of the interrupted line is marked as heard what the caller heard, within a word",
        len(marked) == 1 and _same_words(marked[0].split(), truly),
        f"marked {marked}, the caller heard {' '.join(truly)!r}",
    )


def _ending(seen: Evidence) -> Iterator[Check]:
    goodbye = seen.heard("goodbye")
    left_by = [stream.end for stream in seen.phone.streams]
    yield Check(
        "the goodbye is played to its end before the hang-up",
        goodbye is not None and goodbye.complete and left_by == ["server-closed"],
        f"goodbye {_cut(goodbye)}, stream ended by {left_by}",
    )
    status, reason = seen.remembered.status, seen.remembered.end_reason
    yield Check("the call ended as agent_ended", status in ("ended", "finalised") and reason == "agent_ended", f"{status}, {reason}")
    vapi_reason = seen.agent.ended_reason if seen.agent else None
    yield Check(
        "the Vapi session is ended, at Vapi and in our books",
        vapi_reason == "assistant-ended-call" and not seen.vapi.open_calls() and seen.remembered.session_states == ("ended",),
        f"Vapi says {vapi_reason}, {len(seen.vapi.open_calls())} calls open there, our sessions: {list(seen.remembered.session_states)}",
    )


def _both_directions(seen: Evidence) -> Iterator[Check]:
    understood = [] if seen.agent is None else [final.clip_name for final in seen.agent.evidence.understood]
    yield Check("the agent understood every word of the caller from the audio that arrived", understood == CALLER_SAYS, f"{understood}")
    heard = [final.clip_name for final in seen.phone.heard]
    yield Check("the caller heard the agent, the disclosure first", heard == CALLER_HEARS, f"{heard}")


def _no_complaints(seen: Evidence) -> Iterator[Check]:
    found = [*seen.phone.violations, *seen.phone.problems, *seen.vapi.refused]
    yield Check("neither vendor has anything to complain of", not found, f"{found}" if found else "nothing")


Look = Callable[[Evidence], Iterator[Check]]
LOOKS: Sequence[Look] = (_greeting, _interruption, _tool, _transcript, _ending, _both_directions, _no_complaints)


def _same_words(some: Sequence[str], others: Sequence[str]) -> bool:
    """True when one of them is the beginning of the other, and at most a word shorter."""
    shorter, longer = sorted((some, others), key=len)
    return len(longer) - len(shorter) <= 1 and [*longer[: len(shorter)]] == [*shorter]


def _cut(final: Final | None) -> str:
    if final is None:
        return "not heard"
    return "heard to its end" if final.complete else f"cut at {final.heard_to_ms} ms"
