"""In whose time the desk says when: the console's script leaves the name of its browser's zone in a cookie, UTC without one.

The console's own pages come in UTC and are put into the viewer's time in the browser.
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from calls.console.search import zone_named

COOKIE = "zone"


class ViewersZone:
    """Renders a page in the time of who looks at it. The cookie is anybody's word: what names no zone is none."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        zone = zone_named(request.COOKIES.get(COOKIE, ""))
        if zone is None:
            return self.get_response(request)
        with timezone.override(zone):
            return self.get_response(request)
