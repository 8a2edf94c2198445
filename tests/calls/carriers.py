"""Processes with a lease, the calls they carry, and a Twilio that can be asked to send those elsewhere."""

from __future__ import annotations

import uuid
from typing import Any

from django.utils import timezone

from bridge.errors import TwilioUnavailable
from calls.models import CallSession, ProcessLease, Status
from tests.builders import a_call

A, B = uuid.UUID(int=1), uuid.UUID(int=2)


class Redirects:
    """Twilio, as far as it is asked to send calls elsewhere."""

    def __init__(self, *, away: int = 0) -> None:
        self.asked: list[tuple[str, str]] = []
        self._away = away

    def redirect(self, call_sid: str, url: str, account_sid: str = "") -> bool:
        self.asked.append((call_sid, url))
        if len(self.asked) <= self._away:
            raise TwilioUnavailable("Twilio failed.", status=503)
        return True


def carried(boot: uuid.UUID = A, **fields: Any) -> CallSession:
    ProcessLease.objects.get_or_create(boot=boot, defaults={"born_at": timezone.now(), "counter": 7})
    return a_call(**{"status": Status.STREAMING, "stream_epoch": 0, "held_by": boot, **fields})
