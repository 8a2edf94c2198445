"""The sweep goes on without beat, worker and broker: a serving process does it when nobody has, and one of several does."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from django.utils import timezone

from calls import in_turn, tasks
from calls.models import CallSession, EndReason, Status
from tests.builders import a_call, at_once

pytestmark = pytest.mark.django_db(transaction=True)
NOW = timezone.now()


def test_of_several_processes_that_miss_the_sweep_one_does_it() -> None:
    call = a_call(status=Status.STREAMING, last_seen_at=NOW - timedelta(hours=2))
    in_turn.began(now=NOW - timedelta(seconds=76))
    asked = at_once([partial(in_turn.sweep_if_nobody_does, now=NOW)] * 4)
    assert sorted(asked) == [False, False, False, True]
    assert CallSession.objects.get(pk=call.pk).end_reason == EndReason.TTL


def test_while_somebody_sweeps_nobody_else_does() -> None:
    call = a_call(status=Status.STREAMING)
    tasks.sweep()
    CallSession.objects.filter(pk=call.pk).update(last_seen_at=NOW - timedelta(hours=2))
    assert not in_turn.sweep_if_nobody_does(now=timezone.now() + timedelta(seconds=74))
    assert CallSession.objects.get(pk=call.pk).end_reason == ""
