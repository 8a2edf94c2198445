"""A caller who answers what they hear, whatever it is and however often: faults change the course of a conversation.

Nobody repeats a question into a dead line: silence on the line is the house's to end. But who heard words and understood none of them
says once more what they said last, as anybody does, for it is their turn. Of a sentence that broke off the house owes the rest, and if
they do not understand that, it is their turn, too. Else only when so much time has passed that the call counts as lost do they speak, so
that the two do not wait for each other for ever.
"""

from __future__ import annotations

from collections.abc import Mapping

from bridge.sandbox.clips import CLIPS
from bridge.sandbox.ear import Final, Partial, SpeechStarted, Utterance
from bridge.sandbox.script import Caller, Deed, Say
from supportvoice.laboratory.judge import LONGEST_SILENCE_S

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
WORDS_S = 1.0  # of speech that nobody understands: it was an answer, less may be the rest of one ...
REST_S = 0.5  # ... or is, of one that broke off just before
SORRY_S = 2.0  # after it
HELLO_S = LONGEST_SILENCE_S + 3.0  # their own words, over which something broke off, are no silence


class Person(Caller):
    """`first` is what they say to the greeting. They interrupt the first long explanation. `asked`: how often by themselves."""

    def __init__(self, first: str = ANSWERS["greeting"]) -> None:
        super().__init__(())
        self._answers = {**ANSWERS, "greeting": first}
        self._last = first
        self._next: tuple[float, str] | None = None
        self._interrupted = False
        self._unclear_s = 0.0  # of speech, since something was understood
        self._words_s = WORDS_S  # so much of it is an answer
        self._ask_at: float | None = None
        self._may_ask = True  # once, until something is understood
        self.asked = 0

    def heard(self, utterance: Utterance) -> None:
        match utterance:
            case SpeechStarted():
                self._ask_at = None
            case Partial(clip_name=name, started_at=started) if name == INTERRUPTED and not self._interrupted:
                self._interrupted = True
                self._next = (started + INTO_S, self._answers[INTERRUPTED])
            case Final(clip_name=str(name)) if self._to_its_end(utterance):
                self._unclear_s, self._words_s, self._ask_at, self._may_ask = 0.0, WORDS_S, None, True
                if self._next is None:
                    self._think_of_an_answer(name, utterance)
            case Final():
                self._wonder(utterance)

    def _think_of_an_answer(self, name: str, heard: Final) -> None:
        answer = self._last if name == ASKED_AGAIN else self._answers.get(name)
        if answer is not None and not (name == INTERRUPTED and self._last == answer):
            self._next = (heard.ended_at + THEN_S, answer)

    def _wonder(self, heard: Final) -> None:
        """It was not understood, or broke off."""
        if heard.clip_name is None:
            self._unclear_s += heard.ended_at - heard.started_at
        else:
            self._words_s = REST_S
        if self._may_ask:
            self._ask_at = heard.ended_at + (SORRY_S if self._unclear_s >= self._words_s else HELLO_S)

    @staticmethod
    def _to_its_end(final: Final) -> bool:
        return final.clip_name is not None and final.heard_to_ms >= UNDERSTOOD * CLIPS[final.clip_name].ms

    def next_deadline(self) -> float | None:
        return self._next[0] if self._next else self._ask_at

    def deeds(self, now: float) -> list[Deed]:
        if (due := self.next_deadline()) is None or due > now:
            return []
        if self._next is None:
            self.asked += 1
            self._may_ask = False
        else:
            self._last, self._next = self._next[1], None
        self._unclear_s, self._words_s, self._ask_at = 0.0, WORDS_S, None
        return [Say(self._last)]
