"""The stored messages of the vendors, as they came but for what may not be shown: the last word when a page and a vendor disagree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse

from agents.trail import Who
from calls import roles
from calls.console import paging, watched
from calls.console.doors import console_page, page
from calls.console.masked import masked, pretty
from calls.console.rows import calls, messages
from calls.console.shown import Item, stamp
from calls.console.viewer import viewer_of
from calls.models import InboxMessage, Source

LONGEST_SHOWN = 200_000  # characters on the page; the whole is one click away
KINDS_OFFERED = 50
STATES: Mapping[str, tuple[str, Q]] = {
    "": ("All", Q()),
    "waiting": ("Waiting", Q(processed_at=None)),
    "problem": ("With a problem", ~Q(problem="")),
    "done": ("Processed", Q(processed_at__isnull=False, problem="")),
}


def size_words(characters: int) -> str:
    """A size as people say it; of text, so a kilobyte is a thousand."""
    return f"{characters} B" if characters < 1000 else f"{characters / 1000:.1f} kB" if characters < 1e6 else f"{characters / 1e6:.1f} MB"


def row(message: InboxMessage) -> Item:
    """A message as one row of a list."""
    tone, state = ("wait", "Waiting") if message.processed_at is None else ("bad", "Problem") if message.problem else ("good", "Processed")
    return Item(
        id=f"message-{message.pk}",
        order=(-message.pk,),
        href=reverse("console:message", args=[message.pk]),
        data={"tone": tone},
        slots={
            "kind": message.kind,
            "source": message.get_source_display(),
            "received": stamp(message.received_at),
            "processed": stamp(message.processed_at),
            "size": size_words(getattr(message, "size", None) or 0),
            "state": state,
            "problem": message.problem,
            "vapi_id": message.vapi_call_id,
            "call": message.call.short_id if message.call else "",
            "again_door": reverse("console:message-again", args=[message.pk]) if message.source == Source.VAPI else "",
        },
    )


@console_page(roles.READ_WORDS)
def of_call(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """Every stored message of one call, newest first."""
    call = get_object_or_404(calls(viewer_of(request.user).sight).filter(public_id=public_id))
    return _list(request, Q(call=call), {"call": call})


@console_page(roles.READ_WORDS)
def of_nobody(request: HttpRequest) -> HttpResponse:
    """Messages that belong to no call: they wait for one, or are a stranger's. They are no team's."""
    if not viewer_of(request.user).of_no_team:
        raise Http404
    return _list(request, Q(call=None), {})


def _list(request: HttpRequest, whose: Q, context: Mapping[str, Any]) -> HttpResponse:
    state = request.GET.get("state", "") if request.GET.get("state", "") in STATES else ""
    kinds = list(InboxMessage.objects.filter(whose).order_by("kind").values_list("kind", flat=True).distinct()[:KINDS_OFFERED])
    kind = request.GET.get("kind", "") if request.GET.get("kind", "") in kinds else ""
    own = messages(viewer_of(request.user).sight)
    found = paging.page_of(own.filter(whose, STATES[state][1], Q(kind=kind) if kind else Q()), request.GET)
    shown = {
        "page": found,
        "rows": [row(message) for message in found.rows],
        "states": [(words, _address(kind=kind, state=key), key == state) for key, (words, _) in STATES.items()],
        "kinds": [(name or "every kind", _address(kind=name, state=state), name == kind) for name in ["", *kinds]],
        "narrowed": bool(state or kind),
    }
    return page(request, "messages.html", here="calls" if context else "messages", context={**context, **shown})


def _address(**asked: str) -> str:
    return "?" + urlencode({name: value for name, value in asked.items() if value})


@console_page(roles.READ_WORDS)
@watched.refused_untold
def one(request: HttpRequest, pk: int) -> HttpResponse:
    """One message, opened."""
    message = _message(request, pk)
    text = pretty(masked(message.body))
    context = {
        "item": row(message),
        "call": message.call,
        "pk": pk,
        "text": text[:LONGEST_SHOWN],
        "left_out": max(len(text) - LONGEST_SHOWN, 0),
    }
    return page(request, "message.html", here="messages", context=context)


@console_page(roles.READ_WORDS)
@watched.refused_untold
def whole(request: HttpRequest, pk: int) -> HttpResponse:
    """One message as a file, masked as on its page."""
    answer = HttpResponse(pretty(masked(_message(request, pk).body)), content_type="application/json")
    answer.headers["Content-Disposition"] = f'attachment; filename="message-{pk}.json"'
    return answer


def _message(request: HttpRequest, pk: int) -> InboxMessage:
    """With its body, and told to the trail. Raises NotTold."""
    message = get_object_or_404(messages(viewer_of(request.user).sight).defer(None), pk=pk)
    watched.message_read(Who.asking(request), message)
    return message
