"""The agent's present turn: how much sound it had, in which words, and how much of it was heard.

When it is cut, the model is told what was heard; without that it believes it said everything. With word times it is told at
once. Else the vendor's own line of the cut turn is waited for, which says what was spoken until then; when none comes in time,
nothing is told. Pure: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridge import vapi_messages as vapi
from bridge.actions import Action, Noted, TellAgent, turn_ended
from bridge.audio import ms
from bridge.heard import TimedWords, even_words
from bridge.moments import NEVER
from bridge.rules import Rules


class AgentTurn:
    """`bytes` of sound since it began; `is_over` when no more is to come; `is_told`: that a turn begins; `at`: when `give_up` is due."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._words = TimedWords()
        self._line = ""  # what the vendor says was said
        self._cut_ms, self._cut_by = (0, 0), ""
        self.bytes = 0
        self.is_over = True
        self.is_told = False
        self.at = NEVER

    def begin(self) -> None:
        self.bytes, self._line, self.is_over, self.is_told = 0, "", False, True
        self._words.next_turn()

    def sound(self, n_bytes: int) -> None:
        self.bytes += n_bytes
        self.is_over = False

    def spoken(self, timing: Mapping[str, Any], speech: str = "") -> None:
        """When some of its words are spoken."""
        self._words.told(timing, speech)

    def said(self, line: str) -> list[Action]:
        """The vendor's line of what the agent said, up to where it was cut."""
        self._line = f"{self._line} {line}".strip()
        return self._share() if self.at != NEVER and self._line else []

    def over(self) -> None:
        """Vapi has sent all of it. It may be cut all the same, as long as it has not been heard."""
        self.is_over = True
        self._words.turn_over()

    def heard_out(self) -> list[Noted]:
        return turn_ended(said=self.bytes, heard=self.bytes, interrupted=False)

    def left(self, *, unheard: int) -> list[Noted]:
        """The stream or the agent is gone, maybe in the middle of it: what it has is all there is. It may go on, on another stream."""
        if self.is_over and unheard <= 0:
            return []
        heard = self._words.heard(ms(max(0, self.bytes - unheard))) if self._words else None
        count = None if heard is None else len(heard)
        return turn_ended(said=self.bytes, heard=self.bytes - unheard, interrupted=True, heard_words=count, left=True)

    def cut(self, now: float, *, unheard: int, tell: bool, interruption: str = "") -> list[Action]:
        """The rest is not heard any more: `unheard` bytes. `tell`: it was the caller who cut it, `interruption`: by which one."""
        said_ms, heard_ms = ms(self.bytes), ms(max(0, self.bytes - unheard))
        heard = self._words.heard(heard_ms) if self._words else None
        count = None if heard is None else len(heard)
        heard_bytes = self.bytes - unheard
        out: list[Action] = [
            *turn_ended(said=self.bytes, heard=heard_bytes, interrupted=True, heard_words=count, interruption=interruption)
        ]
        self.bytes, self.at, self._cut_by = 0, NEVER, interruption
        if not tell or not self._rules.tell_heard or heard_ms >= said_ms:
            return out
        if heard is not None:
            return out + self._tell(heard)
        self._cut_ms, self.at = (said_ms, heard_ms), now + self._rules.cut_line_within
        return out + (self._share() if self._line else [])  # it was spoken to its end, and not yet heard

    def give_up(self) -> None:
        self.at = NEVER

    def _share(self) -> list[Action]:
        words, (said_ms, heard_ms), self.at = self._line.split(), self._cut_ms, NEVER
        return self._tell(words[: even_words(words, said_ms=said_ms, heard_ms=heard_ms)])

    def _tell(self, heard: Sequence[str]) -> list[Action]:
        detail = {"words": len(heard), "interruption": self._cut_by}
        return [TellAgent(vapi.was_heard(" ".join(heard))), Noted("model-told-what-was-heard", detail=detail)]
