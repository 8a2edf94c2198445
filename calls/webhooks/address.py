"""At which address vendors knock: the public one, whatever a proxy between made of the Host header."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

DOORS = "/webhook/"


class AtThePublicAddress:
    """Before anything else asks for the host: who knocks at a vendor's door proves itself, and is refused for no name of a proxy's."""

    def __init__(self, answer: Callable[[HttpRequest], HttpResponse]) -> None:
        self._answer = answer

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(DOORS):
            request.get_host = lambda: str(settings.PUBLIC_HOST)  # type: ignore[method-assign]
        return self._answer(request)
