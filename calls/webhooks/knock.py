"""Who may knock at Twilio's doors, and with what: a signed form about a call, of bounded size, each field we act on once.

What comes through is proven. Every other request gets one plain sentence and changes nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, wraps
from typing import Concatenate, ParamSpec

from django.conf import settings
from django.core.exceptions import BadRequest, RequestDataTooBig, SuspiciousOperation
from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse, QueryDict, UnreadablePostError
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from bridge.twilio_http import SIGNATURE, TwilioProof
from calls.webhooks.refusal import only_posted, refusal
from calls.webhooks.unproven import refused

log = logging.getLogger(__name__)

CALL_SID = re.compile(r"CA[0-9a-fA-F]{32}", re.ASCII)
RECORDING_SID = re.compile(r"RE[0-9a-f]{32}", re.ASCII)
NUMBER = re.compile(r"[0-9]{1,6}", re.ASCII)
FORM_LIMIT = 256 * 1024
ACTED_ON = {
    *("CallSid", "ParentCallSid", "AccountSid", "From", "To", "CallStatus", "DialCallStatus", "DialBridged", "Digits"),
    *("StreamEvent", "RecordingSid", "RecordingUrl", "RecordingStatus", "RecordingDuration", "ErrorCode", "ErrorUrl"),
}
FORM = "application/x-www-form-urlencoded"

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Knock:
    """A proven request: Twilio says this about this call."""

    call_sid: str
    fields: QueryDict
    at: datetime

    def get(self, name: str) -> str:
        return self.fields.get(name, "")

    @property
    def recording_sid(self) -> str:
        """By its id: a recording's address opens it to anybody who has it, so that is not kept."""
        named = RECORDING_SID.fullmatch(self.get("RecordingSid")) or RECORDING_SID.search(self.get("RecordingUrl"))
        return named[0] if named else ""

    def number(self, name: str) -> int:
        """A whole number that Twilio sends; 0 when it is none."""
        return int(self.get(name)) if NUMBER.fullmatch(self.get(name)) else 0


def twilio_door(view: Callable[Concatenate[Knock, P], HttpResponse]) -> Callable[..., HttpResponse]:
    """Only signed forms about a call come through: 400 malformed, 403 unproven, 413 too long, 503 without a database."""

    @csrf_exempt
    @only_posted
    @wraps(view)
    def door(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if request.content_type != FORM:
            return refusal("The request is not a form.", 400)
        try:
            too_long = len(request.body) > FORM_LIMIT
            fields = QueryDict() if too_long else request.POST
        except RequestDataTooBig:
            too_long = True
        except (SuspiciousOperation, BadRequest, UnreadablePostError):
            return refusal("The form could not be read.", 400)
        if too_long:
            return refusal("The form is too long.", 413)
        if not _proof(settings.PUBLIC_URL, tuple(settings.TWILIO_AUTH_TOKENS)).form(
            path=request.get_full_path(), fields=fields, headers=request.headers
        ):
            refused(view.__name__, "Twilio", looks_genuine=_looks_like_twilio(request, fields))
            return refusal("This request was not signed by Twilio.", 403)
        if not CALL_SID.fullmatch(fields.get("CallSid", "")):
            return refusal("The form names no call.", 400)
        if not _sane(fields):
            return refusal("The form holds a field twice, or a character no field may hold.", 400)
        try:
            return view(Knock(fields["CallSid"], fields, timezone.now()), *args, **kwargs)
        except DatabaseError as problem:
            log.error("A door of Twilio found no database", extra={"door": view.__name__, "problem": type(problem).__name__})
            return refusal("The call could not be looked up.", 503)

    return door


def _looks_like_twilio(request: HttpRequest, fields: QueryDict) -> bool:
    return SIGNATURE in request.headers and CALL_SID.fullmatch(fields.get("CallSid", "")) is not None


def _sane(fields: QueryDict) -> bool:
    """Each field we act on stands there once, and none holds a NUL, which PostgreSQL does not store."""
    once = all(len(values) == 1 for name, values in fields.lists() if name in ACTED_ON)
    return once and not any("\0" in value for values in (fields.keys(), *dict(fields.lists()).values()) for value in values)


@lru_cache(maxsize=4)
def _proof(public_url: str, tokens: tuple[str, ...]) -> TwilioProof:
    return TwilioProof(public_url=public_url, tokens=tokens)
