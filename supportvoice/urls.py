"""Every door but the sockets; `asgi.py` has those."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.decorators.cache import never_cache
from django.views.defaults import permission_denied

handler403 = never_cache(permission_denied)  # a role may be given any time

urlpatterns: list[URLPattern | URLResolver] = [
    path("webhook/", include("calls.webhooks.urls")),
    path("admin/", admin.site.urls),
    path("", include("calls.console.urls")),
]
