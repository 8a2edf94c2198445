"""`audit_verify`: whether the trail is as it was written."""

from __future__ import annotations

import re
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents import trail

HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})", re.ASCII)


class Command(BaseCommand):
    help = (
        "Walks the whole audit trail and prints how many entries it has, and its head: the number and the hash of the newest one. "
        "Keep the head somewhere else; with --expect it shows later that nobody wrote the trail anew or cut its end off."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--expect", metavar="NUMBER:HASH", default="", help="a head that was printed earlier")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            head = trail.verify(expect=_head(options["expect"]))
        except trail.Broken as broken:
            raise CommandError(str(broken), returncode=1) from None
        self.stdout.write(f"{head.number} entries, each as it was written. Head: {head}")


def _head(written: str) -> trail.Head | None:
    """A head as it was printed. Raises CommandError."""
    if not written:
        return None
    found = HEAD.fullmatch(written.strip())
    if found is None:
        raise CommandError("--expect takes a head as audit_verify prints it, NUMBER:HASH.", returncode=2)
    return trail.Head(int(found[1]), found[2])
