"""What the agent of a call leaves out: the rules of the version that answered it, remembered by this process.

A version never changes, so it is read once. A call without one, which people took, and a message that belongs to no call
yet have the usual rules.
"""

from __future__ import annotations

import logging

from agents.discretion import pattern_problem
from agents.models import TemplateVersion
from calls.redaction import USUAL, Rules

log = logging.getLogger(__name__)

_known: dict[int, Rules] = {}  # a dict assignment is atomic, so no lock


def rules_of(version_id: int | None) -> Rules:
    if version_id is None:
        return USUAL
    rules = _known.get(version_id)
    if rules is None:
        rules = _known[version_id] = _read(version_id)
    return rules


def forget() -> None:
    """Empty this process's memory."""
    _known.clear()


def _read(version_id: int) -> Rules:
    columns = TemplateVersion.objects.values_list("redact_cards", "redact_emails", "redact_phones", "redact_patterns")
    cards, emails, phones, patterns = columns.get(pk=version_id)
    allowed = tuple(pattern for pattern in patterns if isinstance(pattern, str) and not pattern_problem(pattern))
    if len(allowed) < len(patterns):  # the desk takes none of these, however they came into the row
        log.error("A pattern of a version cannot be run and leaves nothing out", extra={"version": version_id})
    return Rules(cards=cards, emails=emails, phones=phones, patterns=allowed)
