"""R18: a serving process is killed, and its place is taken while its lease still runs. Nobody takes the one for the other.

The parent and the lifeguards are the product's, in processes of their own; what is killed is killed by a signal. Whoever watches
stands still until the successor has a lease, so that the restart is within the old one's on any machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from django.conf import settings
from django.utils import timezone

from calls import services
from calls.lease_rows import ProcessLease
from calls.models import CallSession, Status
from supportvoice.laboratory.ground import children
from tests.builders import ACCOUNT, a_call
from tests.calls import doors
from tests.races.pair import ROOT

WATCHERS = 2
CALLS = 5
LONGEST_S = 30.0


@dataclass
class Served:
    parent: int
    boots: dict[int, uuid.UUID]  # by process id


@contextmanager
def served(*, buries: bool) -> Iterator[Served]:
    name = settings.DATABASES["default"]["NAME"]
    own = {"DATABASE_URL": f"sqlite:///{name}", "DJANGO_SETTINGS_MODULE": "supportvoice.settings", "PUBLIC_URL": doors.PUBLIC_URL}
    command = [sys.executable, "-m", "tests.races.lives", str(1 + WATCHERS), "buries" if buries else "silent"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | own, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            lines = [parent.stdout.readline().split() for _ in range(1 + WATCHERS)]
            boots = {int(pid): uuid.UUID(boot) for pid, boot in lines}
            until(lambda: set(boots.values()) <= leases())
            yield Served(parent.pid, boots)
        finally:
            parent.kill()


def leases() -> set[uuid.UUID]:
    return set(ProcessLease.objects.values_list("boot", flat=True))


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONGEST_S
    while not true():
        assert time.monotonic() < deadline, f"Not so after {LONGEST_S:.0f} s"
        time.sleep(0.02)


def carried_by(boot: uuid.UUID) -> list[CallSession]:
    calls = [a_call() for _ in range(CALLS)]
    for call in calls:
        services.admit_stream(call_sid=call.call_sid, account_sid=ACCOUNT, stream_sid="MZ1", epoch=0, at=timezone.now(), held_by=boot)
    return calls


def rescued(call: CallSession) -> int:
    return call.events.filter(kind="call-rescued").count()


@pytest.mark.parametrize("buries", [False, True], ids=["the lease alone tells", "its parent saw it die"])
def test_r18_a_process_restarted_within_the_lease_of_the_one_that_was_killed_is_not_taken_for_it(
    transactional_db: None, buries: bool
) -> None:
    with served(buries=buries) as house:
        (killed, old), *watchers = house.boots.items()
        calls = carried_by(old)
        for pid, _ in watchers:
            os.kill(pid, signal.SIGSTOP)
        os.kill(killed, signal.SIGKILL)
        until(lambda: set(children(house.parent)) - set(house.boots))
        until(lambda: ProcessLease.objects.exclude(boot__in=house.boots.values()).exists())
        successor = ProcessLease.objects.exclude(boot__in=house.boots.values()).get()
        later = carried_by(successor.boot)
        for pid, _ in watchers:
            os.kill(pid, signal.SIGCONT)
        until(lambda: all(rescued(call) for call in calls))
        until(lambda: ProcessLease.objects.get(boot=successor.boot).counter > successor.counter)
        dead, alive = ProcessLease.objects.get(boot=old), ProcessLease.objects.get(boot=successor.boot)
    assert successor.boot not in house.boots.values()
    assert (dead.claimed_by is not None, alive.claimed_by, alive.dead_at) == (True, None, None)
    assert (dead.dead_at is not None) is buries
    for call in calls:
        call.refresh_from_db()
        assert (call.held_by, rescued(call)) == (dead.claimed_by, 1)
    for call in later:
        call.refresh_from_db()
        assert (call.held_by, call.status, rescued(call)) == (successor.boot, Status.STREAMING, 0)
