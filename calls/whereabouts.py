"""What a log line may say of a problem: its kind, and where it came about.

A traceback would repeat what the database says of a row: all its values, numbers too.
"""

from __future__ import annotations

import traceback

OURS = ("agents", "bridge", "calls")


def of(problem: BaseException) -> dict[str, str]:
    """`where` is the last line of ours that ran."""
    lines = [(str(frame.f_globals.get("__name__", "")), number) for frame, number in traceback.walk_tb(problem.__traceback__)]
    where = next((f"{name}:{number}" for name, number in reversed(lines) if name.partition(".")[0] in OURS), "")
    return {"problem": type(problem).__name__, "where": where}
