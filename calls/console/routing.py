"""The window's live halves. The roof wraps them: allowed origins only, and the session of the page's cookie."""

from __future__ import annotations

from typing import Any, cast

from django.urls import path

from calls.console.live import CallSocket, LiveSocket

websocket_urlpatterns: list[Any] = [
    path("ws/console/live/", cast(Any, LiveSocket.as_asgi())),
    path("ws/console/calls/<uuid:public_id>/", cast(Any, CallSocket.as_asgi())),
]
