"""`<Dial>`: ringing people who are only pretended, the whisper they hear first, and what became of each attempt."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from bridge.sandbox.phone import Phone, Tape
from bridge.sandbox.twiml import Verb

T = TypeVar("T")
EVENT_OF = {"initiated": "initiated", "ringing": "ringing", "in-progress": "answered"}


@dataclass(frozen=True, slots=True)
class Human:
    """Somebody who may be dialled. `outcome`: answer, busy, no-answer or failed; times in seconds.

    Who answers hears the whisper, presses `presses` if it asks for a key, says the clip `says` and hangs up after `talks_s`.
    """

    outcome: str = "answer"
    rings_s: float = 2.0
    talks_s: float = 5.0
    says: str = "human_hello"
    presses: str = "1"


@dataclass(slots=True)
class Attempt:
    """One number that was rung. `status` is the child leg's last one; `heard` what the colleague heard of the caller, mu-law."""

    number: str
    call_sid: str
    caller_id: str
    at: float
    status: str = "initiated"
    bridged: bool = False
    duration_s: int = 0
    whispered: list[str] = field(default_factory=list)
    heard: bytes = b""
    events: list[str] = field(default_factory=list)


class Exchange(Protocol):
    """What dialling needs of the call it belongs to."""

    phone: Phone

    def new_call_sid(self) -> str: ...

    async def wait(self, seconds: float) -> None:
        """Raises Interrupted when the caller leaves meanwhile, or the call is turned elsewhere."""

    async def while_up(self, work: Coroutine[Any, Any, T]) -> T:
        """As `wait`, for any work."""

    async def whisper(self, attempt: Attempt, noun: Verb, human: Human) -> bool:
        """Play the noun's TwiML to who answered. False: they are not to be joined with the caller."""

    def child_event(self, attempt: Attempt, noun: Verb | None) -> None:
        """The child leg has taken a step: the newest of `attempt.events`."""


class Dialling:
    """One `<Dial>` at work. Whom it rings is added to `attempts` at once."""

    def __init__(
        self,
        exchange: Exchange,
        verb: Verb,
        *,
        caller_id: str,
        humans: Callable[[str], Human],
        clock: Callable[[], float],
        clips: Mapping[str, bytes],
        attempts: list[Attempt],
    ) -> None:
        self._attempts = attempts
        self._rung_before = len(attempts)
        self._exchange = exchange
        self._verb = verb
        self._caller_id = caller_id
        self._humans = humans
        self._clock = clock
        self._clips = clips

    async def run(self) -> Attempt:
        """Ring, join, talk. Returns the attempt that decides `DialCallStatus`: the one that answered, else the last.

        Raises Interrupted when the caller gives up; every child leg has its last status by then.
        """
        nouns: Sequence[Verb | None] = self._verb.children or (None,)
        rounds = [[noun] for noun in nouns] if self._verb.says("sequential", False) else [list(nouns)]
        for group in rounds:
            legs = [self._leg(noun) for noun in group]
            try:
                winner = await self._ring(legs)
            except BaseException:
                for attempt, noun, _ in legs:
                    self._end(attempt, noun, "canceled")
                raise
            if winner is not None:
                await self._talk(*winner)
                return winner[0]
        return self._attempts[-1]

    def _leg(self, noun: Verb | None) -> tuple[Attempt, Verb | None, Human]:
        number = noun.text if noun is not None else self._verb.text
        attempt = Attempt(number, self._exchange.new_call_sid(), self._caller_id, self._clock())
        self._attempts.append(attempt)
        self._exchange.phone.remember("dialling", attempt=len(self._attempts) - self._rung_before)
        return attempt, noun, self._humans(number)

    async def _ring(self, legs: list[tuple[Attempt, Verb | None, Human]]) -> tuple[Attempt, Verb | None, Human] | None:
        """Ring all at once until the first answers; None when nobody does."""
        timeout = float(self._verb.seconds("timeout", 30))
        for attempt, noun, _ in legs:
            self._event(attempt, noun, "initiated")
            self._event(attempt, noun, "ringing")
        self._exchange.phone.remember("ringing")
        answering = [leg for leg in legs if leg[2].outcome == "answer" and leg[2].rings_s < timeout]
        winner = min(answering, key=lambda leg: leg[2].rings_s, default=None)
        ends = winner[2].rings_s if winner else max(_rings(human, timeout) for _, _, human in legs)
        await self._exchange.wait(ends)
        for leg in legs:
            attempt, noun, human = leg
            if leg is winner:
                self._event(attempt, noun, "in-progress")
            elif _rings(human, timeout) > ends:
                self._end(attempt, noun, "canceled")
            else:
                self._end(attempt, noun, "no-answer" if human.outcome == "answer" else human.outcome)
        return winner

    async def _talk(self, attempt: Attempt, noun: Verb | None, human: Human) -> None:
        """Whisper, join both legs, talk; the colleague hangs up first unless the caller does."""
        phone, answered = self._exchange.phone, self._clock()
        tape = Tape()
        try:
            if noun is not None and noun.get("url") and not await self._exchange.whisper(attempt, noun, human):
                return
            attempt.bridged = True
            phone.remember("bridged")
            phone.line = tape
            phone.playout.play(self._clips[human.says], self._clock())
            await self._exchange.wait(min(human.talks_s, self._verb.seconds("timeLimit", 14400)))
        finally:
            phone.line = None
            phone.playout.stop(self._clock())
            attempt.heard = bytes(tape.ulaw)
            attempt.duration_s = round(self._clock() - answered)
            self._end(attempt, noun, "completed")
            phone.remember("colleague-gone", bridged=attempt.bridged)

    def _event(self, attempt: Attempt, noun: Verb | None, status: str) -> None:
        attempt.status = status
        attempt.events.append(EVENT_OF.get(status, "completed"))
        self._exchange.child_event(attempt, noun)

    def _end(self, attempt: Attempt, noun: Verb | None, status: str) -> None:
        if "completed" not in attempt.events:
            self._event(attempt, noun, status)


def _rings(human: Human, timeout: float) -> float:
    """How long a number rings before it is known what becomes of it."""
    if human.outcome in ("busy", "failed"):
        return min(human.rings_s, timeout)
    return timeout if human.outcome == "no-answer" else min(human.rings_s, timeout)
