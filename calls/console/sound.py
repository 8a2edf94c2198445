"""The door to a recording. The sound is at Twilio and only our credentials open it, so it comes through us, behind the log-in.

Fetched whole, within a deadline and a size, and at most AT_ONCE at a time: a listener waits, never a call. A browser that
asks for a part of it (to jump ahead) gets that part.
"""

from __future__ import annotations

import re
from threading import BoundedSemaphore
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404

from agents.trail import Who
from bridge import waiting
from bridge.errors import TwilioRefused, TwilioUnavailable
from calls import roles, twilio_account
from calls.console import watched
from calls.console.doors import console_page
from calls.console.viewer import viewer_of
from calls.models import Recording, RecordingState

MOST_BYTES = 64 * 1024 * 1024  # an hour of one voice, half an hour of two
AT_ONCE = 2
WAIT_S = 5.0
RANGE = re.compile(r"bytes=(\d{0,12})-(\d{0,12})", re.ASCII)
WHY_NOT = {
    RecordingState.IN_PROGRESS: "This is still being recorded.",
    RecordingState.ABSENT: "Nothing was said into this recording.",
    RecordingState.FAILED: "Twilio could not make this recording.",
}

_fetching = BoundedSemaphore(AT_ONCE)


class NotToBeHad(Exception):
    """The sound cannot be had now. `status` is the HTTP status, the text the sentence for people."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@console_page(roles.READ_WORDS)
@watched.refused_untold
def recording(request: HttpRequest, public_id: UUID, sid: str) -> HttpResponse:
    """A recording of one call as WAV, or one plain sentence that says why not. That of a whole call takes more than a message does."""
    viewer = viewer_of(request.user)
    own = Recording.objects.filter(viewer.sight.of("call__team")).select_related("call")
    sound = get_object_or_404(own, call__public_id=public_id, sid=sid)
    if not viewer.may_hear(sound):
        raise PermissionDenied
    try:
        wav = _fetched(sound)
    except NotToBeHad as problem:
        return HttpResponse(str(problem), status=problem.status, content_type="text/plain; charset=utf-8")
    watched.recording_heard(Who.asking(request), sound)
    answer = in_part(wav, request.headers.get("Range", ""))
    answer.headers["Content-Disposition"] = f'inline; filename="{sound.kind}-{public_id.hex[:6]}.wav"'
    return answer


def in_part(wav: bytes, wanted: str) -> HttpResponse:
    """The bytes that a Range header asks for; all of them where it asks for nothing, or for more than one part."""
    asked = RANGE.fullmatch(wanted.strip())
    if asked is None or asked[0] == "bytes=-":
        answer = HttpResponse(wav, content_type="audio/wav")
    else:
        first = int(asked[1]) if asked[1] else max(len(wav) - int(asked[2]), 0)
        last = min(int(asked[2]), len(wav) - 1) if asked[1] and asked[2] else len(wav) - 1
        if first > last:
            return HttpResponse(status=416, headers={"Content-Range": f"bytes */{len(wav)}"})
        answer = HttpResponse(wav[first : last + 1], status=206, content_type="audio/wav")
        answer.headers["Content-Range"] = f"bytes {first}-{last}/{len(wav)}"
    answer.headers["Accept-Ranges"] = "bytes"
    return answer


def _fetched(sound: Recording) -> bytes:
    """The sound as Twilio has it. Raises NotToBeHad, with a sentence that says what would help."""
    if sound.erased_at is not None:
        raise NotToBeHad(404, "This recording was erased.")
    if sound.state != RecordingState.COMPLETED:
        raise NotToBeHad(404, WHY_NOT.get(RecordingState(sound.state), "There is nothing to hear."))
    client = twilio_account.client()
    if client is None:
        raise NotToBeHad(503, "There is no Twilio account in the settings, so this recording cannot be fetched.")
    waiting.give_back()
    if not _fetching.acquire(timeout=WAIT_S):
        raise NotToBeHad(503, "Others are listening to recordings just now. Try again in a moment.")
    try:
        return client.recording(sound.sid, MOST_BYTES, sound.call.account_sid)
    except TwilioUnavailable:
        raise NotToBeHad(503, "Twilio cannot give this recording now. Try again in a moment.") from None
    except TwilioRefused as refusal:
        raise NotToBeHad(502, _refused_words(refusal)) from None
    finally:
        _fetching.release()


def _refused_words(refusal: TwilioRefused) -> str:
    match refusal.status:
        case 404 | 410:
            return "Twilio does not have this recording any more."
        case 401 | 403:
            return "Twilio does not accept our account and token, so this recording cannot be fetched."
        case 200:
            return f"This recording is longer than the {MOST_BYTES // 2**20} MB we fetch. It can be heard in Twilio's console."
    return f"Twilio refused to give this recording ({refusal.status})."
