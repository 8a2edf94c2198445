"""Who came in, who did not, and who left, told to the trail: by Django's signals, which are sent whichever door was used."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest
from django.utils import timezone

from agents import trail


def came_in(*, request: HttpRequest | None, user: AbstractBaseUser, **_: Any) -> None:
    _tell("logged-in", request, actor=user.get_username(), subject=_named(user.get_username()))


def left(*, request: HttpRequest | None, user: AbstractBaseUser | None, **_: Any) -> None:
    if user is not None:
        _tell("logged-out", request, actor=user.get_username(), subject=_named(user.get_username()))


def failed(*, credentials: dict[str, Any], request: HttpRequest | None = None, **_: Any) -> None:
    """Who it was is not known. A name that nobody has is not kept: people type passwords there."""
    tried = credentials.get(get_user_model().USERNAME_FIELD) or ""
    _tell("log-in-failed", request, actor="", subject=_named(tried) if _exists(tried) else "")


def _tell(action: str, request: HttpRequest | None, *, actor: str, subject: str) -> None:
    trail.record(action, actor=actor, subject=subject, address=trail.Who.asking(request).address, at=timezone.now())


def _named(name: str) -> str:
    return f"user {name}"


def _exists(name: str) -> bool:
    users = get_user_model()
    return name.isprintable() and users._default_manager.filter(**{users.USERNAME_FIELD: name}).exists()


for _signal, _listener in ((user_logged_in, came_in), (user_login_failed, failed), (user_logged_out, left)):
    _signal.connect(_listener)
