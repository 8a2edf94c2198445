"""What both vendors know and we do not, because nobody of us was here: asked from their lists.

A caller whom the number's fallback looked after has no row here, and nobody tells us of the end. An agent that was being made when
everything stopped may run at Vapi with no row that holds it, if the database lost the row too. Everything else that stopped in the
middle has a row, and is the sweep's to close.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from django.db.models import Q

from agents import account as vapi_account
from bridge import twilio_rest, vapi_answers
from bridge.errors import TwilioError, VapiError
from bridge.twilio_rest import OVER
from calls import by_heart, orphans, services, sessions
from calls.models import CallSession, VapiSession, VapiState
from calls.returning_rows import Compared
from calls.vapi_names import named

log = logging.getLogger(__name__)

TWILIO = "twilio"
LATE = timedelta(minutes=10)  # a list may lag behind what has happened
LONGEST_GAP = timedelta(days=1)
AGENTS_OF = timedelta(hours=1)  # longer than an agent speaks to nobody


class Twilio(Protocol):
    """What we need of `bridge.twilio_rest.TwilioRest`."""

    def calls_since(self, since: datetime) -> twilio_rest.CallList: ...


def keep_missed_calls(*, twilio: Twilio | None, now: datetime) -> int:
    """Keep the calls to our lines that came and went without us. Returns how many; safe to run twice at once.

    A call that is still under way is somebody else's: it is looked at again until it is over. So is a gap of which Twilio told a part
    only. Of a first look nothing before it is asked, and never more than a day.
    """
    if twilio is None or by_heart.is_to_be_told(now=now):  # what is told there was not missed
        return 0
    by_heart.enter_all()
    row, _ = Compared.objects.get_or_create(listed=TWILIO, defaults={"until": now - LATE})
    since = max(row.until, now - LONGEST_GAP)
    try:
        listed, is_whole = twilio.calls_since(since)
    except TwilioError as problem:
        log.warning("Twilio did not list its calls", extra={"problem": str(problem), "status": problem.status})
        return 0
    known = set(CallSession.objects.filter(call_sid__in=[call.sid for call in listed]).values_list("call_sid", flat=True))
    unknown = [call for call in listed if call.sid not in known]
    kept = sum(_kept(call) for call in unknown if call.status in OVER)
    if kept:
        log.warning("Calls came while nobody of us was here", extra={"calls": kept})
    if not is_whole:
        log.warning("Twilio did not list all of its calls: it is asked again", extra={"calls": len(listed)})
        return kept
    until = min([now - LATE, *(call.started_at for call in unknown if call.status not in OVER)])
    Compared.objects.filter(pk=row.pk, until=row.until, until__lt=until).update(until=until)
    return kept


def _kept(call: twilio_rest.ListedCall) -> bool:
    return services.missed_call(
        sid=call.sid,
        account_sid=call.account_sid,
        from_number=call.from_number[:64],
        to_number=call.to_number[:64],
        at=call.started_at,
        by_fallback=call.status == "completed" and call.seconds > 0,
    )


def end_strangers(*, client: orphans.Account, now: datetime) -> int:
    """End the agents of our making that no row of ours holds. Returns how many; safe to run twice at once.

    Another house may share the account: only a call that tells its news to our own address is ours to end. One that is being
    created this very moment has a claim, and is left to whoever has it. None is ended while a process of this machine has still to tell
    what it made by heart: the database may be back a moment before that.
    """
    try:
        listed = client.list_calls(since=now - AGENTS_OF)
    except VapiError as problem:
        log.warning("Vapi did not list its calls", extra={"status": problem.status})
        return 0
    if by_heart.is_to_be_told(now=now):  # after the list: what was made before that, and is not told there, is in the rows
        return 0
    by_heart.enter_all()
    ours = vapi_account.server().url
    running = [call for call in listed if not call.is_over and call.server_url == ours and named(call.name)[0]]
    return sum(sessions.end_quietly(client, call) for call in _not_held(running))


def _not_held(running: Sequence[vapi_answers.ListedCall]) -> list[vapi_answers.ListedCall]:
    """Rows whose id is to come are asked for first: one that is told its id meanwhile is found by that."""
    id_to_come = Q(state__in=(VapiState.ASKED, VapiState.CLAIMED)) | Q(state=VapiState.LIVE, vapi_call_id=None)
    of_these = VapiSession.objects.filter(id_to_come, call__call_sid__in=[named(call.name)[0] for call in running])
    to_come = set(of_these.values_list("call__call_sid", "n"))
    known = set(VapiSession.objects.filter(vapi_call_id__in=[call.id for call in running]).values_list("vapi_call_id", flat=True))
    return [call for call in running if call.id not in known and named(call.name) not in to_come]
