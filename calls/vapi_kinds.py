"""What we do with each kind of message that Vapi's server sends. Pure.

The vendor knows some thirty kinds, and more every year; one it has not told us of is kept too. Those that come many times
a second, and those whose news has another way to us, are counted and not kept: a call must not fill the database. Kinds
are named as in the vendor's `server-url/events`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

TOOL_CALLS = "tool-calls"
REPORT = "end-of-call-report"
TRANSCRIPT = "transcript"
FETCHED = "fetched"  # our own mark in the body of a report that we asked for


class Deed(StrEnum):
    HISTORY = "history"  # a row, made into lines, endings, figures
    KEPT = "kept"  # a row to look at, and nothing more
    COUNTED = "counted"  # no row; some wake the live call first
    ANSWERED = "answered"  # a row; the tools are run and answered while the model waits
    DECLINED = "declined"  # a row; a question we never asked to be asked, answered with a no


DEEDS: Mapping[str, Deed] = {
    TRANSCRIPT: Deed.HISTORY,  # finals; partial ones are shown live from the socket and only counted
    "status-update": Deed.HISTORY,
    REPORT: Deed.HISTORY,
    "phone-call-control": Deed.HISTORY,
    TOOL_CALLS: Deed.ANSWERED,
    "speech-update": Deed.COUNTED,
    "user-interrupted": Deed.COUNTED,
    "conversation-update": Deed.COUNTED,  # repeats the whole conversation each time
    "model-output": Deed.COUNTED,  # one per token
    "voice-input": Deed.COUNTED,
    "assistant.speechStarted": Deed.COUNTED,  # repeats the whole turn with each word
    "assistant.started": Deed.KEPT,
    "hang": Deed.KEPT,
    "transfer-update": Deed.KEPT,
    "language-changed": Deed.KEPT,
    "language-change-detected": Deed.KEPT,
    "function-call": Deed.ANSWERED,  # what tool calls were called before
    "session.created": Deed.KEPT,
    "session.updated": Deed.KEPT,
    "session.deleted": Deed.KEPT,
    "chat.created": Deed.KEPT,
    "chat.deleted": Deed.KEPT,
    "call.deleted": Deed.KEPT,
    "call.delete.failed": Deed.KEPT,
    "call.artifact.upload": Deed.KEPT,
    "assistant-request": Deed.DECLINED,
    "transfer-destination-request": Deed.DECLINED,
    "handoff-destination-request": Deed.DECLINED,
    "knowledge-base-request": Deed.DECLINED,
    "call.endpointing.request": Deed.DECLINED,
    "voice-request": Deed.DECLINED,
    "campaign.predial": Deed.DECLINED,
}

# Well-formed answers that say no. Nobody is ever named: whom a caller is passed on to is not the vendor's to ask.
ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "assistant-request": {"error": "This number is not answered here."},
    "transfer-destination-request": {"error": "Callers are not passed on this way."},
    "handoff-destination-request": {"destination": {}, "error": "Callers are not passed on this way."},  # the schema wants both
    "knowledge-base-request": {"documents": []},
    "call.endpointing.request": {"timeoutSeconds": 0.4},  # the vendor's own usual wait
    "campaign.predial": {"eligible": False},  # nobody is called on the vendor's word
}


def deed(kind: str) -> Deed:
    return DEEDS.get(kind, Deed.KEPT)


def label(kind: str) -> str:
    """The kind for counters and logs; a stranger's own word is in neither."""
    return kind if kind in DEEDS else "unknown"
