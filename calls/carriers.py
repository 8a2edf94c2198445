"""Which processes of ours are gone: one that dies, or is taken for dead, under a call is no failure of the call's agent (`calls.ladder`).

By its lease: whoever started it saw it die, or another one has its calls by now, because it was killed or stood still. By its place
on this machine too: Twilio may ask what is next before anybody has written the death down.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from calls.lease_rows import ProcessLease
from calls.models import CallSession


@dataclass(slots=True)
class Machine:
    """This one. `is_gone` tells of a place whether its process is known to be dead; where nobody can tell, none is."""

    is_gone: Callable[[str], bool] = lambda place: False


@cache
def the_machine() -> Machine:
    """Told to look by whoever serves."""
    return Machine()


def is_dead(boot: uuid.UUID | str) -> bool:
    """That life of a process is over, or taken for over."""
    lease = ProcessLease.objects.filter(boot=boot).first()
    return lease is not None and (lease.dead_at is not None or lease.claimed_by is not None or the_machine().is_gone(lease.place))


def is_gone(call: CallSession) -> bool:
    """The process that let the newest stream in is gone, or another one has its calls by now (`calls.rescue`)."""
    return call.carried_by is not None and (call.held_by != call.carried_by or is_dead(call.carried_by))
