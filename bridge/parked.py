"""Where an agent was when its caller's stream broke, and what it says until the caller is back on another one.

`LeftOff` is what a core knows of its agent and of nobody else, so it goes over to the core of the next stream. `Meanwhile` is
what came from the agent since: kept in its order, so that the caller hears the rest of the sentence. It is bounded: a minute
of sound, as everywhere, of which the newest is dropped and counted, like texts that are too many or too long. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bridge import vapi_messages
from bridge.agent_turn import AgentTurn
from bridge.audio import BYTES_PER_S, ms
from bridge.dead_air import DeadAir
from bridge.errors import BadMessage
from bridge.longest import LongestTime
from bridge.manners import Garbage
from bridge.not_heard import NotHeard

SOUND_LIMIT = 60 * BYTES_PER_S
MESSAGE_LIMIT = 2000  # five seconds of the vendor's smallest pieces, and ten times that
TEXT_LIMIT = 1024 * 1024  # bytes of all of them; one may have a quarter of that


@dataclass(frozen=True, slots=True)
class LeftOff:
    """`rest` is the sound of the agent's that was here or at Twilio, and not heard; `flushed`: the caller had cut the turn."""

    rest: bytes
    said: AgentTurn
    dead_air: DeadAir
    not_heard: NotHeard
    longest: LongestTime
    agent_speaking: bool
    caller_speaking: bool
    flushed: bool


class Meanwhile:
    """The messages of an agent to which nobody listens. `has_ended`: it said goodbye, so its socket may close."""

    def __init__(self, *, sound_limit: int = SOUND_LIMIT) -> None:
        self._messages: list[bytes | str | Garbage] = []
        self._room, self._text_room = sound_limit, TEXT_LIMIT
        self.sound_bytes = self.dropped_bytes = self.dropped_texts = 0
        self.has_ended = False

    def hear(self, message: bytes | str | Garbage) -> None:
        if isinstance(message, bytes):
            self._hear_sound(message)
        elif len(self._messages) < MESSAGE_LIMIT and (size := _size(message)) <= self._text_room:
            self._messages.append(message)
            self._text_room -= size
            self.has_ended |= isinstance(message, str) and _is_end(message)
        else:
            self.dropped_texts += 1

    @property
    def dropped(self) -> dict[str, int]:
        """What found no room, for the detail of an event: empty if all did."""
        counts = {"dropped_ms": ms(self.dropped_bytes), "dropped_texts": self.dropped_texts}
        return {name: count for name, count in counts.items() if count}

    def _hear_sound(self, ulaw: bytes) -> None:
        fits = ulaw[: self._room] if len(self._messages) < MESSAGE_LIMIT else b""
        self.dropped_bytes += len(ulaw) - len(fits)
        if fits:
            self._messages.append(fits)
            self._room -= len(fits)
            self.sound_bytes += len(fits)

    def __iter__(self) -> Iterator[bytes | str | Garbage]:
        return iter(self._messages)


def _size(message: str | Garbage) -> int:
    return len(message.encode()) if isinstance(message, str) else 0


def _is_end(text: str) -> bool:
    try:
        said = vapi_messages.read(text)
        return isinstance(said, vapi_messages.SessionEnded) and not said.by_our_side
    except BadMessage:
        return False
