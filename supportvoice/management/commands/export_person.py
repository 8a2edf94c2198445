"""`export_person`: everything we hold on whoever called from a number."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from calls import person
from calls.person import NotAPerson
from supportvoice.management import exported


class Command(BaseCommand):
    help = "Prints everything that is held on whoever called from a phone number, one JSON object a call."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("number", help="with + and country code, like +15550100199")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            number = person.normalised(options["number"])
        except NotAPerson as wrong:
            raise CommandError(str(wrong), returncode=2) from None
        exported.tell(f"person {person.mark(number)}")
        for line in person.handed_over(number):
            self.stdout.write(line, ending="")
