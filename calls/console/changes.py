"""What people may change from the window: who calls back, that a call back was made, that a message is processed again."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone

from agents import trail
from agents.trail import Who
from calls import callbacks, inbox, roles
from calls.console import rows, watched
from calls.console.doors import console_change
from calls.console.viewer import viewer_of
from calls.models import InboxMessage

NOTE_CHARS = 500


@console_change(roles.STEP_IN)
def callback_done(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """The caller was called back. The first one to say so is kept; leads back to where the button was."""
    asked = get_object_or_404(rows.callbacks(viewer_of(request.user).sight), call__public_id=public_id)
    note = "".join(sign if sign.isprintable() else " " for sign in request.POST.get("note", "")).strip()[:NOTE_CHARS]
    with transaction.atomic():
        is_first = callbacks.done(pk=asked.pk, by=request.user.get_username(), note=note, at=timezone.now())
        if is_first:
            _tell(request, "called-back", asked.call.short_id)
    if is_first:
        messages.success(request, "Marked as called back.")
    else:
        asked.refresh_from_db()
        messages.warning(request, f"{asked.done_by or 'Somebody'} was faster: this call back was marked as done already.")
    to_list = request.POST.get("back") == "list"
    return HttpResponseRedirect(reverse("console:callbacks") if to_list else reverse("console:call", args=[public_id]))


@console_change(roles.STEP_IN)
def callback_claimed(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """Who pressed the button calls back; the first one to do so is kept."""
    asked = get_object_or_404(rows.callbacks(viewer_of(request.user).sight), call__public_id=public_id)
    with transaction.atomic():
        is_first = callbacks.claim(pk=asked.pk, by=request.user.get_username(), at=timezone.now())
        if is_first:
            _tell(request, "call-back-claimed", asked.call.short_id)
    if is_first:
        messages.success(request, "This call back is yours.")
    else:
        asked.refresh_from_db()
        messages.warning(request, f"{asked.claimed_by or asked.done_by or 'Somebody'} was faster: it is taken already.")
    return HttpResponseRedirect(reverse("console:callbacks"))


@console_change(roles.STEP_IN)
def message_again(request: HttpRequest, pk: int) -> HttpResponse:
    """Process a stored message once more; what it tells is kept once however often it is told."""
    asked = get_object_or_404(rows.messages(viewer_of(request.user).sight), pk=pk)
    _tell(request, "processed-again", watched.named(asked))
    done = inbox.again(pk, timezone.now())
    message = InboxMessage.objects.defer("body").get(pk=pk)
    if message.problem:
        messages.warning(request, "Processed again, with a problem.")
    elif done:
        messages.success(request, "Processed again.")
    else:
        messages.warning(request, "It cannot be processed yet: the call it belongs to is not known. It is tried again by itself.")
    return HttpResponseRedirect(reverse("console:message", args=[pk]))


def _tell(request: HttpRequest, action: str, subject: str) -> None:
    who = Who.asking(request)
    trail.record(action, actor=who.actor, address=who.address, subject=subject, at=timezone.now())
