"""Whether an agent of which nothing comes is there at all: its socket answers pings in any case, and between turns it sends nothing.

Two things make one doubt it. We hear the caller, by loudness alone, and Vapi tells nothing of it. Or its sound ends, and so far it has
never told the end of a turn: that one may have been broken off, or this vendor tells of none. Neither proves anything, a slammed door
is no word. So the agent is told to ask, and is heard then, if it is there. One that hears nothing of what is said to its questions
either is deaf. A line that is never quiet proves nothing, nor does what begins while the agent is heard, which may be its echo.
Pure: `now` is seconds of a monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.audio import BYTES_PER_S, FRAME_S
from bridge.moments import NEVER
from bridge.rules import Rules

SOFT = bytes(code for code in range(256) if code & 0x7F >= 0x5E)  # mu-law of less than 38 dB below full scale
SPEECH_SHARE, SOUND_SHARE = 4, 20  # one in so many samples is louder: of a voice, of anything that is no silence
SPOKE_S = 0.4
QUIET_S = 1.2  # after that; Vapi tells of speech before it is over
BREATH_S = 5.0  # so much later it is another utterance
ECHO_S = 0.3
REPLY_S, LONGEST_REPLY_S = 5.0, 20.0  # what comes sooner after a question, and is no longer, answers it
QUESTIONS = 2  # before an agent is called deaf
ASK_AGAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Doubted:
    """The agent owes the caller something since then, and if `asks` it is to be asked for it."""

    since: float
    asks: bool = True


class Doubt:
    """One stream's. `at` is when `check` wants to be called; `caller_sound` may put it forward by itself, not below QUIET_S from now."""

    __slots__ = (
        *("_asked", "_asked_at", "_began", "_is_there", "_listens_from", "_loud", "_off", "_question_until", "_rules", "_sound_at"),
        *("_tells_ends", "_tells_of_caller", "_vapi_hears", "_was_deaf", "at"),
    )

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._off = self._was_deaf = False
        self._listens_from = self._question_until = self._sound_at = self._began = -NEVER
        self._loud = 0  # bytes of a voice, in this utterance
        self.agent_gone()

    # -- the agent

    def agent_there(self, now: float, *, tells_ends: bool = False) -> None:
        """It is given what the caller said before."""
        self._is_there, self._tells_ends = True, tells_ends
        self._wait(max(now, self._sound_at))

    def agent_gone(self) -> None:
        self._is_there = self._tells_ends = self._vapi_hears = False
        self._tells_of_caller = True  # until it is asked, and then does not
        self._asked, self._asked_at = 0, -NEVER
        self.forget()

    def agent_sound(self, heard_until: float) -> None:
        """Sound of the agent's, all of which will have been heard at that moment."""
        self._loud, self._question_until, self._listens_from = 0, heard_until, heard_until + ECHO_S
        self.at = NEVER if self._tells_ends or self._off else heard_until + self._rules.ask_after

    def our_sound(self, heard_until: float) -> None:
        """A sentence of the bridge's own."""
        self._listens_from = heard_until + ECHO_S

    def agent_cut(self, now: float) -> None:
        """Nothing of it will be heard any more."""
        self._listens_from = min(self._listens_from, now + ECHO_S)
        self.forget()

    def agent_stopped(self) -> None:
        self._tells_ends = True
        self.forget()

    # -- the caller

    def caller_sound(self, ulaw: bytes, now: float) -> None:
        """Every other message of the caller's, or all of them."""
        if now < self._listens_from:  # before anything is measured: the agent speaks half of a call, and measuring is 0.2 of 3 us a frame
            return
        loud = len(ulaw.translate(None, SOFT))
        if loud * SOUND_SHARE <= len(ulaw):
            return
        if now - self._sound_at > BREATH_S:
            self._loud, self._began = 0, now
        elif not self._loud:
            self._began = now
        self._sound_at = now
        if loud * SPEECH_SHARE >= len(ulaw):
            self._loud += len(ulaw)
        self._wait(now)

    def told(self, *, speaks: bool | None = None) -> None:
        """Vapi told something of the caller; `speaks`: that they do, or do not any more."""
        self._vapi_hears = self._vapi_hears if speaks is None else speaks
        self._tells_of_caller = True
        self.forget()

    def understood(self) -> None:
        """In words."""
        self._asked, self._asked_at = 0, -NEVER
        self.told()

    def forget(self) -> None:
        """What was heard so far needs no answer."""
        self._loud, self.at = 0, NEVER

    def end(self) -> None:
        """The call is being left."""
        self._off, self.at = True, NEVER

    # -- time

    def check(self, now: float, *, busy_until: float) -> Doubted | None:
        """What to make of it, now. `busy_until`: until then the agent is heard, or the caller has asked for the time."""
        if now < self.at:
            return None
        if busy_until >= now + FRAME_S:  # less than a frame waits for the rest of its turn
            self.at = busy_until + self._rules.ask_after
            return None
        has_spoken, since = self._has_spoken, max(self._sound_at, self._question_until, now - self._rules.ask_after)
        self._tells_ends |= not has_spoken  # or does not, and is not asked again for that
        self.forget()
        if self._asked < QUESTIONS or now - self._asked_at >= ASK_AGAIN_S:
            self._tells_of_caller &= self._asked > 0
            self._asked, self._asked_at = self._asked + 1, now
            return Doubted(since)
        if not has_spoken or self._tells_of_caller or self._was_deaf or not self._is_reply:
            return None
        self._was_deaf = True  # once: it may be the line, after all
        return Doubted(since, asks=False)

    # -- inside

    @property
    def _has_spoken(self) -> bool:
        return self._loud * 2 >= SPOKE_S * BYTES_PER_S  # every other message was heard

    @property
    def _is_reply(self) -> bool:
        return self._began <= self._question_until + REPLY_S and self._sound_at - self._began <= LONGEST_REPLY_S

    def _wait(self, now: float) -> None:
        """For Vapi's word of what the caller said, once they pause."""
        if self._is_there and not self._off and self._has_spoken:
            self.at = now + (self._rules.ask_after if self._vapi_hears else QUIET_S)
