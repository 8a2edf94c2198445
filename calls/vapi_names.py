"""The names we give to Vapi calls, `<CallSid>.<n>`: whoever reads one knows the phone call without asking a database. Pure."""

from __future__ import annotations

import re
from typing import Any

NAME = re.compile(r"(CA[0-9a-fA-F]{32})(?:\.([0-9]{1,4}))?", re.ASCII)


def named(name: Any) -> tuple[str, int]:
    """The CallSid and the session's number in a name; empty and 0 when it is none of ours."""
    found = NAME.fullmatch(name) if isinstance(name, str) else None
    return (found[1], int(found[2] or 0)) if found else ("", 0)
