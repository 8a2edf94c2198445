"""Whose message it is when the id it shows, the one Vapi told us and the name we gave do not agree.

Vapi may answer a create with the id of another call. Its own messages then show an id that no session of ours has, or one that another
session was told. The name cannot settle that: a call that was given up, because whoever was creating it died, has the same name as the
one that took its place, and must not be taken for it. But every create is made with a claim of its own (`sessions.claim_session`), Vapi
shows it again with every message, and the row holds the claim of the create whose answer it keeps. So a message that shows a row's claim
tells of the very call this row stands for, whatever id the answer had, and one that shows another claim is nobody's.

One create makes two calls of one claim when Vapi made one, said that it failed, and was asked once more. Then the answered one is right:
so an id that Vapi has told its own call's news by is not changed any more.

The id that is right is kept in the place of the wrong one, by compare-and-set. Whoever was told it wrongly is left without, and gets its
own by its next message.
"""

from __future__ import annotations

import logging

from django.db import IntegrityError, transaction
from django.db.models import Q

from calls import erasure, history
from calls.models import CallSession, InboxMessage, Source, VapiSession, VapiState

log = logging.getLogger(__name__)

HAS_AN_ANSWER = (VapiState.LIVE, VapiState.ENDED)


def whose(*, vapi_call_id: str, call_sid: str, n: int, claim: str, known: VapiSession | None) -> VapiSession | None:
    """`known` is the session that was told this id. The others are what the message shows; empty and 0 when it does not."""
    if known is not None and (known.call.call_sid, known.n) == (call_sid, n):
        return known
    named = VapiSession.objects.select_related("call").filter(call__call_sid=call_sid, n=n).first() if call_sid else None
    if named is None or not claim:
        return known or (named if named and named.vapi_call_id is None else None)
    if str(named.claim) != claim:
        return None
    if named.vapi_call_id == vapi_call_id or not vapi_call_id or named.state not in HAS_AN_ANSWER:
        return named
    return named if _is_renamed(named, vapi_call_id) else None


def _is_renamed(session: VapiSession, vapi_call_id: str) -> bool:
    """Keep the id by which a call tells of itself. False when the one we have has proven right, or the call's words are erased."""
    told = session.vapi_call_id
    if told is not None and (told.startswith(erasure.BLANK_ID) or _has_told(session)):
        return False
    holder = VapiSession.objects.filter(vapi_call_id=vapi_call_id).exclude(pk=session.pk)
    mine = VapiSession.objects.filter(pk=session.pk, claim=session.claim, vapi_call_id=told)
    try:
        with transaction.atomic():
            history.hold_in_order(CallSession.objects.filter(Q(pk=session.call_id) | Q(vapi_sessions__in=holder)))
            holder.update(vapi_call_id=None)
            won = mine.update(vapi_call_id=vapi_call_id) == 1
    except IntegrityError:  # another call was told this id in this very moment: whoever looks at the message again settles it
        return False
    session.refresh_from_db(fields=["vapi_call_id"])
    if won:
        log.warning("A Vapi call has another id than Vapi told", extra={"call": session.call.short_id, "n": session.n})
    return session.vapi_call_id == vapi_call_id


def _has_told(session: VapiSession) -> bool:
    """A message of this call has shown the id that we were told."""
    told = InboxMessage.objects.filter(source=Source.VAPI, vapi_call_id=session.vapi_call_id)
    return told.filter(body__call__claim=str(session.claim)).exists()
