"""Work at Vapi that no caller waits for."""

from __future__ import annotations

import logging
from typing import Any

from celery import shared_task
from django.utils import timezone
from kombu.exceptions import OperationalError

from agents import account, services
from bridge.errors import VapiUnavailable

log = logging.getLogger(__name__)

ASKED_AGAIN: dict[str, Any] = {  # how a task asks Vapi when nobody waits for it: three times more, within seven seconds
    "autoretry_for": (VapiUnavailable,),
    "retry_backoff": 1,
    "retry_backoff_max": 4,
    "retry_jitter": False,
    "max_retries": 3,
    "acks_late": True,
}


@shared_task(**ASKED_AGAIN, soft_time_limit=15)
def premake_version(version_pk: int) -> None:
    """Prepare a published version at Vapi; its state on the version page says how it went."""
    services.premake(version_pk=version_pk, client=account.client(), server=account.server(), at=timezone.now())


def enqueue_premake(version_pk: int) -> bool:
    """False without a broker: the version stays “being prepared”, its page has a button, and calls send the words along."""
    try:
        premake_version.delay(version_pk)
    except OperationalError:
        log.warning("preparation could not be queued, the broker is away", extra={"version": version_pk})
        return False
    return True
