"""The Celery application: `celery -A supportvoice worker`, `celery -A supportvoice beat`."""

from __future__ import annotations

import os
import sys
from typing import Any

from celery import Celery
from celery.signals import beat_init, celeryd_init
from django.conf import settings

from supportvoice.checks import refuse_unsafe
from supportvoice.embedded import EmbeddedAway, Hold

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "supportvoice.settings")

app = Celery("supportvoice")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["agents", "calls"])

_holds: list[Hold] = []  # for the life of this process


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
