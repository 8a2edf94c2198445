"""The sweep goes on without beat, worker and broker: a serving process does it when nobody has, and one of several does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from calls import missed_sweep, services, spool, tasks
from calls.models import CallSession, EndReason, Status
from calls.spool import Spool
from tests.builders import a_call, at_once

pytestmark = pytest.mark.django_db(transaction=True)
NOW = timezone.now()


def test_of_several_processes_that_miss_the_sweep_one_does_it() -> None:
    call = a_call(status=Status.STREAMING, last_seen_at=NOW - timedelta(hours=2))
    missed_sweep.somebody_sweeps(now=NOW - timedelta(seconds=76))
    asked = at_once([partial(missed_sweep.sweep_if_nobody_does, now=NOW)] * 4)
    assert sorted(asked) == [False, False, False, True]
    assert CallSession.objects.get(pk=call.pk).end_reason == EndReason.TTL


def test_while_somebody_sweeps_nobody_else_does() -> None:
    call = a_call(status=Status.STREAMING)
    tasks.sweep()
    CallSession.objects.filter(pk=call.pk).update(last_seen_at=NOW - timedelta(hours=2))
    assert not missed_sweep.sweep_if_nobody_does(now=timezone.now() + timedelta(seconds=74))
    assert CallSession.objects.get(pk=call.pk).end_reason == ""


@pytest.mark.parametrize("jump", [timedelta(hours=2), timedelta(hours=-2)])
def test_a_clock_that_jumps_by_two_hours_ends_no_call_and_sweeping_goes_on(jump: timedelta) -> None:
    """The sweep comes before any call has told of itself by the new time."""
    call = a_call(status=Status.STREAMING, last_seen_at=NOW - timedelta(hours=1, seconds=-1))
    dead = a_call(status=Status.STREAMING, last_seen_at=NOW + jump - timedelta(hours=2))
    missed_sweep.somebody_sweeps(now=NOW)
    later = NOW + jump
    assert missed_sweep.sweep_if_nobody_does(now=later)
    assert not CallSession.objects.filter(ended_at__isnull=False).exists()
    assert services.heartbeat(call_sid=call.call_sid, epoch=0, at=later + timedelta(seconds=5))
    assert missed_sweep.sweep_if_nobody_does(now=later + timedelta(seconds=76))
    assert list(CallSession.objects.filter(ended_at__isnull=False)) == [dead]


def test_after_the_clock_has_jumped_the_scheduled_sweep_holds_no_silence_against_anybody_either() -> None:
    missed_sweep.somebody_sweeps(now=timezone.now() - timedelta(hours=2))
    call = a_call(status=Status.STREAMING, last_seen_at=NOW - timedelta(hours=2))
    call.vapi_sessions.all().delete()  # nothing for a worker to end
    tasks.sweep()
    assert not CallSession.objects.filter(ended_at__isnull=False).exists()
    tasks.sweep()
    assert CallSession.objects.get().end_reason == EndReason.TTL


@pytest.mark.parametrize("is_workers", [True, False], ids=["a worker's", "a serving process's"])
def test_no_silence_is_held_against_a_call_whose_signs_of_life_wait_in_a_spool_of_this_machine(is_workers: bool) -> None:
    now = timezone.now()
    sweep: Callable[[], object] = tasks.sweep if is_workers else partial(missed_sweep.sweep_if_nobody_does, now=now)
    a_call(status=Status.STREAMING, last_seen_at=now - timedelta(hours=2)).vapi_sessions.all().delete()
    missed_sweep.somebody_sweeps(now=now - timedelta(seconds=76))
    kept = Spool(Path(settings.SPOOL_DIR))
    kept.append([{"kind": "alive"}])
    sweep()
    assert not CallSession.objects.filter(ended_at__isnull=False).exists()
    kept.was_read(kept.unread())
    missed_sweep.somebody_sweeps(now=now - timedelta(seconds=76))
    sweep()
    assert CallSession.objects.get().end_reason == EndReason.TTL


def test_a_spool_that_nobody_has_stored_for_an_hour_keeps_no_call_alive() -> None:
    kept, now = Spool(Path(settings.SPOOL_DIR)), timezone.now().timestamp()
    kept.append([{"kind": "alive"}])
    assert spool.is_waited_for(Path(settings.SPOOL_DIR), now=now)
    assert not spool.is_waited_for(Path(settings.SPOOL_DIR), now=now + spool.STALE_S + 60)
