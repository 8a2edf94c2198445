"""What may never stand in a log line, looked for in every line the whole suite logs: words, numbers, secrets, capabilities."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from agents.seed import PROMPT
from bridge.sandbox.clips import CLIPS

SPOKEN = tuple(clip.text for clip in CLIPS.values() if len(clip.text) > 12)
WRITTEN = (*SPOKEN, PROMPT[:60], "alex@example.com", "five failed")
PRIVATE = re.compile(r"\+1\d{10}\b|/transport\b|Bearer \S|name=\"token\"")

SETTINGS = {  # every secret an operator gives us, each one a text that stands nowhere else
    "SECRET_KEY": "canary-1-of-the-application-" + "a" * 30,
    "SECRET_KEY_FALLBACKS": "canary-2-of-its-past-" + "b" * 30,
    "TOOL_SIGNING_SECRET": "canary-3-of-all-tools",
    "VAPI_BACKUP_API_KEY": "canary-5-of-the-backup",
    "TECHFLOW_SECRET": "canary-4-of-one-tool",  # the variable that a tool names
}
_PLAIN = set(vars(logging.makeLogRecord({})))


def named_in(text: str, canaries: Mapping[str, str]) -> list[str]:
    """The names of those that stand in a text, which is not repeated."""
    return [name for name, canary in canaries.items() if canary in text]


class Canaries(logging.Handler):
    """Hears every record of the process; `found` says where something private was logged, not what."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.found: list[str] = []
        self.heard = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.heard += 1
        extra = {name: value for name, value in vars(record).items() if name not in _PLAIN}
        text = f"{record.getMessage()} {extra} {self._trace(record)}"
        if PRIVATE.search(text) or any(words in text for words in WRITTEN):
            self.found.append(f"{record.name}:{record.lineno}")

    @staticmethod
    def _trace(record: logging.LogRecord) -> str:
        return str(record.exc_info[1]) if record.exc_info and record.exc_info[1] else ""
