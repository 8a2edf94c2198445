"""Barge-in: the caller speaks while sound of the agent's is unheard. One small machine:

    SPEAKING --evidence--> HOLDING --confirmed--> FLUSHED --next agent turn--> SPEAKING
                              `--600 ms without confirmation: it was an "mhm"--> SPEAKING (plays on)

Evidence is "the caller speaks" while agent sound is unheard. Confirmation is Vapi's `user-interrupted`, or the end of the
agent's turn; where a pause comes first (not `instant`) an end proves nothing unless the caller was heard to say a word. One
`clear` per interruption: 500 ms must pass from the last clear to the next. An agent that sent all of its turn long ago can be
interrupted in it no more; then the turn that answers what the caller said over it is the confirmation.

Sound that comes after a cut is of the turn that was cut, until the next one is told of. A gap proves nothing: a socket may stall.
Who tells of turns has a second for it; then, and where none was ever told of, what comes after a gap is a turn nobody announced.

All that is noted of one interruption bears its name: who told of it first and what, the decision, the clear, the silence. Evidence that
leads to a clear of its own is an interruption of its own.

Pure: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from bridge.actions import Action, Noted
from bridge.agenda import Agenda
from bridge.agent_turn import AgentTurn
from bridge.audio import ms
from bridge.figures import Figures
from bridge.moments import NEVER
from bridge.rules import Rules
from bridge.voice import AgentVoice, FlushCaller


class Turn(Enum):
    SPEAKING = "speaking"  # agent sound may pass; also while nobody speaks
    HOLDING = "holding"
    FLUSHED = "flushed"  # what still arrives belongs to the interrupted turn


@dataclass(frozen=True, slots=True)
class Sign:
    """What tells of an interruption, and who: Vapi's socket or webhook, or somebody of the house."""

    told: str  # speech | interrupted | turn-ended | next-turn | asked
    by: str = "socket"  # webhook | house


