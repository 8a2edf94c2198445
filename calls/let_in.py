"""Which streams of a call were let in by heart, by the marks on this machine's disk."""

from __future__ import annotations

import os

from calls.disk_marks import directory


def is_let_in(sid: str, epoch: int) -> bool:
    """The stream of this epoch was let in by heart."""
    return os.path.lexists(directory() / f"{sid}.stream-{epoch}")
