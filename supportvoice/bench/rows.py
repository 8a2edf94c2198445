"""Calls that wait for their stream, as the webhook and the worker leave them: answered, their Vapi session live.

`python -m supportvoice.bench.rows --calls N --vapi ws://…` makes them and prints each CallSid with its stream token;
`--left` prints what rows say of calls that are not over instead. Vapi's create is skipped: it happens before there is any sound.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from typing import Any

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.db.models import Exists, F, OuterRef, Q  # noqa: E402
from django.utils import timezone  # noqa: E402

from agents.models import AssistantTemplate, TemplateVersion  # noqa: E402
from bridge import stream_token  # noqa: E402
from calls.admission import MADE, WITH_AGENT  # noqa: E402
from calls.models import AgentPlace, CallSession, OutboxCommand, Status, VapiSession, VapiState, Waiting  # noqa: E402
from supportvoice.bench.goodbye import vapi_call_id  # noqa: E402

TOKENS_LIVE_S = 6 * 3600


def make(count: int, *, vapi_url: str, wide: bool = False) -> list[tuple[str, str]]:
    now = timezone.now()
    ids: dict[str, Any] = {"account_sid": settings.TWILIO_ACCOUNT_SID, "status": Status.CONNECTING}
    if wide:
        ids["version"] = wide_version()
    times = {"started_at": now, "answered_at": now, "last_seen_at": now}
    calls = CallSession.objects.bulk_create([CallSession(call_sid=f"CA{uuid.uuid4().hex}", **ids, **times) for _ in range(count)])
    live = {"n": 0, "state": VapiState.LIVE, "asked_at": now, "live_at": now}
    VapiSession.objects.bulk_create(
        [
            VapiSession(call=call, vapi_call_id=vapi_call_id(call.call_sid), socket_url=f"{vapi_url}/{call.call_sid}", **live)
            for call in calls
        ]
    )
    places = enumerate(calls, start=AgentPlace.objects.count())
    AgentPlace.objects.bulk_create([AgentPlace(number=number, given=1, call=call) for number, call in places])
    key, expires = stream_token.key_from(settings.SECRET_KEY), int(time.time()) + TOKENS_LIVE_S
    return [(call.call_sid, stream_token.issue(key=key, call_sid=call.call_sid, epoch=0, expires=expires)) for call in calls]


def wide_version() -> TemplateVersion:
    """An agent whose sound is PCM16 at 16 kHz."""
    words: dict[str, Any] = {"prompt": "You help.", "first_message": "Hello.", "voice_id": "sam", "sound": "wideband"}
    template, _ = AssistantTemplate.objects.get_or_create(slug="bench", defaults={"name": "Bench", **words})
    published = {"name": template.name, "published_at": timezone.now(), **words}
    return TemplateVersion.objects.get_or_create(template=template, number=1, defaults=published)[0]


def left() -> dict[str, int]:
    """How many rows are of a call that is not over, however old its last sign of life."""
    at_vapi = VapiSession.objects.filter(call=OuterRef("call"), state__in=MADE)
    taken = Q(call__status__in=WITH_AGENT) | Q(Exists(at_vapi))
    return {
        "open_streams": CallSession.objects.filter(stream_epoch__gt=F("closed_epoch")).count(),
        "live_calls": CallSession.objects.live().count(),
        "live_sessions": VapiSession.objects.filter(state__in=MADE).count(),
        "agent_places": AgentPlace.objects.filter(taken).count(),
        "waiting": Waiting.objects.filter(left_at=None).count(),
        "commands": OutboxCommand.objects.filter(done_at=None).count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=0)
    parser.add_argument("--vapi", default="")
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--left", action="store_true")
    given = parser.parse_args()
    if given.left:
        json.dump(left(), sys.stdout)
    else:
        json.dump(make(given.calls, vapi_url=given.vapi, wide=given.wide), sys.stdout)


if __name__ == "__main__":
    main()
