"""`agents_export`: templates, tools, hand-over targets, teams and lines as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents import as_code_export
from supportvoice.management import exported


class Command(BaseCommand):
    help = "Writes every agent's draft, tool, target, team and line as JSON that agents_import takes: the same agents, the same bytes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--output", metavar="FILE", type=Path, help="where to write (standard output)")

    def handle(self, *args: Any, **options: Any) -> None:
        written = as_code_export.text(as_code_export.document())
        exported.tell("agents")
        if options["output"] is None:
            self.stdout.write(written)
            return
        try:
            options["output"].write_text(written, encoding="utf-8")
        except OSError as wrong:
            raise CommandError(f"{options['output']} cannot be written: {wrong.strerror}.", returncode=2) from None
