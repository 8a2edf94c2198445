"""`add_user`: a log-in with a role."""

from __future__ import annotations

import os
import sys
from getpass import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from calls import people, roles

PASSWORD = "DJANGO_SUPERUSER_PASSWORD"  # noqa: S105  # the name of Django's own variable, of createsuperuser


class Command(BaseCommand):
    help = "Adds a log-in with a role. The very first admin is made by createsuperuser."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what they log in with")
        parser.add_argument("--role", required=True, choices=list(roles.ROLES), help="what they may see and do")
        parser.add_argument("--team", metavar="SLUG", default="", help="they see what belongs to this team, and nothing of others")

    def handle(self, *args: Any, **options: Any) -> None:
        name, role = options["name"], options["role"]
        try:
            people.check_name(name)
            team = people.team_of(options["team"])
            people.add(name=name, role=role, team=team, password=_password(), at=timezone.now())
        except people.NotAdded as why:
            raise CommandError(str(why), returncode=2) from None
        self.stdout.write(f"{name} can log in now, as {role}{f' of {team}' if team else ''}.")


def _password() -> str:
    """From the environment, else asked for twice. Raises NotAdded."""
    given = os.environ.get(PASSWORD)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise people.NotAdded(f"Give the password in {PASSWORD}, or run this in a terminal to be asked for it.")
    typed = getpass("Password: ")
    if typed != getpass("Password again: "):
        raise people.NotAdded("The two passwords were not the same.")
    return typed