class BargeIn:
    """`turn` is where the machine stands. `protected`: what is being said is heard to its end. `stream`: names its interruptions."""

    def __init__(self, rules: Rules, figures: Figures, voice: AgentVoice, said: AgentTurn, agenda: Agenda, *, stream: int = 0) -> None:
        self._rules, self._figures, self._voice, self._said, self._agenda = rules, figures, voice, said, agenda
        self._stream, self._number = stream, 0
        self._undecided = False
        self.turn = Turn.SPEAKING
        self.protected = not rules.greeting_interruptible
        self.caller_speaks = False
        self._caller_has_words = False  # in what the caller says now
        self._spoke_over = self._said_over = False  # the caller, over sound that is still unheard: was heard, and in words
        self._cleared_at: float | None = None
        self._told_by = -NEVER  # of the next turn, after a cut
        self._gap_since = False
        self._evidence_at: float | None = None
        self._silence_pending: tuple[float, str] | None = None  # since when, and of which interruption

    # -- the caller

    def caller_spoke(self, now: float, *, by: str = "socket") -> list[Action]:
        out: list[Action] = [] if self.caller_speaks else [Noted("user-speech-started", "vapi")]
        self._caller_has_words &= self.caller_speaks
        self.caller_speaks = True
        if self.protected or (self.turn is not Turn.HOLDING and self._voice.unheard(now) <= 0):
            return out
        if self.turn is Turn.SPEAKING:  # one that was cut stays cut, whatever of it no clear has taken from Twilio yet
            out += self._hold(now, Sign("speech", by))
        return out + (self._clear(now, Sign("speech", by)) if self._rules.instant else [])

    def caller_said(self, text: str) -> None:
        self._caller_has_words |= bool(text)
        self._said_over |= self._spoke_over and bool(text)

    # -- the agent

    def agent_started(self, now: float) -> list[Action]:
        """The next turn. If it answers what the caller said over the last one, nobody wants the rest of that."""
        answers, self._spoke_over, self._said_over = self._said_over, False, False
        if not answers or self.protected or self._voice.unheard(now) <= 0:
            return []
        out = self.flush(now, Sign("next-turn"))
        self._said.give_up()  # its line is not coming any more
        return out

    def turn_queued(self) -> None:
        """The model has begun the next one."""
        self._told_by = -NEVER

    def cut_goes_on(self, gap: float, now: float) -> bool:
        """Whether sound that comes in FLUSHED, so long after the sound before it, is of the turn that was cut."""
        self._gap_since |= gap >= self._rules.new_turn_after_gap
        return not self._gap_since or (self._said.is_told and now < self._told_by)

    def was_cut(self, now: float) -> None:
        """Or is told of again."""
        self._told_by, self._gap_since = now + self._rules.turn_told_within, False

    @property
    def end_confirms(self) -> bool:
        """The end of the agent's turn says that it was interrupted."""
        return self.turn is Turn.HOLDING and (self._rules.instant or self._caller_has_words)

    # -- what comes of it

    def flush(self, now: float, sign: Sign) -> list[Action]:
        """Vapi may have finished its turn long ago while Twilio still plays it: clear also when nothing is held here."""
        self.was_cut(now)
        out = self._clear(now, sign)
        if not out and self._voice.unheard(now) <= 0 and self.turn is not Turn.HOLDING:
            return []  # the same interruption, told twice
        if not self._undecided:
            out += self._evidence(now, sign)
        cancelled = self._voice.drop()
        self._figures.downlink_flushed += cancelled
        is_callers = sign.told != "asked"
        self._figures.interruptions += is_callers
        decided = self._named({"told": sign.told, "by": sign.by})
        out += [
            Noted("interruption-confirmed", detail=decided) if is_callers else Noted("flush-asked", detail=decided),
            Noted("tts-buffer-flushed", detail=self._named({"cancelled_ms": ms(cancelled)})),
            *self._said.cut(now, unheard=cancelled, tell=is_callers, interruption=self._name),
        ]
        self._agenda.strike("confirm")
        self._evidence_at, self._undecided = None, False  # the next interruption has its own
        self._spoke_over = self._said_over = False
        self.turn = Turn.FLUSHED
        return out

    def play_on(self, now: float) -> list[Action]:
        """It was no interruption, if it was held for one."""
        if self.turn is not Turn.HOLDING:
            return []
        self.turn = Turn.SPEAKING
        self._evidence_at, self._undecided = None, False
        self._agenda.strike("confirm")
        return [Noted("interruption-dismissed", detail=self._named({})), *self._voice.resume(now)]

    @property
    def awaits_silence(self) -> bool:
        return self._silence_pending is not None

    def silent(self, now: float) -> list[Action]:
        """The mark behind the clear is back: it was carried out. One that was on its way before says nothing of it."""
        since, name = self._silence_pending or (now, self._name)
        self._silence_pending = None
        if name == self._name:  # else the next one has begun, and its evidence stands
            self._evidence_at = None
        silence_ms = int((now - since) * 1000)
        self._figures.time_to_silence_ms.append(silence_ms)
        return [Noted("caller-hears-silence", "twilio", {"ms": silence_ms, "interruption": name})]

    def _hold(self, now: float, sign: Sign) -> list[Action]:
        self.turn = Turn.HOLDING
        self._spoke_over = True
        self._evidence_at = None
        self._voice.pause()
        self._agenda.put("confirm", now + self._rules.confirm)
        return self._evidence(now, sign)

    def _clear(self, now: float, sign: Sign) -> list[Action]:
        """At most one clear in 500 ms. The sound it takes from Twilio stays first in line until the barge-in is confirmed."""
        if self._cleared_at is not None and now - self._cleared_at < self._rules.debounce:
            return []
        self._cleared_at = now
        out: list[Action] = [FlushCaller(), self._voice.cut(now), *self._evidence(now, sign)]
        since = now if self._evidence_at is None else self._evidence_at
        self._silence_pending = since, self._name
        return [*out, Noted("clear-sent", detail=self._named({"after_evidence_ms": int((now - since) * 1000)}))]

    # -- what is told of one

    def _evidence(self, now: float, sign: Sign) -> list[Action]:
        """The first of an interruption."""
        if self._evidence_at is not None:
            return []
        self._number += 1
        self._evidence_at, self._undecided = now, True
        return [Noted("interruption-evidence", detail=self._named({"told": sign.told, "by": sign.by}))]

    @property
    def _name(self) -> str:
        return f"{self._stream}.{self._number}"

    def _named(self, detail: Mapping[str, object]) -> dict[str, object]:
        return {**detail, "interruption": self._name}
