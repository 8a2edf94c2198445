"""`erase`: a person's data gone, here and at both vendors."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError
from django.utils import timezone

from agents.trail import Who
from calls import erasure, person, vendor_accounts, vendor_erasures
from calls.console.people import counted
from calls.person import NotAPerson

PROBLEMS_SHOWN = 5


class Command(BaseCommand):
    help = (
        "Erases what was said by, and is known of, whoever called from a phone number: here, at Vapi and at Twilio. There is no way back."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("number", help="with + and country code, like +15550100199")
        parser.add_argument("--dry-run", action="store_true", help="say what would go, and erase nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            number = person.normalised(options["number"])
            if options["dry_run"]:
                held = person.held(number)
                counts = {"calls": held.calls, "lines": held.lines, "messages": held.messages, "recordings": held.recordings}
                self.stdout.write(f"Would go: {counted(counts)}. This was a dry run: nothing is erased.")
                return
            done = person.erase(number, by=Who.at_the_shell().actor, at=timezone.now())
        except NotAPerson as wrong:
            raise CommandError(str(wrong), returncode=2) from None
        except DatabaseError as problem:
            kind = type(problem).__name__
            raise CommandError(f"Not all was erased: the database did not take it ({kind}). Run this again.", returncode=1) from None
        self.stdout.write(f"Erased here: {counted(done.gone.counts)}.")
        if done.unsettled:
            self.stdout.write(
                f"Still on, or just over: {done.unsettled}. Nothing more is kept; the vendors are told when the report is in."
            )
        self._ask_vendors(done.mark)
        if not erasure.leave_no_trace():
            self.stderr.write(
                "Somebody was reading all the time, so the database's log still has old pages; it is cut at the next erasure."
            )

    def _ask_vendors(self, mark: str) -> None:
        vendors = vendor_accounts.vendors()
        deleted = 0
        while asked := vendor_erasures.ask(vendors=vendors, now=timezone.now(), asked_for=mark):
            deleted += asked.gone
        self.stdout.write(f"Deleted by Vapi and Twilio: {deleted}.")
        waiting = vendor_erasures.waiting().filter(asked_for=mark)
        if count := waiting.count():
            self.stdout.write(f"Still to be deleted there: {count}. They are asked again until it is gone.")
        for problem in waiting.exclude(problem="").order_by().values_list("problem", flat=True).distinct()[:PROBLEMS_SHOWN]:
            self.stdout.write(f"  {problem}")
