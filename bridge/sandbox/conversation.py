"""What was said at Vapi, in its two cuts: line by line as the call goes on, and in whole turns for the report.

A message's `time` is when its words began, its `duration` is in milliseconds whatever the schema says. Finals are told when
words are over and understood; so the report has other times and other cuts than they had.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge.sandbox.evidence import Message

ROLES = {"bot": "assistant", "user": "user", "system": "system"}
PIECES = 2  # that are sent before an utterance is over
PIECE_WORDS = 2


class Conversation:
    """The messages so far. `wall` is seconds since 1970, `elapsed` seconds since the call began."""

    def __init__(self, *, wall: Callable[[], float], elapsed: Callable[[], float], prompt: str = "") -> None:
        self._wall = wall
        self._elapsed = elapsed
        self.messages: list[Message] = [self._at_now("system", message=prompt)] if prompt else []

    def remember(self, role: str, words: str, lasted_s: float) -> None:
        """Words that just ended."""
        ended = self._ms()
        times = {"time": ended - int(lasted_s * 1000), "endTime": ended, "duration": int(lasted_s * 1000)}
        self.messages.append(self._at_now(role, message=words) | times | {"secondsFromStart": round(self._elapsed() - lasted_s, 3)})

    def remember_tool(self, call: Message, name: str, result: str) -> None:
        self.messages.append(self._at_now("tool_calls", message="", toolCalls=[call]))
        self.messages.append(self._at_now("tool_call_result", name=name, toolCallId=call["id"], result=result))

    def so_far(self) -> Message:
        """The fields of a conversation-update."""
        spoken = in_openai_form(self.messages)
        return {"messages": list(self.messages), "messagesOpenAIFormatted": spoken, "conversation": spoken}

    def in_turns(self) -> list[Message]:
        """The report's cut: what one side said before the other one spoke is one message."""
        turns: list[Message] = []
        for message in self.messages:
            last = turns[-1] if turns else {}
            if message["role"] in ("bot", "user") and last.get("role") == message["role"]:
                turns[-1] = _joined(last, message)
            else:
                turns.append(dict(message))
        return turns

    def _at_now(self, role: str, **fields: Any) -> Message:
        return {"role": role, "time": self._ms(), "secondsFromStart": round(self._elapsed(), 3), **fields}

    def _ms(self) -> int:
        return int(self._wall() * 1000)


def _joined(first: Message, then: Message) -> Message:
    words = f"{first['message']} {then['message']}"
    return {**first, "message": words, "endTime": then["endTime"], "duration": first["duration"] + then["duration"]}


def in_openai_form(messages: list[Message]) -> list[Message]:
    return [{"role": ROLES[each["role"]], "content": each["message"]} for each in messages if each["role"] in ROLES]


class Finals:
    """How a transcriber cuts one utterance into final lines: whole, in pieces, or resent from its beginning."""

    def __init__(self, manner: str) -> None:
        self._manner = manner
        self._words = 0
        self._pieces = 0

    def partial(self, text: str) -> str:
        """The line that becomes final with these words so far; "" for none."""
        words = text.split()
        if self._manner == "whole" or self._pieces == PIECES or len(words) < self._words + PIECE_WORDS:
            return ""
        line = words[self._words :] if self._manner == "pieces" else words
        self._words, self._pieces = len(words), self._pieces + 1
        return " ".join(line)

    def final(self, text: str) -> str:
        """The line that the end of the utterance brings; "" if all of it was sent."""
        first = self._words if self._manner == "pieces" else 0
        self._words = self._pieces = 0
        return " ".join(text.split()[first:])
