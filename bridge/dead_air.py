"""Dead air: the agent owes the caller something, and nothing is heard.

Owed is an answer, once the caller has finished a sentence or a tool was asked, and the rest of a turn that was begun and not
ended, or was cut by a caller who then said nothing: both would wait for the other. A sentence of which no more words come is
finished, whoever says that the caller speaks on. Only sound pays a debt: a vendor that is in trouble may go on to say that it
speaks. Nothing is owed to a caller who was asked and thinks, who asked for a moment, who only hummed, or whose line is noisy.
An agent that waits for a tool is not given up before the tool is, yet its caller hears a sentence as soon as anybody. A caller's
"hello?" does not start the wait again. Pure: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bridge.moments import NEVER
from bridge.rules import Rules

HUMS = frozenset(["mm", "mhm", "mm-hm", "mmhm", "hm", "hmm", "uh-huh", "uhuh", "ah", "oh", "okay", "ok", "right", "thanks", "thank", "you"])
WANTS_TIME = re.compile(
    r"\b(?:(?:hold|hang) on|(?:one|a|just a|another) (?:moment|second|sec|minute)|bear with me|give me (?:a|one)|wait"
    r"|let me (?:check|look|see|find|get|think|grab|ask|try))\b"
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is due: a sentence that asks for patience, or (`lost`) the end of it. `ms`: how long nothing was heard."""

    ms: int
    lost: bool


