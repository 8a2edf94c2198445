"""What a serving process and its parent say to each other over the lifeline: a byte each."""

from __future__ import annotations

SERVES, LEAVING, HERE = b"r", b"l", b"h"  # the child's
RELIEVED, ARE_YOU_THERE, HURRY = b"a", b"q", b"n"  # the parent's
