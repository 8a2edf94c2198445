"""How long a log-in lasts: eight hours without a page being asked for (SESSION_COOKIE_AGE), and a day whatever is asked for.

And who a session belongs to at this moment, for the sockets of open pages: they outlive the request that opened them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import Any, cast

from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY, logout
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import constant_time_compare

LONGEST = timedelta(days=1)
NOTED_EVERY = timedelta(minutes=5)  # so exactly is it known when a page was last asked for; each note is a write
BEGAN, NOTED = "began", "noted"


class LogInLimits:
    """Ends log-ins that have lasted too long, and notes that the others are in use. Who shows no session is not looked at."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.session.session_key and request.user.is_authenticated:
            now = timezone.now().timestamp()
            if is_too_old(request.session, now=now):
                logout(request)
            elif now - last_noted(request) > NOTED_EVERY.total_seconds():
                request.session[NOTED] = now
                request.session.setdefault(BEGAN, now)
        return self.get_response(request)


def last_noted(request: HttpRequest) -> float:
    """When it was last noted that this log-in is in use, in seconds since 1970; the log-in itself notes it in the user's row."""
    at = cast(User, request.user).last_login
    return float(request.session.get(NOTED, at.timestamp() if at else 0.0))


def is_too_old(session: Any, *, now: float) -> bool:
    """`session` is a session or its data, `now` seconds since 1970."""
    return bool(now - session.get(BEGAN, now) > LONGEST.total_seconds())


def user_of(session_key: str | None) -> User | None:
    """Who is logged in with this session, read anew; None once it has expired or was logged out, the password is another, or the
    user was deactivated.

    It only reads. Django's own look-up gives a session that an older SECRET_KEY vouches for a new key, which a socket cannot
    tell the browser; Channels' ends it.
    """
    if not session_key:
        return None
    data = import_module(settings.SESSION_ENGINE).SessionStore(session_key).load()
    if SESSION_KEY not in data or is_too_old(data, now=timezone.now().timestamp()):
        return None
    user = User.objects.filter(pk=data[SESSION_KEY], is_active=True).first()
    if user is None:
        return None
    vouched = (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())
    return user if any(constant_time_compare(data.get(HASH_SESSION_KEY, ""), one) for one in vouched) else None
