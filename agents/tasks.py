"""Work at Vapi that no caller waits for."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from agents import account, services
from bridge.errors import VapiUnavailable


@shared_task(
    autoretry_for=(VapiUnavailable,),
    retry_backoff=1,
    retry_backoff_max=4,
    retry_jitter=False,
    max_retries=3,
    soft_time_limit=15,
    acks_late=True,
)
def premake_version(version_pk: int) -> None:
    """Prepare a published version at Vapi; its state on the version page says how it went."""
    services.premake(version_pk=version_pk, client=account.client(), server=account.server(), at=timezone.now())
