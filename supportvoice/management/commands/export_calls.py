"""`export_calls`: what happened, one call after the other."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.timezone import is_naive

from calls import export
from supportvoice.management import exported

EXAMPLES = "2026-08-03 or 2026-08-03T14:47:00Z"


class Command(BaseCommand):
    help = "Prints calls with everything said and done, oldest first: one JSON object a line, or a table for a spreadsheet."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--call", metavar="SID", default="", help="only the call with this CallSid")
        parser.add_argument("--since", metavar="TIME", default="", help=f"only calls that began then or later, like {EXAMPLES} (UTC)")
        parser.add_argument("--format", choices=sorted(export.FORMATS), default="jsonl", help="jsonl, or csv with one row a call")

    def handle(self, *args: Any, **options: Any) -> None:
        since, call_sid = _moment(options["since"]), options["call"]
        one = export.calls(call_sid=call_sid).first() if call_sid else None
        if call_sid and one is None:
            raise CommandError("There is no such call.", returncode=2)
        told = {"format": options["format"], "since": since.isoformat() if since else None}
        exported.tell(one.short_id if one else "calls", told)
        for line in export.FORMATS[options["format"]](export.calls(since=since, call_sid=call_sid)):
            self.stdout.write(line, ending="")


def _moment(written: str) -> datetime | None:
    """A time, or the first moment of a day; without a zone it is UTC. Raises CommandError."""
    if not written:
        return None
    try:
        at = parse_datetime(written)
        day = None if at else parse_date(written)
        at = at or (datetime.combine(day, time.min) if day else None)
        if at is not None:
            return at.replace(tzinfo=UTC) if is_naive(at) else at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise CommandError(f"--since takes a day or a time, like {EXAMPLES}.", returncode=2)
