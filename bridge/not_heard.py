"""What the caller may have said and nobody made out: both would wait for the other.

Either Vapi heard somebody speak, long enough for words, and understood none, or does not even tell that they stopped; or the line
was gone for a moment (`bridge.parked`), and what was said into it is lost. If then nobody says anything, the agent is to ask: once,
until the caller is understood again, so that a noisy line is not asked all the time. An agent that goes on speaking has answered, but
what it says after a gap may be no answer to what was lost in it. Pure: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

from bridge.audio import FRAME_S
from bridge.moments import NEVER
from bridge.rules import Rules


class NotHeard:
    """`at` is when `check` wants to be called; `spoke_at` since when the caller speaks, and is not understood."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._agent_until = -NEVER  # when the last sound of the agent's will have been heard: what begins before may be its echo
        self._time_until = -NEVER  # the caller asked for a moment
        self._was_gone = False
        self._has_asked = False
        self._tells_words = False  # as they are said, and not only when all is
        self._off = False
        self.spoke_at: float | None = None
        self.at = NEVER

    def line_was_gone(self, now: float) -> None:
        """The caller is back, on another stream."""
        self._was_gone, self._has_asked = True, False
        self._ask_at(now + self._rules.ask_after_gap)

    def agent_is_away(self, now: float) -> None:
        """Nothing comes of it, and who is asked to hold on does so: again and again, until it is back, and then has to say so."""
        if self.spoke_at is None:
            self._ask_at(now + self._rules.ask_after)

    def agent_started(self) -> None:
        """It speaks: whoever asked for a moment has had it."""
        self._time_until = -NEVER

    def caller_spoke(self, now: float, *, heard_until: float) -> None:
        """`heard_until`: when all sound of the agent's that is on its way will have been heard."""
        if self.spoke_at is None:
            self.spoke_at, self._agent_until = now, heard_until
        self.at = NEVER
        if self._tells_words:
            self._ask_at(max(now, self._agent_until) + self._rules.longer_than_noise + self._rules.ask_after)

    def caller_said(self, text: str, now: float, *, is_all: bool, wants_time: bool) -> None:
        """Words of the caller: of a sentence that goes on, or of one that is over."""
        if not text.strip():
            return
        self._tells_words |= not is_all
        self._time_until = now + self._rules.longest_moment if wants_time else -NEVER
        self.spoke_at, self._was_gone, self._has_asked = None, False, False
        self.at = NEVER

    def key_pressed(self) -> None:
        """An agent that is told what the caller types has something to answer."""
        self.spoke_at, self._was_gone, self.at = None, False, NEVER

    def caller_paused(self, now: float) -> None:
        spoke_at, self.spoke_at = self.spoke_at, None
        meant_it = spoke_at is not None and now - max(spoke_at, self._agent_until) >= self._rules.longer_than_noise
        if meant_it or self._was_gone:
            self._ask_at(now + self._rules.ask_after)

    def agent_sound(self, heard_until: float) -> None:
        """Sound of the agent's, all of which will have been heard at that moment."""
        self.at = NEVER
        if self.spoke_at is not None:
            self._agent_until = heard_until
        elif self._was_gone:
            self._ask_at(heard_until + self._rules.ask_after)

    def agent_cut(self, now: float) -> None:
        """Nothing of it will be heard any more."""
        self._agent_until = min(self._agent_until, now)

    def check(self, now: float, *, heard_until: float, is_owed: bool) -> bool:
        """Whether the agent is to ask now. Not one that is still heard, nor one that owes an answer: it has understood something."""
        if now < self.at:
            return False
        if is_owed:
            self.at = NEVER
            return False
        if heard_until >= now + FRAME_S:  # less than a frame waits for the rest of its turn
            self.at = heard_until + self._rules.ask_after
            return False
        self.asked()
        return True

    @property
    def time_until(self) -> float:
        """Until then a caller who asked for a moment has it."""
        return self._time_until

    def asked(self) -> None:
        """The agent is told to, for another reason."""
        self._was_gone, self._has_asked, self.at = False, True, NEVER

    def end(self) -> None:
        """The call is being left."""
        self._off, self.at = True, NEVER

    def _ask_at(self, at: float) -> None:
        if not self._has_asked and not self._off:
            self.at = max(at, self._time_until)
