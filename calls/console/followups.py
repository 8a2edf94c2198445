"""What people still owe callers: messages to listen to, and numbers to call back. Each as an `Item`."""

from __future__ import annotations

from datetime import datetime

from django.urls import reverse

from calls.console.appendix import recording
from calls.console.headline import callback_of, promise, standing
from calls.console.shown import Item, caller_words, line_words, stamp
from calls.models import CallbackRequest, CallSession, Recording

STANDING_TONES = {"none": "plain", "open": "wait", "overdue": "bad", "done": "good"}


def _of_call(call: CallSession) -> dict[str, str]:
    return {"caller": caller_words(call), "line": line_words(call), "started": stamp(call.started_at)}


def voicemail(sound: Recording, now: datetime) -> Item:
    """A message, with what the caller was promised. Its `href` leads to the sound, the slot `page` to the call."""
    heard, callback = recording(sound, sound.call), callback_of(sound.call)
    slots = {**_of_call(sound.call), **heard.slots, **promise(callback, now), "page": reverse("console:call", args=[sound.call.public_id])}
    tones = {"tone": heard.data["tone"], "standing": standing(callback, now), "callback_tone": STANDING_TONES[standing(callback, now)]}
    return Item(id=heard.id, order=heard.order, href=heard.href, slots=slots, data=tones)


def callback(asked: CallbackRequest, now: datetime) -> Item:
    """Somebody to call back, with the last thing they said to us."""
    stands = standing(asked, now)
    return Item(
        id=f"callback-{asked.pk}",
        order=(asked.pk,),
        href=reverse("console:call", args=[asked.call.public_id]),
        data={"tone": STANDING_TONES[stands], "standing": stands},
        slots={
            **_of_call(asked.call),
            **promise(asked, now),
            "asked": stamp(asked.asked_at),
            "why": asked.call.get_end_reason_display() if asked.call.end_reason else "",
            "last_words": getattr(asked, "last_words", None) or "",
            "claim_door": reverse("console:callback-claimed", args=[asked.call.public_id]),
            "done_door": reverse("console:callback-done", args=[asked.call.public_id]),
        },
    )
