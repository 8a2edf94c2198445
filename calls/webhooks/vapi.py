"""Vapi's door: the secret first, then the body into the inbox, then 200; tool calls are answered while the model waits.

A live call is hinted before anything is written: an interruption is worth most in its first milliseconds.
"""

from __future__ import annotations

import logging
import time
from functools import lru_cache

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from bridge.errors import BadMessage
from bridge.vapi_proof import VapiProof
from calls import publisher, tool_calls, vapi_events
from calls.vapi_events import REPORT_LIMIT, TOOL_CALLS, VapiMessage
from calls.webhooks.refusal import refusal

log = logging.getLogger(__name__)


@csrf_exempt
@require_POST
def message(request: HttpRequest) -> HttpResponse:
    """One server message. 403 unproven, 400 or 413 unreadable, 503 when it could not be stored, else 200."""
    raw = request.read(REPORT_LIMIT + 1)
    if len(raw) > REPORT_LIMIT:
        return refusal("The body is too long.", 413)
    if not _proof(tuple(settings.VAPI_WEBHOOK_SECRETS))(headers=request.headers, body=raw, now=time.time()):
        return refusal("This request was not proven to come from Vapi.", 403)
    try:
        told = vapi_events.read(raw)
    except BadMessage as problem:
        return refusal(str(problem), 413 if len(raw) > vapi_events.BODY_LIMIT else 400)
    if told.kind == TOOL_CALLS:
        return JsonResponse({"results": _tool_results(told)})
    return _told(told)


def _told(told: VapiMessage) -> HttpResponse:
    if told.is_partial:  # shown live from the socket, stored nowhere
        return JsonResponse({})
    try:
        if told.live_hint and (call_sid := vapi_events.call_sid_of(told)):
            publisher.tell(call_sid, told.live_hint)
        pk = vapi_events.keep(told, at=timezone.now())
    except DatabaseError:
        log.error("A message of Vapi could not be stored", extra={"kind": told.kind})
        return refusal("The message could not be stored; send it again.", 503)
    if pk is not None:
        _process(pk, told.kind)
    return JsonResponse({})


def _process(pk: int, kind: str) -> None:
    """The message is stored, so Vapi gets its 200 whatever comes now; what fails here is tried again from the row."""
    try:
        vapi_events.process_inbox(pk=pk, at=timezone.now())
    except Exception as problem:
        log.error("A stored message of Vapi could not be processed", extra={"inbox": pk, "kind": kind, "problem": type(problem).__name__})


def _tool_results(told: VapiMessage) -> list[dict[str, str]]:
    calls = tool_calls.asked(told.body)
    try:
        vapi_events.keep(told, at=timezone.now())
        session = vapi_events.session_of(vapi_call_id=told.vapi_call_id, call_sid=told.call_sid, n=told.n)
        if session is None:
            return tool_calls.unanswerable(calls, "This call is not known here.")
        return tool_calls.answer(call=session.call, calls=calls, allowed=settings.TOOL_ALLOWED_PRIVATE)
    except DatabaseError:
        log.error("Tool calls could not be entered", extra={"count": len(calls)})
        return tool_calls.unanswerable(calls, "The tool is not available right now.")


@lru_cache(maxsize=4)
def _proof(secrets: tuple[str, ...]) -> VapiProof:
    return VapiProof(secrets=secrets)
