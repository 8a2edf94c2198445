"""The vendors' doors, below `/webhook/`. Each has a twin with a trailing slash: a redirect would lose the form and its signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.urls import URLPattern, path

from calls.webhooks import twilio, vapi


def _door(route: str, view: Callable[..., Any], name: str) -> list[URLPattern]:
    """The twin comes first: `reverse` takes the last pattern of a name, which is the one without a slash."""
    return [path(f"{route}/", view, name=name), path(route, view, name=name)]


urlpatterns: list[URLPattern] = [
    *_door("twilio", twilio.incoming_call, "twilio-call"),
    *_door("twilio/status", twilio.call_status, "twilio-status"),
    *_door("twilio/fallback", twilio.fallback, "twilio-fallback"),
    *_door("twilio/stream", twilio.stream_status, "twilio-stream-status"),
    *_door("twilio/consent/<int:epoch>", twilio.recording_consent, "twilio-consent"),
    *_door("twilio/resume/<int:epoch>", twilio.resume, "twilio-resume"),
    *_door("twilio/wait/<int:epoch>/<int:turn>", twilio.wait, "twilio-wait"),
    *_door("twilio/dial/<int:epoch>/<slug:target>", twilio.dial_result, "twilio-dial"),
    *_door("twilio/leg/<slug:target>", twilio.leg_status, "twilio-leg"),
    *_door("twilio/whisper/<slug:target>", twilio.whisper, "twilio-whisper"),
    *_door("twilio/voicemail/<int:epoch>", twilio.voicemail, "twilio-voicemail"),
    *_door("twilio/callback/<int:epoch>", twilio.callback, "twilio-callback"),
    *_door("twilio/recording/call", twilio.call_recording, "twilio-recording-call"),
    *_door("twilio/recording/voicemail", twilio.voicemail_recording, "twilio-recording-voicemail"),
    *_door("vapi", vapi.message, "vapi-message"),
]
