"""Vapi's door: the secret first, then the body into the inbox, then 200; tool calls are answered while the model waits.

A live call is hinted before anything is read or written: an interruption is worth most in its first milliseconds. What is
done with each kind is a table, `calls.vapi_kinds`. While the database is away a body goes to the spool before its 200.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import asdict, replace
from functools import lru_cache

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from agents.limits import DO_NOT_RECORD, END_CALL, TRANSFER
from bridge import live
from bridge.errors import BadMessage
from bridge.vapi_proof import VapiProof
from calls import away, by_heart, inbox, intake, patience, publisher, tasks, tool_calls, vapi_events
from calls.storing import the_keeper
from calls.vapi_events import REPORT_LIMIT, VapiMessage
from calls.vapi_kinds import ANSWERS, TOOL_CALLS, label
from calls.vendor_ages import VendorAges
from calls.webhooks.refusal import only_posted, refusal
from calls.webhooks.unproven import refused

log = logging.getLogger(__name__)

BY_HEART = {
    TRANSFER: ("hand-over", "Somebody takes over when you stop speaking. Say in one short sentence that you are connecting the caller."),
    END_CALL: ("end-call", "The call ends when you stop speaking. Say goodbye now."),
}

PROOFS = ("X-Vapi-Secret", "Authorization", "X-Signature")  # one of them is in each message of Vapi's

told: Counter[str] = Counter()  # what came in at this process's door, by kind; refusals among it
late: Counter[str] = Counter()  # hints that were left out for it, by what they hint at
ages = VendorAges()


@csrf_exempt
@only_posted
def message(request: HttpRequest) -> HttpResponse:
    """One server message. 403 unproven, 400 or 413 unreadable, 503 when it could not be kept, else 200."""
    started = time.monotonic()
    raw = request.read(REPORT_LIMIT + 1)
    kind, answer = _answered(request, raw)
    told[kind] += 1
    ms = int((time.monotonic() - started) * 1000)
    log.info("A message of Vapi", extra={"kind": kind, "ms": ms, "bytes": len(raw), "status": answer.status_code})
    return answer


def _answered(request: HttpRequest, raw: bytes) -> tuple[str, HttpResponse]:
    """What the body is, in a word that holds nothing of a stranger's, and our answer to it."""
    if len(raw) > REPORT_LIMIT:
        return "too-long", refusal("The body is too long.", 413)
    if not _proof(tuple(settings.VAPI_WEBHOOK_SECRETS))(headers=request.headers, body=raw, now=time.time()):
        refused("message", "Vapi", looks_genuine=any(name in request.headers for name in PROOFS))
        return "unproven", refusal("This request was not proven to come from Vapi.", 403)
    try:
        said = vapi_events.read(raw)
    except BadMessage as problem:
        return "unreadable", refusal(str(problem), 413 if len(raw) > vapi_events.BODY_LIMIT else 400)
    if said.kind in (TOOL_CALLS, tool_calls.LEGACY):
        return said.kind, JsonResponse(tool_calls.response(_tool_results(said), kind=said.kind))
    return label(said.kind), _heard(said)


def _heard(said: VapiMessage) -> HttpResponse:
    keeper = the_keeper()
    try:
        if (hint := _fresh_hint(said)) and (call_sid := _call_sid_of(said)):
            publisher.tell(call_sid, hint)
        if said.is_only_counted:
            return JsonResponse({})
        if keeper.is_away:
            raise OperationalError("The database is known to be away.")
        with patience.of(patience.WHERE_A_CALLER_WAITS_S):
            intake.take(said)
    except (DatabaseError, TimeoutError) as problem:
        if isinstance(problem, DatabaseError) and not away.is_away(problem):
            return _send_again(said)
        keeper.suspect()
        if not _kept(said):
            return _send_again(said)
    if said.kind == "voice-request":
        return HttpResponse(b"", content_type="application/octet-stream")  # it wants samples: there are none
    return JsonResponse(dict(ANSWERS.get(said.kind, {})))


def _fresh_hint(said: VapiMessage) -> str:
    """What comes late was heard of by the socket before; it would cut the agent's next turn. Every message shows how late others are."""
    age_s = ages.age_s(said.vapi_call_id, said.vendor_ms, now=time.monotonic()) if said.vendor_ms else 0.0
    hint = said.live_hint
    if hint and age_s > live.FRESH_S:
        late[hint] += 1
        log.info("A hint came too late", extra={"hint": hint, "ms": int(age_s * 1000), "so_far": late[hint]})
        return ""
    return hint


def _call_sid_of(said: VapiMessage) -> str:
    return said.call_sid if the_keeper().is_away else vapi_events.call_sid_of(said)


def _kept(said: VapiMessage) -> bool:
    """Keep a message on the disk until it can be stored. False when there is no room."""
    told = asdict(replace(said, body=inbox.by_heart(said)))
    return the_keeper().append([{"kind": "message", "at": time.time(), "message": told}])


def _send_again(said: VapiMessage) -> HttpResponse:
    log.error("A message of Vapi could not be stored", extra={"kind": label(said.kind)})
    return refusal("The message could not be stored; send it again.", 503)


def _tool_results(said: VapiMessage) -> list[dict[str, str]]:
    calls = tool_calls.asked(said.body)
    try:
        if the_keeper().is_away:
            raise OperationalError("The database is known to be away.")
        session = vapi_events.session_of(vapi_call_id=said.vapi_call_id, call_sid=said.call_sid, n=said.n, claim=said.claim)
        inbox.keep(said, session=session, at=timezone.now())
        if session is None:
            return tool_calls.unanswerable(calls, "This call is not known here.")
        results = tool_calls.answer(call=session.call, calls=calls, allowed=settings.TOOL_ALLOWED_PRIVATE)
        if any(each.name == DO_NOT_RECORD for each in calls):
            publisher.task(tasks.stop_recordings, session.call.call_sid)
        return results
    except DatabaseError as problem:
        log.error("Tool calls could not be entered", extra={"count": len(calls)})
        if away.is_away(problem):
            _kept(said)
            if the_keeper().ask():
                return [_by_heart(said, each) for each in calls]
        return tool_calls.unanswerable(calls, "The tool is not available right now.")


def _by_heart(said: VapiMessage, asked: tool_calls.ToolCall) -> dict[str, str]:
    """A person, or the end, can be had without the database: whoever carries the call sees to it after the agent's last word."""
    verb, sentence = BY_HEART.get(asked.name, ("", ""))
    if verb and by_heart.wish(said.call_sid, verb, at=time.time()):
        publisher.tell(said.call_sid, live.COMMANDS)
        return tool_calls.granted(asked, sentence)
    return tool_calls.unanswerable([asked], tool_calls.NOT_NOW)[0]


@lru_cache(maxsize=4)
def _proof(secrets: tuple[str, ...]) -> VapiProof:
    return VapiProof(secrets=secrets)
