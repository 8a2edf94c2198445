"""`demo`: everything on one machine, one call, then the console."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from supportvoice.demo import EARS, USER, WRONGS, House, keep_sound, open_house, place_call, report
from supportvoice.embedded import EmbeddedAway
from supportvoice.parent import listen
from supportvoice.stack import StackFailed


class Command(BaseCommand):
    help = "Starts everything on this machine, places one call, prints its event log, and keeps the console up until Ctrl-C."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="end after the call: 0 if it was right, 1 if it was not")
        parser.add_argument("--port", type=int, default=settings.PORT, help="port of the console (PORT)")
        parser.add_argument("--directory", type=Path, default=settings.VAR_DIR / "demo", help="for logs and the sound (var/demo)")
        wrongly = "play the call wrongly on purpose, to see the checks fail: the agent hears nothing, both hear themselves, other words"
        parser.add_argument("--fault", choices=sorted(WRONGS), default="", help=wrongly)
        hears = "how the agent hears the caller: by comparing clips, or by recognising words (extra: voice)"
        parser.add_argument("--ear", choices=sorted(EARS), default="clips", help=hears)

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("The demo does not run with DEBUG=0: its vendors are a sandbox.", returncode=2)
        try:
            EARS[options["ear"]]()
            listen("127.0.0.1", options["port"]).close()
        except RuntimeError as missing:
            raise CommandError(str(missing), returncode=2) from None
        except OSError:
            raise CommandError(f"Port {options['port']} is taken; choose another with --port.", returncode=2) from None
        try:
            code = asyncio.run(self._run(options))
        except EmbeddedAway as away:
            raise CommandError(str(away), returncode=2) from None
        except StackFailed as failed:
            raise CommandError(str(failed), returncode=1) from None
        if code:
            raise SystemExit(code)

    async def _run(self, options: dict[str, Any]) -> int:
        """Until done, or until Ctrl-C or SIGTERM: both end the household in order."""
        loop = asyncio.get_running_loop()
        work = asyncio.create_task(self._household(options))
        for sig in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sig, work.cancel)
        try:
            return await work
        except asyncio.CancelledError:
            self._say("everything is stopped")
            return 130 if options["once"] else 0

    async def _household(self, options: dict[str, Any]) -> int:
        directory: Path = options["directory"]
        chosen = {name: options[name] for name in ("directory", "port", "fault", "ear")}
        async with open_house(**chosen, say=self._say) as house:
            self._say("the phone rings")
            call, checks = await place_call(house, self._print)
            self._print("")
            for line in report(checks):
                self._print(line)
            self._print(f"\nListen to the call: {keep_sound(call, directory)} (left the caller, right what the caller heard)")
            wrong = sum(not check.kept for check in checks)
            if wrong:
                self._print(f"{wrong} of {len(checks)} checks failed; the logs are in {directory / 'log'}.")
            if not options["once"]:
                await self._stay(house)
            return 1 if wrong else 0

    async def _stay(self, house: House) -> None:
        self._print(f"The console is at {house.stack.url} (log-in {USER}, password {house.secrets.password}). Ctrl-C ends everything.")
        while True:
            house.stack.check_alive()
            await asyncio.sleep(1.0)

    def _say(self, sentence: str) -> None:
        self._print(f"... {sentence}")

    def _print(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
