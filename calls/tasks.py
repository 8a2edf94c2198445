"""Work in the background: retry policy on top, one service call below. Each is safe to run twice and takes a key.

The broker may lose any of these, so none is the only way: the consumer claims a session nobody started, and the two
scheduled ones look for what was left over.
"""

from __future__ import annotations

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from agents import account
from bridge.errors import VapiUnavailable
from calls import inbox, orphans, sessions, twilio_account
from calls.models import VapiSession
from calls.sweep import end_silent_calls


@shared_task(soft_time_limit=15)
def start_conversation(vapi_session_pk: int) -> None:
    """No retry: a caller is waiting, and the row says what came of it. What it leaves at Vapi is ended soon."""
    try:
        started = sessions.start_conversation(vapi_session_pk=vapi_session_pk, by="worker", client=account.client())
    except VapiUnavailable:
        end_session.delay(vapi_session_pk)
        return
    if started:
        inbox.catch_up(vapi_session_pk=vapi_session_pk, at=timezone.now())
    elif VapiSession.objects.filter(pk=vapi_session_pk, maybe_created=True).exists():
        end_orphans.apply_async(countdown=1)


@shared_task(
    autoretry_for=(VapiUnavailable,),
    retry_backoff=1,
    retry_backoff_max=4,
    retry_jitter=False,
    max_retries=3,
    soft_time_limit=15,
    acks_late=True,
)
def end_session(vapi_session_pk: int) -> None:
    sessions.end_session(pk=vapi_session_pk, client=account.client(), at=timezone.now())


@shared_task(acks_late=True)
def end_sessions(call_sid: str) -> None:
    """Every Vapi session of a call that is over, or whose stream is."""
    for pk in sessions.open_sessions(call_sid=call_sid):
        end_session.delay(pk)


@shared_task
def sweep() -> None:
    """Scheduled: end silent calls, forgotten sessions and waits for reports that never come."""
    now = timezone.now()
    end_silent_calls(now=now, ttl=settings.CALL_TTL, twilio=twilio_account.client())
    sessions.give_up_reports(now=now)
    for pk in sessions.left_over(now=now):
        end_session.delay(pk)


@shared_task(soft_time_limit=60)
def end_orphans() -> None:
    """Scheduled: Vapi calls of our names that no session holds. Asks Vapi only when there may be one."""
    orphans.end_orphans(client=account.client(), now=timezone.now())


@shared_task
def reprocess_inbox() -> None:
    """Scheduled: webhook bodies that were stored but not yet made into history."""
    for pk in inbox.inbox_to_do(now=timezone.now()):
        inbox.reprocess(pk=pk, at=timezone.now())