class DeadAir:
    """One agent's debts. `at` is when `check` wants to be called."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._answer_since: float | None = None
        self._rest_since: float | None = None
        self._cut_since: float | None = None  # or asked by us
        self._doubted_since: float | None = None  # (`bridge.doubt`)
        self._words_at: float | None = None  # the newest of what the caller is saying
        self._waited = 0.0  # before the caller spoke again
        self._tool_until = 0.0
        self._caller_speaks = False
        self._said = ""
        self._forced = False
        self._talking = False
        self._ends_are_told = False
        self._told_at: float | None = None
        self._unreachable = False
        self._off = False
        self.at = NEVER

    # -- the caller

    def caller_spoke(self, now: float) -> None:
        since, self._doubted_since = self._answer_since, None
        if not self._caller_speaks and since is not None:  # a breath between two words is no wait
            self._waited = now - since if now - since >= self._rules.caller_breath else 0.0
        self._words_at = self._words_at if self._caller_speaks else None
        self._caller_speaks, self._answer_since = True, None
        self._settle()

    def caller_said(self, text: str) -> None:
        """Words of the caller, partial or final: until there are some it was noise."""
        self._said, self._doubted_since = text, None
        if self._cut_since is not None and self._has_words():
            self._cut_since = None
        self._settle()

    def caller_goes_on(self, now: float) -> None:
        """Another word of a sentence. Where some came and no more do, the caller has stopped, or the vendor hears nothing any more."""
        if self._caller_speaks:
            self._words_at = now
            self._settle()

    def caller_paused(self, now: float) -> None:
        self._caller_speaks, self._words_at, self._answer_since = False, None, now - self._waited
        self._doubted_since = None
        self._settle()

    # -- the agent

    def agent_started(self, now: float) -> None:
        self._talking = True
        if self._answer_since is None:
            self._rest_since = now
        self._settle()

    def agent_speech(self, source: str) -> None:
        """Whose words the agent is about to say: a tool's waiting sentence is forced on it, and no answer."""
        self._forced = source == "force-say"

    def agent_sound(self, heard_until: float) -> None:
        """Sound of the agent's, all of which will have been heard at that moment."""
        self._rest_since = heard_until if self._talking else None
        self._waited, self._told_at, self._doubted_since = 0.0, None, None
        if self._forced and self._tool_until > 0:
            self._answer_since = heard_until
            return self._settle()
        self._answer_since, self._tool_until, self._said = None, 0.0, ""
        self._cut_since = self._words_at = None
        owes_rest = self._talking and self._ends_are_told and not self._caller_speaks and not self._off
        self.at = heard_until + self._rules.trouble_after if owes_rest else NEVER  # as `_settle` says, fifty times a second
        return None

    def agent_cut(self, now: float) -> None:
        """The caller interrupted it, and says why. Whether the vendor still takes them for speaking proves nothing without a word."""
        self._cut_since = None if self._has_words() else now
        self._settle()

    def asked(self, now: float) -> None:
        """We had it say something."""
        self._cut_since = now
        self._settle()

    def doubted(self, since: float) -> None:
        """Something was said to it, or its turn broke off, and it tells nothing."""
        self._doubted_since = since
        self._settle()

    def agent_stopped(self) -> None:
        self._talking, self._rest_since, self._ends_are_told = False, None, True
        self._settle()

    def tool_called(self, now: float) -> None:
        self._tool_until = now + self._rules.tool_within
        self._answer_since = now if self._answer_since is None else self._answer_since
        self._settle()

    def unreachable(self, now: float) -> bool:
        """Not even an answer comes of it: whether the caller is to be told, who need not wait for anything."""
        if self._off or self._unreachable or self._told_at is not None:
            return False
        self._unreachable = True
        if self._since() is not None:
            self._told_at = now
            self._settle()
        return True

    def reachable(self) -> None:
        self._unreachable = False

    # -- time

    def check(self, now: float) -> Trouble | None:
        """What is due, if anything is after all."""
        since, until = self._since(), self.at
        if since is None or now < until:
            return None
        if not self._is_owed():
            self._answer_since = self._words_at = None
            self._settle()
            return None
        trouble = Trouble(ms=int((now - since) * 1000), lost=self._told_at is not None)
        self._told_at = now
        self._settle()
        return trouble

    @property
    def owes(self) -> bool:
        """An answer to something it understood, or the rest of a turn: not what a cut agent owes, who may wait for the caller."""
        return self._since() is not None and (bool(self._tool_until) or (self._cut_since is None and self._is_owed()))

    def caller_is_understood(self, now: float) -> float | None:
        """When a word of the caller's came last, as long as another one may follow; None: nobody speaks, or nothing comes of it."""
        words_at = self._words_at if self._caller_speaks else None
        return words_at if words_at is not None and now - words_at < self._rules.caller_breath else None

    @property
    def caller_wants_time(self) -> bool:
        return bool(WANTS_TIME.search(self._said.lower()))

    def is_nothing(self) -> bool:
        """Nobody waits for the agent, and the caller does not speak."""
        owed = (self._answer_since, self._cut_since, self._doubted_since)
        return not self._caller_speaks and not self._tool_until and all(since is None for since in owed)

    def end(self) -> None:
        """The call is being left: nothing is owed any more."""
        self._off, self.at = True, NEVER

    # -- inside

    def _since(self) -> float | None:
        if self._cut_since is not None:
            return self._cut_since
        if self._doubted_since is not None:
            return self._doubted_since
        if self._caller_speaks:
            return self._words_at
        answer = self._answer_since
        rest = self._rest_since if self._ends_are_told else None  # a vendor that never told an end proves nothing by telling none
        return rest if answer is None or (rest is not None and rest < answer) else answer

    def _is_owed(self) -> bool:
        is_certain = self._cut_since is not None or self._doubted_since is not None
        if self._tool_until or is_certain or (self._rest_since is not None and self._ends_are_told):
            return True
        return self._has_words() and not self.caller_wants_time

    def _has_words(self) -> bool:
        return any(word not in HUMS for word in re.findall(r"[\w'-]+", self._said.lower()))

    def _settle(self) -> None:
        since = self._since()
        if since is None or self._off:
            self.at = NEVER
            return
        if self._told_at is None:
            self.at = since + self._rules.trouble_after
        else:  # whoever was asked for patience is given the rest of it, also when our own process slept
            rest = self._rules.lost_after - self._rules.trouble_after
            self.at = max(since + self._rules.lost_after, self._told_at + rest, self._tool_until)
