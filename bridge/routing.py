"""The WebSocket paths of the bridge. `/x` and `/x/` are different routes to Twilio: both are here."""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, path

MEDIA_PATH = "webhook/twilio/media"


def media_urlpatterns(consumer: Any) -> list[URLPattern]:
    return [path(MEDIA_PATH, consumer), path(f"{MEDIA_PATH}/", consumer)]
