"""How every vendor's door says no: one plain sentence that repeats nothing of the request."""

from __future__ import annotations

from django.http import HttpResponse


def refusal(sentence: str, status: int) -> HttpResponse:
    return HttpResponse(f"{sentence}\n", status=status, content_type="text/plain; charset=utf-8")
