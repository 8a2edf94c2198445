"""Which line of the agent's belongs to which of its turns. Pure.

A turn is told of by the bridge, in milliseconds of the call's own clock; a line bears the vendor's time, and comes late, or before
the news of its turn. The two clocks need not agree: `apart` is by how much they do not, which the quickest line of a call tells
by when it came. So neither a late line nor a jump of the wall clock moves a line to another turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

STARTED, ENDED, GOES_ON = "agent-speech-started", "agent-turn-ended", "re-attached"
KINDS = (STARTED, ENDED, GOES_ON)


@dataclass(slots=True)
class AgentTurn:
    """`ended`: what the bridge said of it last; of one that was cut, how much was heard."""

    began_ms: int
    ended: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_cut(self) -> bool:
        return bool(self.ended.get("interrupted"))


def turns(events: Iterable[tuple[str, int, Mapping[str, Any]]]) -> list[AgentTurn]:
    """The turns that these events, of `KINDS` and in their order, tell of: kind, ms, detail.

    One that was left with its stream, and goes on with the next one, is not over.
    """
    found: list[AgentTurn] = []
    for kind, ms, detail in events:
        if kind == STARTED or not found:
            found.append(AgentTurn(ms if kind == STARTED else 0))
        if kind == ENDED:
            found[-1].ended = detail
        elif kind == GOES_ON and found[-1].ended.get("left"):
            found[-1].ended = {}
    return found


def place(turns: Sequence[AgentTurn], ms: int) -> int:
    """Which of the turns a line of this moment is of: the last that had begun by then. There is one at least."""
    return max((number for number, turn in enumerate(turns) if turn.began_ms <= ms), default=0)
