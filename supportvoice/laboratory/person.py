"""A caller who answers what they hear, whatever it is and however often: faults change the course of a conversation.

Nobody repeats a question into a dead line: silence on the line is the house's to end.
"""

from __future__ import annotations

from collections.abc import Mapping

from bridge.sandbox.clips import CLIPS
from bridge.sandbox.ear import Final, Partial, Utterance
from bridge.sandbox.script import Caller, Deed, Say

UNDERSTOOD = 0.9  # of a sentence: who has heard so much of it knows what is asked
THEN_S = 0.6
INTERRUPTED, INTO_S = "reset_steps", 3.2
ANSWERS: Mapping[str, str] = {
    "greeting": "cannot_log_in",
    "reset_steps": "already_tried",
    "another_way": "no_thanks",
    "ask_email": "email_is_alex",
    "account_locked": "thanks_goodbye",
    "tool_failed": "thanks_goodbye",
    "opening_hours": "no_thanks",
    "cut_off": "what_did_i_say",
    "still_here": "what_did_i_say",
    "you_cannot_log_in": "no_thanks",
    "not_remembered": "no_thanks",
    "nobody_free": "callback_message",
}
ASKED_AGAIN = "say_again"


class Person(Caller):
    """`first` is what they say to the greeting. They interrupt the first long explanation."""

    def __init__(self, first: str = ANSWERS["greeting"]) -> None:
        super().__init__(())
        self._answers = {**ANSWERS, "greeting": first}
        self._last = first
        self._next: tuple[float, str] | None = None
        self._interrupted = False

    def heard(self, utterance: Utterance) -> None:
        match utterance:
            case Partial(clip_name=name, started_at=started) if name == INTERRUPTED and not self._interrupted:
                self._interrupted = True
                self._next = (started + INTO_S, self._answers[INTERRUPTED])
            case Final(clip_name=str(name)) if self._to_its_end(utterance) and self._next is None:
                answer = self._last if name == ASKED_AGAIN else self._answers.get(name)
                if answer is not None and not (name == INTERRUPTED and self._last == answer):
                    self._next = (utterance.ended_at + THEN_S, answer)

    @staticmethod
    def _to_its_end(final: Final) -> bool:
        return final.clip_name is not None and final.heard_to_ms >= UNDERSTOOD * CLIPS[final.clip_name].ms

    def next_deadline(self) -> float | None:
        return self._next[0] if self._next else None

    def deeds(self, now: float) -> list[Deed]:
        if self._next is None or self._next[0] > now:
            return []
        self._last, self._next = self._next[1], None
        return [Say(self._last)]
