"""Every door but the sockets; `asgi.py` has those, and asks for health before it asks here."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, include, path
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django.views.defaults import permission_denied

from supportvoice.duty import the_duty

handler403 = never_cache(permission_denied)  # a role may be given any time


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    return _said(*the_duty().healthz())


@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    return _said(*the_duty().readyz())


def _said(status: int, sentence: str) -> HttpResponse:
    return HttpResponse(f"{sentence}\n", status=status, content_type="text/plain; charset=utf-8")


urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("webhook/", include("calls.webhooks.urls")),
    path("admin/", admin.site.urls),
    path("", include("calls.console.urls")),
]
