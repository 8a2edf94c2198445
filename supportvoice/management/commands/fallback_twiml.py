"""`fallback_twiml`: the static document for a number's fallback URL, on a host that is not ours."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents.models import PhoneLine
from bridge import twilio_http
from calls import handover

SORRY = "We are sorry, our phone system has a problem. One moment, please."
LEAVE_A_MESSAGE = "If you could not speak with anybody, please leave a message after the tone, and we will call you back."
TALK_S = 4 * 3600


class Command(BaseCommand):
    help = (
        "Prints TwiML for a number's fallback URL, to be kept where our server's troubles do not reach, a TwiML Bin for example: "
        "it rings the line's first person, then takes a message that stays in your Twilio account. Print it again when people change."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--line", metavar="NUMBER", help="the phone line, where there are several")
        parser.add_argument(
            "--after", metavar="URL", default="", help="what Twilio asks when a message is over (default: this document once more)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        lines = PhoneLine.objects.order_by("number")
        chosen = list(lines.filter(number=options["line"]) if options["line"] else lines)
        if len(chosen) != 1:
            said = ", ".join(str(line.number) for line in lines) or "none yet"
            raise CommandError(f"Say which line with --line: {said}.", returncode=2)
        (line,) = chosen
        people = [each for each in line.handoff.all() if handover.is_allowed(slug=each.slug, number=each.number)]
        first = people[0] if people else None
        document = twilio_http.static_rescue(
            sentence=SORRY,
            number=first.number if first else "",
            caller_id=line.number,
            ring_seconds=first.ring_seconds if first else 0,
            talk_s=60 * first.talk_minutes if first else TALK_S,
            prompt=LEAVE_A_MESSAGE,
            after_url=options["after"],
        )
        self.stdout.write(document)
