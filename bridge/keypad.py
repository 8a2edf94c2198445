"""The caller's keys: counted, never kept. Somebody may be typing the number of a card.

Pure: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

from bridge.actions import Action, AskForPerson, Noted
from bridge.figures import Figures
from bridge.rules import Rules


class Keypad:
    """`at` is when `tell` wants to be called: how many keys so far is told at most once a second."""

    def __init__(self, rules: Rules, figures: Figures) -> None:
        self._every, self._figures = rules.keys_noted_every, figures
        self._told = 0
        self._wants_person = False
        self.at = float("inf")

    def pressed(self, now: float) -> list[Action]:
        self._figures.keys += 1
        return self.tell(now) if self.at == float("inf") else []

    def tell(self, now: float) -> list[Action]:
        """Nothing new since the last time: be quiet until the next key."""
        if self._told == self._figures.keys:
            self.at = float("inf")
            return []
        self._told, self.at = self._figures.keys, now + self._every
        return [Noted("keypad-pressed", "twilio", {"count": self._told})]

    def ask_for_person(self) -> list[Action]:
        """Once is enough, however often the key is pressed."""
        asked, self._wants_person = self._wants_person, True
        return [] if asked else [AskForPerson()]
