"""What the agent of a call leaves out: the rules of the version that answered it, remembered by this process.

A version never changes, so it is read once. A call without one, which people took, and a message that belongs to no call
yet have the usual rules.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from agents.discretion import pattern_problem
from agents.models import Discretion, TemplateVersion
from calls.redaction import USUAL, Rules

log = logging.getLogger(__name__)

MOST_CALLS = 2000

_known: dict[int, Rules] = {}  # a dict assignment is atomic, so no lock
_calls: dict[str, int] = {}  # the newest calls of this process and their versions, for when nobody can be asked


def rules_of(version_id: int | None) -> Rules:
    if version_id is None:
        return USUAL
    if version_id not in _known:
        remember(version_id, TemplateVersion.objects.values(*Discretion.rule_fields()).get(pk=version_id))
    return _known[version_id]


def answered_by(call_sid: str, version_id: int) -> None:
    """Remember which version answers a call."""
    _calls[call_sid] = version_id
    while len(_calls) > MOST_CALLS:
        _calls.pop(next(iter(_calls), ""), None)


def rules_of_call(call_sid: str) -> Rules:
    """Of a call, as far as this process remembers it; it asks nobody."""
    return _known.get(_calls.get(call_sid, 0), USUAL)


def remember(version_id: int, fields: Mapping[str, Any]) -> None:
    """What a version leaves out, told by somebody who has read it."""
    patterns = fields["redact_patterns"]
    allowed = tuple(pattern for pattern in patterns if isinstance(pattern, str) and not pattern_problem(pattern))
    if len(allowed) < len(patterns):  # the desk takes none of these, however they came into the row
        log.error("A pattern of a version cannot be run and leaves nothing out", extra={"version": version_id})
    _known[version_id] = Rules(
        cards=fields["redact_cards"], emails=fields["redact_emails"], phones=fields["redact_phones"], patterns=allowed
    )


def forget() -> None:
    """Empty this process's memory."""
    _known.clear()
    _calls.clear()
