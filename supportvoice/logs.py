"""One line per event: time, level, who, a fixed sentence, then its fields. What strangers wrote cannot begin a new line.

No line of ours holds what somebody said; should one ever, a card number is left out of it as it is of every row. Of a fault
the types and the places are told, and never its text: a database's repeats the row it would not have, numbers and words. It is
left out here because most faults are logged by others: Django, Celery, the server, asyncio. Of a task its name and how it went
are told, and neither what it was given nor what it returned.
"""

from __future__ import annotations

import copy
import json
import logging
import re
import threading
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from calls.redaction import redact

log = logging.getLogger(__name__)

_OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "request"}
_CELERY_SAYS_TWICE = "data"  # arguments, results, and the traceback as text
_KIND = re.compile(r"(?:Retry in [\d.]+s(?:: |$))?(?:[A-Za-z_][\w.]*(?=\())?")


class FieldsFormatter(logging.Formatter):
    """`extra` as `name=value` after the sentence; values are JSON, so line ends and escape codes are spelled out."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.default_msec_format = "%s.%03d"

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info:
            record.exc_text = None  # another formatter's, with all it says
        return redact(super().format(_as_shown(record)))

    def formatMessage(self, record: logging.LogRecord) -> str:
        own = _OWN | {_CELERY_SAYS_TWICE} if record.name.startswith("celery.") else _OWN
        fields = (f"{name}={json.dumps(value, default=str)}" for name, value in vars(record).items() if name not in own)
        return " ".join((_spelled_out(_without_faults(super().formatMessage(record), record)), *fields))

    def formatException(self, ei: Any) -> str:
        """Indented, line by line. The fault itself comes last, what it came of before it."""
        told = ("".join((*traceback.format_tb(fault.__traceback__), type(fault).__qualname__)) for fault in reversed([*_chain(ei[1])]))
        return "\n".join(f"    {_spelled_out(line)}" for line in "\n".join(told).split("\n"))


def thread_broke(broken: threading.ExceptHookArgs) -> None:
    """Python itself would print the fault with its text."""
    if not issubclass(broken.exc_type, SystemExit):
        fault = broken.exc_value or broken.exc_type()
        log.error("A thread broke", exc_info=fault, extra={"what": broken.thread.name if broken.thread else ""})


def _as_shown(record: logging.LogRecord) -> logging.LogRecord:
    """Celery has made text of a task's fault and of its result before anybody is asked."""
    if record.name != "celery.app.trace" or not isinstance(record.args, Mapping):
        return record
    shown = copy.copy(record)
    shown.args = {name: _shown(name, value) for name, value in record.args.items()}
    return shown


def _shown(name: str, value: object) -> object:
    if name == "exc":
        found = _KIND.match(str(value))
        return (found and found[0]) or "a fault"
    return "something" if name == "return_value" and value != "None" else value


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
