"""The trail: who did what to which thing, each line carrying the hash of the one before it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from django.db import transaction

from agents.models import AuditEntry


@transaction.atomic
def record(
    action: str, *, actor: str, subject: str = "", detail: Mapping[str, Any] | None = None, address: str = "", at: datetime
) -> AuditEntry:
    """Write a line. `detail` names ids, fields and counts, never what was said."""
    last = AuditEntry.objects.first()
    number, before = (last.number + 1, last.hash) if last else (1, "")
    told = [number, at.isoformat(), actor, address, action, subject, dict(detail or {}), before]
    made = hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()
    row = {"actor": actor, "address": address, "action": action, "subject": subject, "detail": dict(detail or {})}
    return AuditEntry.objects.create(number=number, at=at, before=before, hash=made, **row)
