"""`serve`: HTTP and WebSocket on one port, a parent and N children."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import uuid
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError
from django.db import connections
from django.utils import timezone

from agents import services
from agents.tasks import premake_version
from calls import first_aid, leases, numbers, patience, publisher, standing_still, twilio_account
from supportvoice.checks import problems
from supportvoice.embedded import EmbeddedAway, Hold
from supportvoice.lifeline import is_gone
from supportvoice.memory import MIB
from supportvoice.parent import Parent, listen

log = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Serves webhooks, calls and pages: a parent and N children on one port, with our limits and a stop that waits for calls."
    requires_system_checks = ()  # they import everything, which the children do anyway; what must not run is refused below

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
        parser.add_argument("--port", type=int, default=settings.PORT, help="port to listen on (PORT)")
        parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="serving processes (one per core)")
        parser.add_argument("--role", choices=("all", "media", "web"), default=settings.SERVE_ROLE, help="which doors to serve (all)")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["workers"] < 1:
            raise CommandError("--workers must be 1 or more.", returncode=2)
        if found := list(problems()):
            raise CommandError("\n".join(found), returncode=2)
        with contextlib.ExitStack() as held:
            try:
                listening = held.enter_context(listen(options["host"], options["port"]))
                threading.Thread(target=give_first_aid, name="first-aid", daemon=True).start()  # who is asked to wait comes here
                if settings.REDIS_EMBEDDED:
                    held.enter_context(Hold(settings.REDIS_SOCKET))
            except EmbeddedAway as away:
                raise CommandError(str(away), returncode=2) from None
            except OSError as error:
                raise CommandError(f"Cannot listen on {options['host']}:{options['port']}: {error.strerror}.", returncode=2) from None
            host, port = listening.getsockname()[:2]

            def ready() -> None:
                self.stdout.write(f"Serving on http://{host}:{port} with {options['workers']} processes (role {options['role']}).")
                self.stdout.flush()
                threading.Thread(target=numbers.say_at_start, name="numbers", daemon=True).start()  # nobody waits for Twilio

            make_first_line()
            parent = Parent(
                *(listening, options["workers"], options["role"], settings.BASE_DIR, ready, bury, give_away, mark),
                memory_limit=settings.MEMORY_LIMIT_MIB * MIB,
            )
            code = asyncio.run(self._serve(parent))
        if code:
            raise SystemExit(code)

    async def _serve(self, parent: Parent) -> int:
        return await parent.run()


def give_first_aid() -> None:
    """To the callers of a `serve` that died here before this one; ours are there in seconds."""
    first_aid.give(twilio=twilio_account.client(), is_gone=is_gone)


def bury(boot: uuid.UUID) -> None:
    """A child is dead: whoever looks after its calls need not wait. Without a database they find out by themselves."""
    try:
        with patience.of(patience.ELSEWHERE_S):
            leases.died(boot=boot, at=timezone.now())
    except DatabaseError as problem:
        log.warning("the death of a serving process could not be told", extra={"problem": type(problem).__name__})
    finally:
        connections.close_all()


def give_away(boot: uuid.UUID) -> None:
    """A child stands still: whoever looks after its calls need not wait. Raises what the database raises."""
    try:
        with patience.of(patience.ELSEWHERE_S):  # nobody awaits the thread for longer, and there are only so many
            leases.frozen(boot=boot, at=timezone.now())
    finally:
        connections.close_all()


def mark(place: str, stands_still: bool) -> None:
    """A child stands still, or no longer: for those who cannot ask the database."""
    (standing_still.begins if stands_still else standing_still.ends)(place)


def make_first_line() -> None:
    """A fresh installation that knows its number answers it: with the seeded agent, if there is no line yet.

    A database that does not answer is no reason not to serve.
    """
    if not settings.TWILIO_PHONE_NUMBER:
        return
    try:
        version = services.ensure_first_line(number=settings.TWILIO_PHONE_NUMBER, at=timezone.now())
    except DatabaseError as problem:
        log.warning("the first line could not be looked for", extra={"problem": type(problem).__name__})
        return
    finally:
        connections.close_all()
    if version is not None:
        publisher.task(premake_version, version.pk)
