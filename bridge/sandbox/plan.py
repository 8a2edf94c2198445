"""What a conversation needs of an assistant: its published payload, read once, with Vapi's defaults and its variables filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from bridge.sandbox.alignment import TELLING_VOICES
from bridge.sandbox.dto import CLIENT_DEFAULTS, SERVER_DEFAULTS
from bridge.sandbox.evidence import Message

# Vapi has lists of its own, which it does not publish; these are their kind.
ACKNOWLEDGEMENTS = ("okay", "ok", "right", "yeah", "yes", "sure", "got it", "i see", "mm-hm", "uh-huh", "mhm")
INTERRUPTIONS = ("stop", "wait", "hold on", "no", "enough", "actually")
NAMES = ("AI", "User")  # who speaks, in a transcript


@dataclass(frozen=True, slots=True)
class Plan:
    """An assistant, seen by the engine."""

    first_message: str = ""
    mode: str = "assistant-speaks-first"
    greeting_interruptible: bool = False
    prompt: str = ""
    caller_said: tuple[str, ...] = ()  # in the messages the assistant was given, before this call
    wait_s: float = 0.4
    stop_words: int = 0
    stop_voice_s: float = 0.2
    backoff_s: float = 1.0
    acknowledgements: tuple[str, ...] = ACKNOWLEDGEMENTS
    interruptions: tuple[str, ...] = INTERRUPTIONS
    end_phrases: tuple[str, ...] = ()
    end_message: str = ""
    max_duration_s: float = 600.0
    silence_timeout_s: float | None = None
    tells_words: bool = False  # the voice knows when it speaks which word
    client_messages: frozenset[str] = frozenset(CLIENT_DEFAULTS)
    server_messages: frozenset[str] = frozenset(SERVER_DEFAULTS)
    tools: Mapping[str, Message] = field(default_factory=dict)

    @classmethod
    def of(cls, assistant: Message, render: Callable[[str], str] = str) -> Plan:
        """Read an assistant as the API takes it (`dto.ASSISTANT`), overrides already merged; `render` fills in its variables."""
        start = assistant.get("startSpeakingPlan", {})
        stop = assistant.get("stopSpeakingPlan", {})
        model = assistant.get("model", {})
        tools = [*model.get("tools", []), *assistant.get("tools:append", [])]
        prompts = [each.get("content", "") for each in model.get("messages", []) if each["role"] == "system"]
        return cls(
            first_message=render(assistant.get("firstMessage", "")),
            mode=assistant.get("firstMessageMode", "assistant-speaks-first"),
            greeting_interruptible=assistant.get("firstMessageInterruptionsEnabled", False),
            prompt=render("\n".join(prompts)),
            caller_said=tuple(_plain(each.get("content", "")) for each in model.get("messages", []) if each["role"] == "user"),
            wait_s=start.get("waitSeconds", 0.4),
            stop_words=stop.get("numWords", 0),
            stop_voice_s=stop.get("voiceSeconds", 0.2),
            backoff_s=stop.get("backoffSeconds", 1.0),
            acknowledgements=tuple(map(_plain, stop.get("acknowledgementPhrases", ACKNOWLEDGEMENTS))),
            interruptions=tuple(map(_plain, stop.get("interruptionPhrases", INTERRUPTIONS))),
            end_phrases=tuple(map(_plain, assistant.get("endCallPhrases", []))),
            end_message=render(assistant.get("endCallMessage", "")),
            max_duration_s=assistant.get("maxDurationSeconds", 600),
            silence_timeout_s=assistant.get("silenceTimeoutSeconds"),
            tells_words=assistant.get("voice", {}).get("provider") in TELLING_VOICES,
            client_messages=frozenset(assistant.get("clientMessages", CLIENT_DEFAULTS)),
            server_messages=frozenset(assistant.get("serverMessages", SERVER_DEFAULTS)),
            tools={tool["function"]["name"]: tool for tool in tools if tool.get("type") == "function"},
        )

    @property
    def speaks_first(self) -> bool:
        return self.mode != "assistant-waits-for-user"

    def remembers(self, words: str) -> bool:
        """Did the caller say this before another agent was lost, by what this one was told?"""
        return _holds(" ".join(self.caller_said), (_plain(words),))

    def interrupted_by(self, words: str) -> bool:
        """Do these words of the caller stop the agent? With `numWords` 0 it is the voice that does (`stop_voice_s`)."""
        said = _plain(words)
        if _holds(said, self.interruptions):
            return True
        return 0 < self.stop_words <= len(said.split()) and said not in self.acknowledgements

    def ended_by(self, words: str) -> bool:
        """Are these words of the agent's the last ones of the call?"""
        return _holds(_plain(words), self.end_phrases)


def _plain(words: str) -> str:
    """Lower case, letters, digits, hyphens and apostrophes only."""
    return " ".join(re.findall(r"[\w'-]+", words.lower()))


def _holds(words: str, phrases: Iterable[str]) -> bool:
    return any(f" {phrase} " in f" {words} " for phrase in phrases if phrase)
