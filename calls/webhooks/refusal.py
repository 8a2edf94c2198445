"""How every vendor's door says no: one plain sentence that repeats nothing of the request."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse


def refusal(sentence: str, status: int) -> HttpResponse:
    return HttpResponse(f"{sentence}\n", status=status, content_type="text/plain; charset=utf-8")


def only_posted(door: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Every vendor's door is one for POST."""

    @wraps(door)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method == "POST":
            return door(request, *args, **kwargs)
        refused = refusal("This door takes POST.", 405)
        refused.headers["Allow"] = "POST"
        return refused

    return answer
