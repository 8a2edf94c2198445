"""Every door but the sockets; `asgi.py` has those."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = [
    path("webhook/", include("calls.webhooks.urls")),
    path("admin/", admin.site.urls),
    path("", include("calls.console.urls")),
]
