"""What was said on a call lately, as far as the spools of this machine tell: for an agent that takes up another process's call.

While the database is away every process keeps Vapi's finals there, without what is never stored. What was said before is in the
database alone, and nobody has it now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings

from bridge.lately import Lately
from calls import spool
from calls.vapi_kinds import TRANSCRIPT

MOST_FILES = 16  # the newest, one a process ...
MOST_BYTES = 4 * 1024 * 1024  # ... and so much of the end of each


def said_lately(call_sid: str) -> Lately:
    """Oldest first; what Vapi told twice stands once."""
    told = {(at, role, words) for at, role, words in _finals(call_sid)}
    lately = Lately()
    for _, role, words in sorted(told):
        lately.add(role, words)
    return lately


def _finals(call_sid: str) -> Iterator[tuple[float, str, str]]:
    """When, who, what."""
    for path in spool.files(Path(settings.SPOOL_DIR))[-MOST_FILES:]:
        for line in spool.last_lines(path, of=call_sid.encode(), at_most=MOST_BYTES):
            message = line.told.get("message")
            if isinstance(message, dict) and message.get("kind") == TRANSCRIPT and message.get("call_sid") == call_sid:
                yield from _final(message.get("body"), at=line.told.get("at"))


def _final(body: Any, *, at: Any) -> Iterator[tuple[float, str, str]]:
    match body:
        case {"transcriptType": "final", "role": str(role), "transcript": str(words)}:
            yield _seconds(body, at), role, words


def _seconds(body: Mapping[str, Any], at: Any) -> float:
    """The vendor's time of it, else when it came."""
    stamp = body.get("timestamp")
    if isinstance(stamp, int | float) and not isinstance(stamp, bool):
        return stamp / 1000
    return float(at) if isinstance(at, int | float) else 0.0
