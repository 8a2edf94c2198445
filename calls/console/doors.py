"""Who may come in, and how: the two kinds of doors a browser finds here, and how a page is put together.

Every door names the permission it needs (`calls.roles`); there is no other way to make one. Who has it not gets one sentence
and 403, and who is not logged in is asked to. Whose calls are behind the door, the viewer says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Protocol

from django.contrib.auth.decorators import login_required, permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from calls.console.rows import TOLD_AT_MOST, callbacks_to_do
from calls.console.viewer import viewer_of


class View(Protocol):
    def __call__(self, request: HttpRequest, /, *args: Any, **kwargs: Any) -> HttpResponse: ...


def console_page(needs: str) -> Callable[[View], View]:
    """For people with this permission; read only; kept by no cache, for callers' words are on it."""

    def door(view: View) -> View:
        @never_cache
        @require_safe
        @login_required
        @permission_required(needs, raise_exception=True)
        @wraps(view)
        def page(request: HttpRequest, /, *args: Any, **kwargs: Any) -> HttpResponse:
            return view(request, *args, **kwargs)

        return page

    return door


def console_change(needs: str) -> Callable[[View], View]:
    """For people with this permission; changes something, so by POST alone and with the token of a form of ours."""

    def door(view: View) -> View:
        @never_cache
        @require_POST
        @login_required
        @permission_required(needs, raise_exception=True)
        @wraps(view)
        def change(request: HttpRequest, /, *args: Any, **kwargs: Any) -> HttpResponse:
            return view(request, *args, **kwargs)

        return change

    return door


def page(request: HttpRequest, template: str, *, here: str, context: Mapping[str, Any]) -> HttpResponse:
    """A page with the way around on top. `here` is the entry it belongs to."""
    viewer = viewer_of(request.user)
    to_do = callbacks_to_do(viewer.sight) if viewer.words else 0
    count = f"{TOLD_AT_MOST}+" if to_do > TOLD_AT_MOST else str(to_do) if to_do else ""
    return render(request, f"console/{template}", {**context, "here": here, "to_call_back": count, "viewer": viewer})
