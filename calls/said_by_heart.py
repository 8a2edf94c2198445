"""What was said on a call lately, as far as it is to be had while the database is away: for an agent that takes up another process's call.

A database that takes no write may be read all the same, and is asked for what it has, for as long as a caller may wait. If it cannot
be read, what its process put down until it died is told (`calls.said_before`). What was said since is in the spools of this machine:
every process keeps Vapi's finals there, without what is never stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import close_old_connections

from agents.payload import Said
from bridge.lately import Lately
from calls import memory, patience, said_before, spool
from calls.models import CallSession
from calls.vapi_kinds import TRANSCRIPT

MOST_FILES = 16  # the newest, one a process ...
MOST_BYTES = 4 * 1024 * 1024  # ... and so much of the end of each


def said_lately(call_sid: str) -> Lately:
    """Oldest first; what Vapi told twice stands once."""
    stored, told = _stored(call_sid), set(_finals(call_sid))
    before = said_before.kept(call_sid) if stored is None else stored
    known, lately = {said.words for said in before}, Lately()
    for said in before:
        lately.add(said.role, said.words)
    for _, role, words in sorted(told):
        if words.strip() not in known:
            lately.add(role, words)
    return lately


def _stored(call_sid: str) -> Sequence[Said] | None:
    """None when the database cannot be read in time."""
    try:
        with patience.of(patience.WHERE_A_CALLER_WAITS_S):
            call = CallSession.objects.filter(call_sid=call_sid).first()
            return memory.so_far(call) if call is not None else ()
    except DatabaseError:
        return None
    finally:
        close_old_connections()


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
