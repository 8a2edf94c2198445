"""What was said lately on a call, as the agents' sockets told: for the next agent, when nobody else can be asked. Bounded. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

LINES = 20  # the newest ...
CHARACTERS = 8 * 1024  # ... and so much of them
USER, AGENT = "user", "assistant"


class Lately:
    """(who, words), oldest first."""

    def __init__(self) -> None:
        self._lines: deque[tuple[str, str]] = deque(maxlen=LINES)

    def add(self, role: str, words: str) -> None:
        """A whole line; whoever is not the caller is the agent."""
        if words.strip():
            self._lines.append((USER if role == USER else AGENT, words.strip()))
            while sum(len(said) for _, said in self._lines) > CHARACTERS:
                self._lines.popleft()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(tuple(self._lines))
