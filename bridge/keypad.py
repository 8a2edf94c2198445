"""The caller's keys. They are counted; which ones they were nobody keeps, for it may be the number of a card.

0 calls a person where the line says so. An agent that listens to the keypad is told what was typed, an entry at a time: it
is complete with the end key, with so many digits, or after a pause. There a 0 is a digit like any other unless it is all of
the entry. Until it is complete an entry is here and nowhere else; then it is a message on Vapi's socket, and gone.

Pure: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

from bridge import vapi_messages
from bridge.actions import Action, AskForPerson, Noted, TellAgent
from bridge.figures import Figures
from bridge.moments import NEVER
from bridge.rules import Rules

PERSON = "0"
TYPED = frozenset("0123456789*#")


class Keypad:
    """`at` is when `tick` wants to be called: how many keys so far is told at most once a second."""

    def __init__(self, rules: Rules, figures: Figures) -> None:
        self._rules, self._figures = rules, figures
        self._told = 0
        self._tell_at = self._entered_at = NEVER
        self._wants_person = False
        self._entry = ""
        self._complete = ""  # waits for the agent
        self._connected = False

    @property
    def at(self) -> float:
        return self._tell_at if self._tell_at < self._entered_at else self._entered_at

    def pressed(self, key: str, now: float, *, is_leaving: bool) -> list[Action]:
        """A caller who is on the way out asks for nobody and tells nothing any more."""
        self._figures.keys += 1
        out = self._tell(now) if self._tell_at == NEVER else []
        if is_leaving:
            self.forget()
            return out
        if self._rules.keypad_digits:
            return out + self._typed(key, now)
        return out + (self._ask_for_person() if key == PERSON else [])

    def connected(self) -> list[Action]:
        """The agent listens from now on; what was typed before it was there is told now."""
        self._connected = True
        keys, self._complete = self._complete, ""
        return self._hand_on(keys) if keys else []

    def forget(self) -> None:
        self._entry = self._complete = ""
        self._entered_at = NEVER

    def tick(self, now: float) -> list[Action]:
        out = self._tell(now) if self._tell_at <= now else []
        return out + (self._entered() if self._entered_at <= now else [])

    def _tell(self, now: float) -> list[Action]:
        """Nothing new since the last time: be quiet until the next key."""
        if self._told == self._figures.keys:
            self._tell_at = NEVER
            return []
        self._told, self._tell_at = self._figures.keys, now + self._rules.keys_noted_every
        return [Noted("keypad-pressed", "twilio", {"count": self._told})]

    def _ask_for_person(self) -> list[Action]:
        """Once is enough, however often the key is pressed."""
        if self._wants_person or not self._rules.zero_for_person:
            return []
        self._wants_person = True
        return [AskForPerson()]

    def _typed(self, key: str, now: float) -> list[Action]:
        if key == self._rules.keypad_end:
            return self._entered()
        if key in TYPED:
            self._entry += key
            self._entered_at = now + self._rules.keypad_pause
        return self._entered() if len(self._entry) >= self._rules.keypad_digits else []

    def _entered(self) -> list[Action]:
        entry = self._entry
        self.forget()
        if entry == PERSON and self._rules.zero_for_person:
            return self._ask_for_person()
        if not self._connected:
            self._complete = entry
            return []
        return self._hand_on(entry) if entry else []

    def _hand_on(self, keys: str) -> list[Action]:
        return [TellAgent(vapi_messages.typed(keys)), Noted("keypad-told")]
