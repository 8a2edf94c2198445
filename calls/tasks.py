"""Work in the background: retry policy on top, one service call below. Each is safe to run twice and takes a key.

The broker may lose any of these, so none is the only way: the consumer claims a session nobody started, and the two
scheduled ones look for what was left over.
"""

from __future__ import annotations

from contextlib import suppress

from celery import shared_task
from django.utils import timezone

from agents import account, trail
from agents.tasks import ASKED_AGAIN
from bridge.errors import VapiUnavailable
from calls import (
    consent,
    erasure,
    inbox,
    lost_reports,
    missed_sweep,
    orphans,
    patience,
    returning,
    sessions,
    twilio_account,
    vendor_accounts,
    vendor_erasures,
)
from calls.models import VapiAccount, VapiSession
from calls.sweep_steps import STEPS, Sweep, take

ONE_STATEMENT_ERASES_S = 300.0  # what strangers' messages of months go with


@shared_task(soft_time_limit=15)
def start_conversation(vapi_session_pk: int) -> None:
    """No retry: a caller is waiting, and the row says what came of it. What is asked for instead is started here too."""
    started, client = False, account.client(sessions.account_of(pk=vapi_session_pk))
    try:
        with suppress(VapiUnavailable):  # one that nobody needs any more could not be ended
            started = sessions.start_conversation(vapi_session_pk=vapi_session_pk, by="worker", client=client)
    finally:
        if not started:
            clear_up(vapi_session_pk)
    if started:
        inbox.catch_up(vapi_session_pk=vapi_session_pk, at=timezone.now())
    elif (instead := sessions.asked_instead(pk=vapi_session_pk)) is not None:
        start_conversation(instead)


@shared_task
def clear_up(vapi_session_pk: int) -> None:
    """What a start that came to nothing, the worker's or the consumer's own, has left at Vapi: it is ended soon.

    A request that got no answer may just be arriving there, so that is looked for a second later.
    """
    if VapiSession.objects.filter(pk=vapi_session_pk, maybe_created=True).exists():
        end_orphans.apply_async(countdown=1)
    if sessions.is_of_no_use(pk=vapi_session_pk):
        end_session.delay(vapi_session_pk)


@shared_task(**ASKED_AGAIN, soft_time_limit=15)
def end_session(vapi_session_pk: int) -> None:
    client = account.client(sessions.account_of(pk=vapi_session_pk))
    sessions.end_session(pk=vapi_session_pk, client=client, at=timezone.now())


@shared_task(acks_late=True)
def end_sessions(call_sid: str) -> None:
    """Every Vapi session of a call that is over, or whose stream is."""
    for pk in sessions.open_sessions(call_sid=call_sid):
        end_session.delay(pk)


@shared_task(**ASKED_AGAIN, soft_time_limit=60)
def fetch_report(vapi_session_pk: int) -> None:
    client = account.client(sessions.account_of(pk=vapi_session_pk))
    lost_reports.fetch(vapi_session_pk=vapi_session_pk, client=client, at=timezone.now())


@shared_task(acks_late=True)
def process_message(pk: int) -> None:
    """A stored body that takes seconds to be made into history: a long report, or a late line of a long call."""
    inbox.attempt(pk=pk, at=timezone.now())


@shared_task
def sweep() -> None:
    """Scheduled: end silent calls and forgotten sessions, ask for reports that did not come, and end the wait for them."""
    now = timezone.now()
    judges = missed_sweep.somebody_sweeps(now=now)
    take(STEPS, Sweep(now, judges, fetch_report.delay, end_session.delay))


@shared_task(soft_time_limit=60)
def end_orphans() -> None:
    """Scheduled: Vapi calls of our names that no session holds. Asks Vapi only when there may be one."""
    if missed_sweep.clock_has_jumped(now=timezone.now()):
        return  # whoever makes an agent now seems to have been at it for hours
    for each in VapiAccount.values:
        orphans.end_orphans(client=account.client(each), now=timezone.now(), account=each)


@shared_task(soft_time_limit=120)
def come_back() -> None:
    """Asked for by a worker that starts: all of us may have been away, so nobody waits for the schedule."""
    sweep()
    end_orphans()
    for each in VapiAccount.values:
        if each == VapiAccount.MAIN or account.has_backup():
            returning.end_strangers(client=account.client(each), now=timezone.now())


@shared_task
def reprocess_inbox() -> None:
    """Scheduled: webhook bodies that were stored but not yet made into history."""
    for pk in inbox.inbox_to_do(now=timezone.now()):
        inbox.reprocess(pk=pk, at=timezone.now())


@shared_task(acks_late=True, soft_time_limit=30)
def stop_recordings(call_sid: str) -> None:
    """A caller does not want to be recorded. `sweep` finds what the broker lost."""
    consent.stop_recordings(twilio=twilio_account.client(), now=timezone.now(), call_sid=call_sid)


@shared_task(soft_time_limit=60)
def ask_vendors() -> None:
    """Scheduled: have the vendors delete what is erased here."""
    vendor_erasures.ask(vendors=vendor_accounts.vendors(), now=timezone.now())


@shared_task(soft_time_limit=1800, time_limit=1900)
def keep_time() -> None:
    """Scheduled, nightly: erase what was kept for its time. A long backlog is worked off in turns."""
    now = timezone.now()
    with patience.of(ONE_STATEMENT_ERASES_S):
        gone, is_more = erasure.keep_time(now=now)
    if any(gone.counts.values()):
        trail.record("erased", actor="", subject="kept for its time", detail=gone.counts, at=now)
        erasure.leave_no_trace()
    if is_more:
        keep_time.delay()
