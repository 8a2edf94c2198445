"""How long is what kept, and what of a call is due to go? Pure.

Three parts: what was said (`text`, and the numbers with it), its `sound`, and the vendors' messages as they came (`bodies`).
Time runs from the end of a call. The installation says how long at most; an agent and a line may say less, and the shortest
holds. Sound and bodies may go before the text, never after it. Nothing is ever due of a call that is not settled: it is on,
or its report is still to come.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Wish:
    """What an agent or a line says, in days; None: as long as the installation keeps it."""

    text: int | None = None
    sound: int | None = None
    bodies: int | None = None


@dataclass(frozen=True, slots=True)
class Days:
    """How long each part is kept, in days from the end of the call; 0: gone as soon as the call is settled."""

    text: int
    sound: int
    bodies: int

    def gone_before(self, now: datetime) -> tuple[datetime, datetime, datetime]:
        """Of calls that ended by these moments, the text, the sound, the bodies are due."""
        text, sound, bodies = (now - timedelta(days=min(days, LONGEST)) for days in (self.text, self.sound, self.bodies))
        return text, sound, bodies


@dataclass(frozen=True, slots=True)
class Parts:
    """Some of the parts of a call."""

    text: bool = False
    sound: bool = False
    bodies: bool = False

    def __bool__(self) -> bool:
        return self.text or self.sound or self.bodies


@dataclass(frozen=True, slots=True)
class Facts:
    """`ended_at` is None while the call is on; `books_closed`: no report is to come; `gone`: what was erased before."""

    ended_at: datetime | None
    books_closed: bool
    gone: Parts = Parts()


LONGEST = 365_000  # a thousand years; the calendar has no more to give
SETTLED_AFTER = timedelta(days=2)  # of books nobody closed: no report comes later than that
ALL = Parts(text=True, sound=True, bodies=True)


def days(installation: int, *wishes: Wish) -> Days:
    """The shortest time of each part."""
    text = min([installation, *(wish.text for wish in wishes if wish.text is not None)])
    sound = min([text, *(wish.sound for wish in wishes if wish.sound is not None)])
    bodies = min([text, *(wish.bodies for wish in wishes if wish.bodies is not None)])
    return Days(text, sound, bodies)


def is_settled(facts: Facts, *, now: datetime) -> bool:
    """The call is over, and its report in or given up."""
    return facts.ended_at is not None and (facts.books_closed or facts.ended_at < now - SETTLED_AFTER)


def due(facts: Facts, kept: Days, *, now: datetime) -> Parts:
    """What is to go now and is not gone yet."""
    ended = facts.ended_at
    if ended is None or not is_settled(facts, now=now):
        return Parts()
    text, sound, bodies = (ended <= moment for moment in kept.gone_before(now))
    gone = facts.gone
    return Parts(text=text and not gone.text, sound=sound and not gone.sound, bodies=bodies and not gone.bodies)
