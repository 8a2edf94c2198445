"""The Celery application: `celery -A supportvoice worker`, `celery -A supportvoice beat`."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from celery import Celery
from celery.signals import beat_init, celeryd_init, worker_ready
from django.conf import settings
from kombu.exceptions import OperationalError

from calls import patience
from supportvoice.checks import refuse_unsafe
from supportvoice.embedded import EmbeddedAway, Hold

log = logging.getLogger(__name__)
LOOKS_AFTER_S = (0, 31, 42)  # at once; ASKED_ABOUT_AFTER of the sweep later; its SECOND_LOOK_AFTER later

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "supportvoice.settings")

app = Celery("supportvoice")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["agents", "calls"])

_holds: list[Hold] = []  # for the life of this process


@celeryd_init.connect(weak=False)
def _wait_no_longer(**kwargs: Any) -> None:
    """The children of the worker, which do the work, are this process once more."""
    patience.working()


@celeryd_init.connect(weak=False)
@beat_init.connect(weak=False)
def _prepare(**kwargs: Any) -> None:
    """Worker and beat refuse unsafe settings, and have their Valkey before they connect to it."""
    try:
        refuse_unsafe()
        if settings.REDIS_EMBEDDED:
            _holds.append(Hold(settings.REDIS_SOCKET))
    except EmbeddedAway as problem:
        print(problem, file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None


@worker_ready.connect(weak=False)
def _come_back(**kwargs: Any) -> None:
    """Whoever was cut off while all of us were away is looked for at once, then when they have been silent for long enough, and once
    more when whoever seemed silent has had the time to show that they are not."""
    for after_s in LOOKS_AFTER_S:
        try:
            app.send_task("calls.tasks.come_back", countdown=after_s, expires=after_s + 60)
        except OperationalError as problem:  # the schedule finds them later
            log.warning("nobody could be told to look after an outage", extra={"problem": type(problem).__name__})
