"""One line per event: time, level, who, a fixed sentence, then its fields. What strangers wrote cannot begin a new line.

No line of ours holds what somebody said; should one ever, a card number is left out of it as it is of every row. Of a fault
the types and the places are told, and never its text: a database's repeats the row it would not have, numbers and words. It is
left out here because most faults are logged by others: Django, Celery, the server, asyncio.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from typing import Any

from calls.redaction import redact

_OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "request"}
_CELERY_SAYS_TWICE = "data"  # arguments, and the traceback as text


class FieldsFormatter(logging.Formatter):
    """`extra` as `name=value` after the sentence; values are JSON, so line ends and escape codes are spelled out."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.default_msec_format = "%s.%03d"

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info:
            record.exc_text = None  # another formatter's, with all it says
        return redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        own = _OWN | {_CELERY_SAYS_TWICE} if record.exc_info else _OWN
        fields = (f"{name}={json.dumps(value, default=str)}" for name, value in vars(record).items() if name not in own)
        return " ".join((_spelled_out(_without_faults(super().formatMessage(record), record)), *fields))

    def formatException(self, ei: Any) -> str:
        """Indented, line by line. The fault itself comes last, what it came of before it."""
        told = ("".join((*traceback.format_tb(fault.__traceback__), type(fault).__qualname__)) for fault in reversed([*_chain(ei[1])]))
        return "\n".join(f"    {_spelled_out(line)}" for line in "\n".join(told).split("\n"))


def _chain(fault: BaseException | None) -> Iterator[BaseException]:
    """The fault, then what it came of."""
    seen: set[int] = set()
    while fault is not None and id(fault) not in seen:
        seen.add(id(fault))
        yield fault
        fault = fault.__cause__ or (None if fault.__suppress_context__ else fault.__context__)


def _without_faults(sentence: str, record: logging.LogRecord) -> str:
    """Celery and asyncio put a fault as it is written in code into the sentence as well."""
    for fault in _chain(record.exc_info[1]) if record.exc_info else ():
        sentence = sentence.replace(repr(fault), type(fault).__qualname__)
    return sentence


def _spelled_out(text: str) -> str:
    """Whatever ends a line, moves the cursor, turns the direction of reading or cannot be written, as its code."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
