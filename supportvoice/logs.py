"""One line per event: time, level, who, a fixed sentence, then its fields. What strangers wrote cannot begin a new line.

No line of ours holds what somebody said; should one ever, a card number is left out of it as it is of every row.
"""

from __future__ import annotations

import json
import logging

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
        return " ".join((super().formatMessage(record).translate(_SPELLED_OUT), *fields))


_SPELLED_OUT = {code: f"\\x{code:02x}" for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}
