"""The one way in, for the console and the admin alike: a name and a password, then a code if the user has set one up.

Every try is paid for (`calls.brakes`) before it is looked at, a password and a code alike, and none says whether the name
exists. What Django tells of a log-in is told here as well: its signals `user_logged_in` and `user_login_failed` (also for a
wrong code) come with the request, whose address `agents.visitor` knows.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.contrib.auth.views import LoginView, RedirectURLMixin
from django.core import signing
from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render, resolve_url
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.decorators import method_decorator
from django.utils.http import urlencode
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from agents import trail, visitor
from agents.trail import Who
from calls import brakes, second_factor
from calls.console.session import BEGAN

HALF_WAY, CODE_WITHIN = "half_way", timedelta(minutes=5)
BROWSER, BROWSER_FOR = "known_browser", timedelta(days=180)
WRONG_CODE = "That code is not right, or was used before. Wait for the next one and try again."


class BrakedForm(AuthenticationForm):
    """Django's own form, behind the brakes. `pause`: how long nothing more is looked at."""

    pause: timedelta | None = None

    def clean(self) -> dict[str, Any]:
        name, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if name is not None and password and self.request is not None:
            try:
                brakes.pay(knocker(self.request, name), at=timezone.now())
            except brakes.TooManyTries as refused:
                self.pause = refused.pause
                raise forms.ValidationError("Too many tries.") from None
        return super().clean()


class LogIn(LoginView):
    """Name and password."""

    template_name = "console/login.html"
    authentication_form = BrakedForm
    redirect_authenticated_user = True

    def get_redirect_url(self, request: HttpRequest | None = None) -> str:
        """Nobody is led from here to here."""
        to = super().get_redirect_url()
        return "" if to.startswith(self.request.path) else to

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        user = form.get_user()
        if second_factor.of(user) is None:
            return come_in(self.request, user, to=self.get_success_url())
        self.request.session.cycle_key()
        self.request.session[HALF_WAY] = {
            "user": user.pk,
            "vouched": user.get_session_auth_hash(),
            "backend": user.backend,
            "until": (timezone.now() + CODE_WITHIN).timestamp(),
        }
        return redirect(f"{resolve_url('console:log-in-code')}?{urlencode({'next': self.get_redirect_url()})}")

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        pause = getattr(form, "pause", None)
        if pause is not None:
            tell_locked_out(self.request, form.cleaned_data.get("username", ""))
        answer = self.render_to_response(self.get_context_data(form=form, pause=pause and in_words(pause)))
        return answer if pause is None else too_many(answer, pause)


@method_decorator([sensitive_post_parameters("code"), never_cache], name="dispatch")
class LogInCode(RedirectURLMixin, View):
    """The code, for somebody whose password was right a moment ago."""

    next_page = settings.LOGIN_REDIRECT_URL
    http_method_names = ("get", "head", "options", "post")

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._ask(request) if half_way(request) else redirect("console:login")

    def post(self, request: HttpRequest) -> HttpResponse:
        user = half_way(request)
        factor = second_factor.of(user) if user else None
        if user is None or factor is None:
            return redirect("console:login")
        try:
            brakes.pay(knocker(request, user.get_username()), at=timezone.now())
        except brakes.TooManyTries as refused:
            tell_locked_out(request, user.get_username())
            return too_many(self._ask(request, problem=f"Too many tries. Try again in {in_words(refused.pause)}."), refused.pause)
        if second_factor.take(factor, request.POST.get("code", ""), at=timezone.now()):
            user.backend = request.session.pop(HALF_WAY)["backend"]
            return come_in(request, user, to=self.get_success_url())
        user_login_failed.send(sender=__name__, credentials={"username": user.get_username()}, request=request)
        return self._ask(request, problem=WRONG_CODE)

    def _ask(self, request: HttpRequest, problem: str = "") -> HttpResponse:
        return render(request, "console/login_code.html", {"problem": problem, "next": self.get_redirect_url()})


def come_in(request: HttpRequest, user: User, *, to: str) -> HttpResponse:
    """Everything was right: another session key, no tries held against this browser, and a mark by which it is known again."""
    brakes.give_back(knocker(request, user.get_username()))
    login(request, user)
    request.session[BEGAN] = timezone.now().timestamp()
    answer = HttpResponseRedirect(to)
    answer.set_cookie(
        BROWSER,
        signing.dumps([brakes.plain(user.get_username()), secrets.token_urlsafe(16)], salt=BROWSER),
        max_age=BROWSER_FOR,
        secure=bool(settings.SESSION_COOKIE_SECURE),
        httponly=True,
        samesite="Lax",
    )
    return answer


def knocker(request: HttpRequest, name: str) -> brakes.Knocker:
    """Who tries to log in, by name, address, and the mark this browser got when it was last in that account."""
    device = ""
    try:
        known, mark = signing.loads(request.COOKIES.get(BROWSER, ""), salt=BROWSER, max_age=BROWSER_FOR)
        device = mark if known == brakes.plain(name) else ""
    except (signing.BadSignature, ValueError, TypeError):
        pass
    return brakes.Knocker(name, visitor.of(request), device)


def half_way(request: HttpRequest) -> User | None:
    """Whose password was right, if that was a moment ago and nothing has changed since."""
    state = request.session.get(HALF_WAY)
    if not state or timezone.now().timestamp() > state["until"]:
        return None
    user = User.objects.filter(pk=state["user"], is_active=True).first()
    return user if user and constant_time_compare(user.get_session_auth_hash(), state["vouched"]) else None


def tell_locked_out(request: HttpRequest, name: str) -> None:
    """The trail, once in a while, that somebody is not listened to. A name that nobody has is not kept: people type passwords there."""
    known = name.isprintable() and User.objects.filter(username=name).exists()
    who = Who(address=visitor.of(request))
    with suppress(DatabaseError):  # who is locked out stays so
        trail.seen("locked-out", who=who, subject=f"user {name}" if known else "", at=timezone.now())


def too_many(answer: HttpResponse, pause: timedelta) -> HttpResponse:
    answer.status_code = 429
    answer.headers["Retry-After"] = str(max(1, round(pause.total_seconds())))
    return answer


def in_words(pause: timedelta) -> str:
    """Rounded up: whoever comes back then gets a try."""
    minutes = -(-pause // timedelta(minutes=1))
    if minutes < 120:
        return "a minute" if minutes <= 1 else f"{minutes} minutes"
    return f"{-(-minutes // 60)} hours"
