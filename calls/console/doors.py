"""Who may come in, and how: the two kinds of doors a browser finds here, and how a page is put together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any, Protocol

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from calls.console.rows import TOLD_AT_MOST, callbacks_to_do


class View(Protocol):
    def __call__(self, request: HttpRequest, /, *args: Any, **kwargs: Any) -> HttpResponse: ...


def console_page(view: View) -> View:
    """For people who are logged in; read only; kept by no cache, for callers' words are on it."""

    @never_cache
    @require_safe
    @login_required
    @wraps(view)
    def page(request: HttpRequest, /, *args: Any, **kwargs: Any) -> HttpResponse:
        return view(request, *args, **kwargs)

    return page


def console_change(view: View) -> View:
    """For people who are logged in; changes something, so by POST alone and with the token of a form of ours."""

    @never_cache
    @require_POST
    @login_required
    @wraps(view)
    def change(request: HttpRequest, /, *args: Any, **kwargs: Any) -> HttpResponse:
        return view(request, *args, **kwargs)

    return change


def page(request: HttpRequest, template: str, *, here: str, context: Mapping[str, Any]) -> HttpResponse:
    """A page with the way around on top. `here` is the entry it belongs to."""
    to_do = callbacks_to_do()
    count = f"{TOLD_AT_MOST}+" if to_do > TOLD_AT_MOST else str(to_do) if to_do else ""
    return render(request, f"console/{template}", {**context, "here": here, "to_call_back": count})
