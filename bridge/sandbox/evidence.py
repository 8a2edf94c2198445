"""What an outside observer at Vapi could swear to: every message with its time, all audio both ways, every webhook delivered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bridge.sandbox.ear import Final
from bridge.sandbox.sound import Timed

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that passed, at loop time `at`. `way`: in | out (socket), hook (webhook), heard, trouble, fault."""

    at: float
    way: str
    kind: str
    detail: Any = None


@dataclass(frozen=True, slots=True)
class Posted:
    """One delivery of a webhook: `status` is None when nobody answered; `attempt` counts from 1."""

    at: float
    kind: str
    body: Message
    status: int | None
    attempt: int
    took_s: float


@dataclass(slots=True)
class Evidence:
    """One call's entries and audio."""

    entries: list[Entry] = field(default_factory=list)
    uplink: bytearray = field(default_factory=bytearray)
    downlink: bytearray = field(default_factory=bytearray)
    chunks: list[tuple[float, int]] = field(default_factory=list)  # (time, bytes) of each audio message sent
    uplink_messages: int = 0
    voiced: list[Timed] = field(default_factory=list)  # those of them that are not silent, as they came
    understood: list[Final] = field(default_factory=list)

    def kinds(self, way: str) -> list[str]:
        return [entry.kind for entry in self.entries if entry.way == way]

    def details(self, way: str, kind: str) -> list[Any]:
        return [entry.detail for entry in self.entries if entry.way == way and entry.kind == kind]
