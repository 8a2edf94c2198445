"""The way out of a call: decided once, gone once, and not before the last word was heard.

Whoever leaves waits for what the agent is saying, or is about to say within 2.5 s, but for no longer than 20 s. A process that
is to leave waits for less: until the agent has said its say and nobody waits for more. What it waits for is on the call's agenda:

    last-sentence   by then the agent has begun it, or there is none
    drain           by then it was heard, or is cut
    hand-on         by then nobody is in the middle of anything, or is cut
    heard           look again: what is at Twilio will have been heard

Pure: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

from bridge.actions import Action, Leave
from bridge.agenda import Agenda
from bridge.audio import FRAME_S
from bridge.rules import Rules
from bridge.voice import AgentVoice

TOO_LATE = Leave("drained", "in the middle of a turn")  # a bound is reached: whatever is being said is cut


class WayOut:
    """`leave` says why, from the moment it is decided. `is_moving`: elsewhere, as soon as nobody is in the middle of anything."""

    def __init__(self, rules: Rules, voice: AgentVoice, agenda: Agenda) -> None:
        self._rules, self._voice, self._agenda = rules, voice, agenda
        self.leave: Leave | None = None
        self.is_moving = False
        self.is_gone = False

    def decide(self, leave: Leave, now: float) -> None:
        self.leave = leave
        self._agenda.put("drain", now + self._rules.drain_within)

    def await_sentence(self, now: float) -> None:
        """The agent is about to say its last one."""
        self._agenda.put("last-sentence", now + self._rules.last_sentence_within)

    def await_no_sentence(self) -> None:
        """It has begun, or nobody is there to say it."""
        self._agenda.strike("last-sentence")

    def move(self, now: float) -> None:
        self.is_moving = True
        self._agenda.put("hand-on", now + self._rules.drain_within)

    def once_heard(self, now: float) -> list[Action]:
        """For an agent that is not speaking: gone, if all of it was heard and no more is awaited."""
        if self.leave is None or self.is_gone or "last-sentence" in self._agenda:
            return []
        return self.go(self.leave) if self._all_heard(now) else []

    def once_calm(self, now: float, *, nobody_waits: bool) -> list[Action]:
        """The same for one whose process is to leave: the caller has the turn, and has not begun."""
        return self.go(Leave("drained")) if self._all_heard(now) and nobody_waits else []

    def go(self, why: Leave) -> list[Action]:
        """Now: for what was decided before, or for this."""
        if self.is_gone:
            return []
        self.is_gone = True
        self._agenda.clear()
        return [self.leave or why]

    def _all_heard(self, now: float) -> bool:
        if self._voice.all_heard(now):
            return True
        self._agenda.put("heard", max(now + FRAME_S, self._voice.last_given_up_at()))
        return False
