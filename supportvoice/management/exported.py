"""An export is told to the trail before anything is written out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError
from django.db import Error as DatabaseError
from django.utils import timezone

from agents import trail


def tell(subject: str, detail: Mapping[str, Any] | None = None) -> None:
    """Raises CommandError when it cannot be told."""
    try:
        trail.record("exported", actor=trail.Who.at_the_shell().actor, subject=subject, detail=detail, at=timezone.now())
    except DatabaseError:
        raise CommandError("Nothing is exported: the audit trail cannot note it now. Try again.", returncode=1) from None
