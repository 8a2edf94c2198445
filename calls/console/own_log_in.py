"""The page where people give their own log-in a second factor, or take it away again."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from agents import trail, visitor
from calls import brakes, second_factor
from calls.console.doors import page
from calls.console.log_in import WRONG_CODE, in_words, knocker, too_many
from calls.models import SecondFactor


@sensitive_post_parameters("code")
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def second_factor_page(request: HttpRequest) -> HttpResponse:
    """Shows where it stands; a POST with `do` prepares, confirms or removes the factor."""
    user = cast(User, request.user)
    factor = SecondFactor.objects.filter(user=user).first()
    if request.method != "POST":
        return _show(request, factor)
    if factor is None:
        second_factor.prepare(user=user)
        return redirect("console:second-factor")
    who, now = knocker(request, user.get_username()), timezone.now()
    try:
        brakes.pay(who, at=now)
    except brakes.TooManyTries as refused:
        answer = _show(request, factor, problem=f"Too many tries. Try again in {in_words(refused.pause)}.")
        return too_many(answer, refused.pause)
    with transaction.atomic():
        done = _do(request.POST.get("do", ""), factor, request.POST.get("code", ""), now)
        if done:
            action = "second-factor-removed" if request.POST["do"] == "remove" else "second-factor-added"
            trail.record(action, actor=user.username, subject=f"user {user.username}", address=visitor.of(request), at=now)
    if not done:
        return _show(request, factor, problem=WRONG_CODE)
    brakes.give_back(who)
    messages.success(request, done)
    return redirect("console:second-factor")


def _do(what: str, factor: SecondFactor, code: str, at: datetime) -> str:
    """What was done, as a sentence; empty when the code was not right."""
    if what == "confirm" and second_factor.confirm(factor, code, at=at):
        return "From now on your log-in asks for a code of the app."
    if what == "remove" and second_factor.remove(factor, code, at=at):
        return "Your log-in asks for no code any more."
    return ""


def _show(request: HttpRequest, factor: SecondFactor | None, problem: str = "") -> HttpResponse:
    context = {"factor": factor, "problem": problem}
    if factor is not None and factor.confirmed_at is None and (secret := second_factor.secret_of(factor)):
        groups = " ".join(secret[at : at + 4] for at in range(0, len(secret), 4))
        context |= {"secret": groups, "picture": second_factor.picture(secret=secret, name=request.user.get_username())}
    return page(request, "second_factor.html", here="second-factor", context=context)
