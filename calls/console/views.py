"""The window: pages that show calls and change nothing."""

from __future__ import annotations

from functools import wraps
from typing import Any, Protocol
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from calls.console import shown
from calls.console.reader import FILTERS, CallReader, LiveReader, calls
from calls.models import CallSession

PER_PAGE = 50


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


@console_page
def live(request: HttpRequest) -> HttpResponse:
    """What is going on: the calls that are on now, and how the last day went."""
    return render(request, "console/live.html", {"news": LiveReader().read(), "here": "live"})


@console_page
def call_list(request: HttpRequest) -> HttpResponse:
    """Every call, newest first; `?status=` narrows it, `?page=` turns the page."""
    asked = request.GET.get("status", "")
    status = asked if asked in FILTERS else ""
    label, condition = FILTERS[status]
    page = Paginator(calls().filter(condition).listed(), PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "here": "calls",
        "page": page,
        "rows": [shown.row(call) for call in page],
        "filters": [(key, words, key == status) for key, (words, _) in FILTERS.items()],
        "status": status,
        "label": label,
        "unknown_status": asked if asked != status else "",
    }
    return render(request, "console/calls.html", context)


@console_page
def call(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """One call, live or over: what was said beside what happened."""
    reader = CallReader(public_id)
    news = reader.read()
    if news is None:
        raise Http404("There is no such call.")
    context = {"news": news, "public_id": public_id, "short_id": CallSession(public_id=public_id).short_id, "here": "calls"}
    return render(request, "console/call.html", context)
