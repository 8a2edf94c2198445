"""One line per event: time, level, who, a fixed sentence, then its fields. What strangers wrote cannot begin a new line.

No line of ours holds what somebody said; should one ever, a card number is left out of it as it is of every row.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from calls.redaction import redact

_OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "request"}


class FieldsFormatter(logging.Formatter):
    """`extra` as `name=value` after the sentence; values are JSON, so line ends and escape codes are spelled out."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.default_msec_format = "%s.%03d"

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = (f"{name}={json.dumps(value, default=str)}" for name, value in vars(record).items() if name not in _OWN)
        return " ".join((_spelled_out(super().formatMessage(record)), *fields))

    def formatException(self, ei: Any) -> str:
        """Indented, line by line: the text of a fault may be a stranger's."""
        return "\n".join(f"    {_spelled_out(line)}" for line in super().formatException(ei).split("\n"))


def _spelled_out(text: str) -> str:
    """Whatever ends a line, moves the cursor, turns the direction of reading or cannot be written, as its code."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
