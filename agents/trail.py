"""Who did what: the lines of the trail."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db.models import Max

from agents.models import AuditEntry


def record(
    action: str, *, actor: str, subject: str = "", detail: Mapping[str, Any] | None = None, address: str = "", at: datetime
) -> AuditEntry:
    """Add a line. `detail` names ids and fields, never what was said or a secret."""
    last = AuditEntry.objects.aggregate(last=Max("number"))["last"] or 0
    return AuditEntry.objects.create(
        number=last + 1, at=at, actor=actor, action=action, subject=subject, detail=dict(detail or {}), address=address
    )
