"""What the core may decide: everything a call can ask of its two wires, of its history and of its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.audio import ms
from bridge.voice import FlushCaller, MarkCaller, ToCaller


@dataclass(frozen=True, slots=True)
class ToAgent:
    ulaw: bytes


@dataclass(frozen=True, slots=True)
class TellAgent:
    """A control message for Vapi's socket. What is in it may be what a caller typed: it is never printed."""

    message: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Noted:
    """Worth remembering."""

    kind: str
    source: str = "bridge"
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AskForPerson:
    """The caller wants a person: the history knows whether there is one, and answers with a command."""


@dataclass(frozen=True, slots=True)
class AskForAgent:
    """The agent is gone, the caller is not: another agent, or a word that there is none. `raw` says how it was lost."""

    raw: str


@dataclass(frozen=True, slots=True)
class Leave:
    """The stream is over for us; `why` as in `bridge.ports.Closing`."""

    why: str
    raw: str = ""


Action = ToAgent | TellAgent | ToCaller | MarkCaller | FlushCaller | Noted | AskForPerson | AskForAgent | Leave


def turn_ended(
    *, said: int, heard: int, interrupted: bool, heard_words: int | None = None, left: bool = False, interruption: str = ""
) -> list[Noted]:
    """What the caller heard of a turn of the agent's, in bytes, and in words if their times are known; nothing of one without a sound.

    `left`: nobody cut it, the stream or the agent was gone; `interruption`: which one did.
    """
    detail: dict[str, Any] = {"said_ms": ms(said), "heard_ms": ms(max(0, heard)), "interrupted": interrupted}
    if heard_words is not None:
        detail["heard_words"] = heard_words
    if left:
        detail["left"] = True
    if interruption:
        detail["interruption"] = interruption
    return [Noted("agent-turn-ended", detail=detail)] if said > 0 else []
