"""`agents_import`: templates, tools, hand-over targets, teams and lines from a file."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError
from django.utils import timezone

from agents import as_code_import
from agents.as_code import NotImportable
from agents.forms import NOTE_CHARS
from agents.tasks import enqueue_premake
from agents.trail import Who

BY = "agents_import"


class Command(BaseCommand):
    help = "Reads agents from a file and publishes what callers do not hear yet; all of it, or nothing if anything is wrong."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="the file, as agents_export writes it; - reads it from standard input")
        parser.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
        parser.add_argument("--draft", action="store_true", help="store drafts and publish nothing")
        parser.add_argument("--note", default="", help="why, for the list of versions")

    def handle(self, *args: Any, **options: Any) -> None:
        if len(options["note"]) > NOTE_CHARS:
            raise CommandError(f"--note takes at most {NOTE_CHARS} characters.", returncode=2)
        try:
            imported = as_code_import.bring_in(
                as_code_import.parse(_body(options["file"])),
                draft=options["draft"],
                dry_run=options["dry_run"],
                note=options["note"],
                by=BY,
                at=timezone.now(),
                allowed_private=settings.TOOL_ALLOWED_PRIVATE,
                who=Who.at_the_shell(),
            )
        except NotImportable as wrong:
            lines = [f"{path}: {sentence}" for path, sentence in wrong.problems.items()]
            raise CommandError("\n".join(["Nothing was imported.", *lines]), returncode=2) from None
        except DatabaseError as problem:
            kind = type(problem).__name__
            raise CommandError(f"Nothing was imported: the database did not take it ({kind}). Try again.", returncode=1) from None
        self._tell(imported, dry_run=options["dry_run"])

    def _tell(self, imported: as_code_import.Imported, *, dry_run: bool) -> None:
        for change in imported.changes:
            self.stdout.write(str(change))
        count = Counter(change.action for change in imported.changes)
        figures = ", ".join(f"{count[action]} {action}" for action in ("created", "changed", "unchanged"))
        self.stdout.write(f"{figures}.{' This was a dry run: nothing is changed.' if dry_run else ''}")
        queued = [enqueue_premake(version) for version in imported.versions]
        if not all(queued):
            self.stderr.write("Vapi is not told yet, the broker is away: press “Prepare again” on the version; calls work meanwhile.")


def _body(name: str) -> bytes:
    """The file's bytes, one more than may be at most. Raises CommandError."""
    most = as_code_import.MAX_BYTES + 1
    try:
        if name == "-":
            return sys.stdin.buffer.read(most)
        with Path(name).open("rb") as file:
            return file.read(most)
    except OSError as wrong:
        raise CommandError(f"{name} cannot be read: {wrong.strerror}.", returncode=2) from None
