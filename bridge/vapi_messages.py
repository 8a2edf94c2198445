"""What Vapi says beside its audio, and what we may say back. Texts are bare on the socket, wrapped in `message` by webhook.

Only the messages the bridge acts on get a class; the rest are `Other`. Field names: docs.vapi.ai, calls/websocket-transport
and server-url/events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from bridge.errors import BadMessage
from bridge.untrusted import parse_untrusted

MAX_TEXT_BYTES = 1024 * 1024  # conversation-update repeats the whole conversation
LONGEST_LINE = 20_000
OUR_END = ("customer-ended-call", "manually-canceled")  # what Vapi says after an `end-call`
END_CALL: Mapping[str, Any] = {"type": "end-call"}
TYPED = "The caller typed on the keypad: {}. Never say these digits aloud."
NOT_HEARD = "The caller may have said something that did not get through. Say so, and ask them to say it again."


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """The agent begins to speak: audio that follows belongs to a new turn."""


@dataclass(frozen=True, slots=True)
class AgentStopped:
    """Vapi has sent the last audio of this turn."""


@dataclass(frozen=True, slots=True)
class CallerSpoke:
    """Vapi hears the caller: the earliest evidence of a barge-in, also fired when nobody was interrupted."""


@dataclass(frozen=True, slots=True)
class CallerPaused:
    """The caller stopped speaking."""


@dataclass(frozen=True, slots=True)
class CallerInterrupted:
    """Vapi cut its own turn short: the authoritative evidence of a barge-in."""


@dataclass(frozen=True, slots=True)
class ResponseQueued:
    """The model's first words of a turn are on their way to the voice."""

    turn_id: str


@dataclass(frozen=True, slots=True)
class PartialHeard:
    """What Vapi thinks the caller is saying, so far."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class FinalHeard:
    """A whole line: of the caller's, or what the agent really spoke of its own."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class WordsSpoken:
    """Words of the agent on their way to the ear. `timing`: when each of them is spoken, if the voice tells; `speech`: of which speech."""

    source: str
    timing: Mapping[str, Any]
    speech: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ToolsCalled:
    """The model has asked for a tool: the answer goes by webhook, until then the agent cannot go on."""


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Vapi's call is over; its socket closes next. `raw` is one of some 600 reasons, kept as it is.

    `by_our_side`: not the agent ended it, but whoever speaks for the caller there, or has its key. That is us: as long as the caller's
    stream goes on, it is no end of the call.
    """

    raw: str

    @property
    def by_our_side(self) -> bool:
        return self.raw.startswith(OUR_END)


@dataclass(frozen=True, slots=True)
class Other:
    """Known or unknown, the bridge has nothing to do for it."""

    type: str


Message = (
    AgentStarted
    | AgentStopped
    | CallerSpoke
    | CallerPaused
    | CallerInterrupted
    | ResponseQueued
    | PartialHeard
    | FinalHeard
    | WordsSpoken
    | ToolsCalled
    | SessionEnded
    | Other
)

_SPEECH: dict[tuple[str, str], Message] = {
    ("assistant", "started"): AgentStarted(),
    ("assistant", "stopped"): AgentStopped(),
    ("user", "started"): CallerSpoke(),
    ("user", "stopped"): CallerPaused(),
}


def read(text: str | bytes) -> Message:
    """Raises BadMessage when it is not JSON of a sane size with a type."""
    body = parse_untrusted(text, max_bytes=MAX_TEXT_BYTES)
    if not isinstance(body, dict):
        raise BadMessage("The text on Vapi's socket is not an object.")
    inner = body.get("message")
    return understand(inner if isinstance(inner, dict) and "type" in inner else body)


def understand(message: Mapping[str, Any]) -> Message:
    """One message without its envelope. Raises BadMessage when the type is missing."""
    kind = message.get("type")
    if not isinstance(kind, str):
        raise BadMessage("A message of Vapi's has no type.")
    match kind.partition("[")[0]:
        case "speech-update":
            match message:
                case {"role": str(role), "status": str(status)}:
                    return _SPEECH.get((role, status), Other(kind[:60]))
        case "user-interrupted":
            return CallerInterrupted()
        case "model-output":
            return ResponseQueued(str(message.get("turnId", ""))[:64])
        case "transcript" if message.get("transcriptType") == "partial":
            return PartialHeard(str(message.get("role", "user"))[:16], str(message.get("transcript", ""))[:2000])
        case "transcript" if message.get("transcriptType", "final") == "final":
            return FinalHeard(str(message.get("role", "user"))[:16], str(message.get("transcript", ""))[:LONGEST_LINE])
        case "assistant.speechStarted":
            timing = message.get("timing")
            speech = f"{message['turn']} {message.get('text', '')}" if "turn" in message else ""
            return WordsSpoken(str(message.get("source", ""))[:16], timing if isinstance(timing, dict) else {}, speech)
        case "tool-calls":
            return ToolsCalled()
        case "status-update" if message.get("status") == "ended":
            return SessionEnded(str(message.get("endedReason", ""))[:200])
    return Other(kind[:60])


def say(text: str, *, last: bool = False) -> dict[str, Any]:
    """Have the agent speak a sentence of ours, cutting its own short; the `last` one nobody can interrupt, and the session ends with it."""
    return {
        "type": "say",
        "content": text,
        "endCallAfterSpoken": last,
        "interruptAssistantEnabled": True,
        "interruptionsEnabled": not last,
    }


def was_heard(words: str) -> dict[str, Any]:
    """Let the model know how far its interrupted sentence was heard, without having it answer."""
    said = f"Of your last sentence they heard only: “{words}”" if words else "They heard nothing of your last sentence."
    content = f"The caller interrupted you. {said} Do not take the rest as known."
    return {"type": "add-message", "message": {"role": "system", "content": content}, "triggerResponseEnabled": False}


def typed(keys: str) -> dict[str, Any]:
    """Tell the model what the caller typed, and have it answer. As `system`: what the caller *said* has no keys in it."""
    return {"type": "add-message", "message": {"role": "system", "content": TYPED.format(keys)}, "triggerResponseEnabled": True}


def not_heard() -> dict[str, Any]:
    """Have the model ask for what the caller may have said: in its words, and their language."""
    return {"type": "add-message", "message": {"role": "system", "content": NOT_HEARD}, "triggerResponseEnabled": True}


def dump(message: Mapping[str, Any]) -> str:
    return orjson.dumps(message).decode()
