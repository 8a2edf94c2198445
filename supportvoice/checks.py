"""What must not run: production with placeholders, without proofs, or over lines that anybody can read.

The same list speaks through `manage.py check`, `serve`, the worker and every ASGI server.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

SHORTEST_KEY = 32  # characters
PLACEHOLDERS = {"change-me", "changeme", "secret", "password", "placeholder", "example", "test", "todo", "xxx", "your-key-here"}
PLACEHOLDER_STARTS = ("laptop-only", "django-insecure", "sandbox-", "change-me", "changeme", "your-", "<")


def problems() -> Iterator[str]:
    """One sentence for each reason why these settings may not serve calls. None with DEBUG=1."""
    if settings.DEBUG:
        return
    yield from _secrets()
    yield from _proxies()
    if not settings.ALLOWED_HOSTS or "*" in settings.ALLOWED_HOSTS:
        yield "ALLOWED_HOSTS must name the hosts people use."
    if settings.TOOL_ALLOWED_PRIVATE:
        yield "TOOL_ALLOWED_PRIVATE is for the demo; with DEBUG=0 tools may not call private addresses."
    if not settings.ALLOW_INSECURE:
        backup = ["VAPI_BACKUP_BASE_URL"] if settings.VAPI_BACKUP_API_KEY else []
        for name in ("PUBLIC_URL", "VAPI_BASE_URL", *backup, "TWILIO_BASE_URL"):
            if not getattr(settings, name).startswith("https://"):
                yield f"{name} must be https:// (ALLOW_INSECURE=1 tries production settings on one machine)."


def _secrets() -> Iterator[str]:
    try:
        key = settings.SECRET_KEY
    except ImproperlyConfigured:
        key = ""
    if len(key) < SHORTEST_KEY or _is_placeholder(key):
        yield f"SECRET_KEY must be a random text of {SHORTEST_KEY} characters or more, and no placeholder."
    if any(len(former) < SHORTEST_KEY or _is_placeholder(former) for former in settings.SECRET_KEY_FALLBACKS):
        yield f"SECRET_KEY_FALLBACKS must hold former keys of {SHORTEST_KEY} characters or more, and no placeholder."
    needed: dict[str, list[str]] = {
        "VAPI_API_KEY": [settings.VAPI_API_KEY],
        "VAPI_WEBHOOK_SECRET": settings.VAPI_WEBHOOK_SECRETS,
        "TWILIO_ACCOUNT_SID": [settings.TWILIO_ACCOUNT_SID],
        "TWILIO_AUTH_TOKEN": settings.TWILIO_AUTH_TOKENS,
    }
    for name, values in needed.items():
        if not any(values):
            yield f"{name} is missing."
        elif any(_is_placeholder(value) for value in values):
            yield f"{name} is still a placeholder."
    if settings.VAPI_BACKUP_API_KEY and _is_placeholder(settings.VAPI_BACKUP_API_KEY):
        yield "VAPI_BACKUP_API_KEY is still a placeholder."
    if settings.VAPI_BACKUP_API_KEY and settings.VAPI_BACKUP_API_KEY == settings.VAPI_API_KEY and _same_server():
        yield "VAPI_BACKUP_API_KEY must be another key than VAPI_API_KEY: what happens to one would happen to both."
    if settings.TOOL_SIGNING_SECRET and _is_placeholder(settings.TOOL_SIGNING_SECRET):
        yield "TOOL_SIGNING_SECRET is still a placeholder."


def _same_server() -> bool:
    return bool(settings.VAPI_BACKUP_BASE_URL == settings.VAPI_BASE_URL)


def _proxies() -> Iterator[str]:
    for proxy in settings.TRUSTED_PROXIES:
        try:
            ip_network(proxy, strict=False)
        except ValueError:
            yield "TRUSTED_PROXIES must be addresses or networks, like 10.0.0.7 or 10.0.0.0/8."


def _is_placeholder(value: str) -> bool:
    return value.lower() in PLACEHOLDERS or value.lower().startswith(PLACEHOLDER_STARTS)


@checks.register("supportvoice")
def check_settings(**kwargs: Any) -> list[checks.CheckMessage]:
    return [checks.Error(problem, id=f"supportvoice.E{number:03}") for number, problem in enumerate(problems(), 1)]


def refuse_unsafe() -> None:
    """For entrances that run no system checks: ends the process, with a line for each problem."""
    if found := list(problems()):
        print(*found, sep="\n", file=sys.__stderr__)  # beat has put its log in the place of sys.stderr
        raise SystemExit(2)
