"""The whole house on one ASGI application, for `serve` and for `daphne supportvoice.asgi:application` alike.

From the outside in: health, which role this process has, what a stranger may send, and only then our own code. The media
socket is proven by Twilio's signature and token, the browser's sockets by origin and session.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from typing import Any, cast

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.sessions import SessionMiddlewareStack
from django import setup
from django.urls import re_path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "supportvoice.settings")
setup(set_prefix=False)  # before anything that needs the models

from django.conf import settings  # noqa: E402
from django.db import Error as DatabaseError  # noqa: E402
from django.db import connections  # noqa: E402
from django.utils import timezone  # noqa: E402

from agents import account, lines  # noqa: E402
from bridge import stream_token  # noqa: E402
from bridge.audio import load_clips  # noqa: E402
from bridge.consumers import MediaStreamConsumer  # noqa: E402
from bridge.routing import media_urlpatterns  # noqa: E402
from bridge.twilio_http import TwilioProof  # noqa: E402
from bridge.vapi_link import VapiConversations  # noqa: E402
from calls import by_heart, missed_sweep, patience, said_before, twilio_account  # noqa: E402
from calls.carriers import the_machine  # noqa: E402
from calls.console.routing import websocket_urlpatterns  # noqa: E402
from calls.ledger import DatabaseLedger  # noqa: E402
from calls.lifeguard import Lifeguard  # noqa: E402
from calls.rescue import the_life  # noqa: E402
from calls.storing import the_keeper  # noqa: E402
from supportvoice.checks import refuse_unsafe  # noqa: E402
from supportvoice.duty import the_duty  # noqa: E402
from supportvoice.lifeline import is_gone, place  # noqa: E402
from supportvoice.limits import REPORT_LIMIT, BodyLimits, behind_tls, no_browsers, no_such_socket, only_role  # noqa: E402
from supportvoice.threads import OneHop, lent_threads  # noqa: E402

log = logging.getLogger(__name__)
LOOK_AFTER_S = 10.0
refuse_unsafe()
patience.serving()
duty = the_duty()
life = the_life()
the_machine().is_gone = is_gone

ledger = DatabaseLedger(
    token_key=stream_token.key_from(settings.SECRET_KEY),
    former_keys=[stream_token.key_from(former) for former in settings.SECRET_KEY_FALLBACKS],
    client=account.client(),
    backup=account.client(account.BACKUP) if account.has_backup() else None,
    boot=lambda: life.boot,
    place=place(),
    left=life.left,
)
_media: Any = MediaStreamConsumer.as_asgi(
    ledger=ledger,
    conversations=VapiConversations(keys=account.keys()),
    proof=TwilioProof(public_url=settings.PUBLIC_URL, tokens=settings.TWILIO_AUTH_TOKENS),
    clips=load_clips(settings.BASE_DIR / "bridge" / "clips"),
    carried=duty.carried,
    parking=duty.parking,
)
_for_browsers: list[Any] = [*websocket_urlpatterns, re_path("", cast(Any, no_such_socket))]
_browser: Any = AllowedHostsOriginValidator(SessionMiddlewareStack(URLRouter(_for_browsers)))
_for_everybody: list[Any] = [*media_urlpatterns(no_browsers(duty.streams_counted(_media))), re_path("", _browser)]
_sockets: Any = URLRouter(_for_everybody)
_answering: Any = lent_threads(cast(Any, OneHop()))
if settings.BEHIND_TLS:
    _answering = behind_tls(_answering)
_requests: Any = BodyLimits(_answering, wide={"/webhook/vapi": REPORT_LIMIT, "/webhook/vapi/": REPORT_LIMIT})
_doors: Any = ProtocolTypeRouter({"http": _requests, "websocket": duty.no_sockets_when_leaving(_sockets)})

application = duty.health(only_role(settings.SERVE_ROLE, _doors))


def lifeguard(boot: uuid.UUID) -> Lifeguard:
    """Who renews this process's lease and looks after others."""
    well, twilio = duty.watchdog.is_well, twilio_account.client
    return Lifeguard(life, boot=boot, is_well=well, twilio=twilio, place=place(), is_gone=is_gone)


def remember_lines() -> None:
    """Know every line before the first call, in case the database is lost by then. If it is away now, there is nothing to know."""
    try:
        lines.warm()
    except DatabaseError as problem:
        log.warning("the lines could not be remembered", extra={"problem": type(problem).__name__})
    finally:
        connections.close_all()


def look_after(stopped: threading.Event) -> None:
    """Beside the calls, for as long as the process lives: know the lines, store what dead processes kept, sweep when nobody does."""
    pause = 1.0
    while True:
        remember_lines()
        try:
            the_keeper().adopt()
            by_heart.forget_old(now=time.time())
            said_before.forget_over()
            missed_sweep.sweep_if_nobody_does(now=timezone.now())
            pause = LOOK_AFTER_S
        except Exception as problem:  # whatever it is, there is a next time
            log.warning("the spool and the sweep were not looked after", extra={"problem": type(problem).__name__})
        finally:
            connections.close_all()
        if stopped.wait(pause):
            return
