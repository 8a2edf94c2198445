"""Since when Twilio knows of a next stream, which ones were let in by heart, and which had to be turned away: marks on the disk."""

from __future__ import annotations

import os
from datetime import datetime
from itertools import count

from calls.disk_marks import directory, drop, kept_at, note, read

SEEN = ("stream", "carried", "closed", "rescued", "refused")  # the marks (`calls.by_heart`) of a stream that has come: one at least


def answered(sid: str, epoch: int) -> None:
    """Remember that Twilio has been told what is next after the stream of this epoch."""
    note(sid, f"answered-{epoch}", {})


def answered_at(sid: str, epoch: int) -> datetime | None:
    """When it was first told that, by a process of this machine. None: it was not, or elsewhere."""
    return kept_at(sid, f"answered-{epoch}")


def is_let_in(sid: str, epoch: int) -> bool:
    """The stream of this epoch was let in by heart."""
    return os.path.lexists(directory() / f"{sid}.stream-{epoch}")


def was_seen(sid: str, epoch: int) -> bool:
    """The stream of this epoch has come to a process of this machine: it was let in, by its row or without, or turned away."""
    return any(os.path.lexists(directory() / f"{sid}.{what}-{epoch}") for what in SEEN)


def turn_away(sid: str, epoch: int, stream_sid: str) -> None:
    """Remember that the stream of this epoch has come, and could not be let in at once. It is refused, unless it `was_let_in` later."""
    note(sid, f"refused-{epoch}", {"stream_sid": stream_sid})


def was_let_in(sid: str, epoch: int) -> None:
    """The stream that was to be turned away is in after all."""
    drop(sid, f"refused-{epoch}")


def turned_away(sid: str, epoch: int) -> str:
    """Which stream of this epoch a process of this machine had to turn away, by its StreamSid; empty when none."""
    return str((read(sid, f"refused-{epoch}") or {}).get("stream_sid", ""))


def turned_away_in_a_row(sid: str, epoch: int) -> int:
    """So many streams were, up to that of this epoch."""
    return next(before for before in count() if not turned_away(sid, epoch - before))
