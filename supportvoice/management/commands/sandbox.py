"""`sandbox`: the vendors' stand-ins on their own, for trying things out against a running `serve`. The settings fill in what they know."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from kombu.exceptions import OperationalError

from agents.services import seed_demo
from agents.tasks import premake_version
from bridge.sandbox import cli, clips
from supportvoice.demo import COLLEAGUE, LINE
from supportvoice.embedded import EmbeddedAway
from supportvoice.laboratory import command
from supportvoice.stack import StackFailed

BRIDGE_CLIPS = settings.BASE_DIR / "bridge" / "clips"


class Command(BaseCommand):
    help = "A Vapi to call (serve), a caller (call), the fault laboratory (faults), the agent they talk about (seed), their voices (clips)."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        cli.add_verbs(verbs, self._known())
        command.add_arguments(verbs.choices["faults"])
        seed = verbs.add_parser("seed", help="the TechFlow agent, its tool, its line and the colleague behind it")
        seed.add_argument("--number", default=settings.TWILIO_PHONE_NUMBER or LINE)
        seed.add_argument("--target", default=COLLEAGUE)
        seed.add_argument("--tool-url", required=True)
        verbs.add_parser("clips", help="synthesise everything that is said again (extra: voice)")

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEBUG and not settings.ALLOW_INSECURE:
            raise CommandError("The sandbox does not run with DEBUG=0 (ALLOW_INSECURE=1 lets it).", returncode=2)
        match options["verb"]:
            case "seed":
                self._seed(options)
            case "clips":
                self._clips()
            case "faults" if not options["list"]:
                self._laboratory(options)
            case _:
                self._run(options)

    def _known(self) -> cli.Known:
        usual = cli.Known()
        return cli.Known(
            webhook_url=f"{settings.PUBLIC_URL}/webhook/twilio",
            status_url=f"{settings.PUBLIC_URL}/webhook/twilio/status",
            auth_token=next(iter(settings.TWILIO_AUTH_TOKENS), ""),
            account_sid=settings.TWILIO_ACCOUNT_SID or usual.account_sid,
            to_number=settings.TWILIO_PHONE_NUMBER or LINE,
            vapi_url=settings.VAPI_BASE_URL,
            api_key=settings.VAPI_API_KEY or usual.api_key,
            twilio_url=settings.TWILIO_BASE_URL,
            wavs=settings.VAR_DIR / "sandbox",
        )

    def _run(self, options: dict[str, Any]) -> None:
        try:
            code = cli.run(options, self._known(), self._say)
        except cli.Misused as why:
            raise CommandError(str(why), returncode=2) from None
        if code:
            raise SystemExit(code)

    def _laboratory(self, options: dict[str, Any]) -> None:
        try:
            lost = command.run(options, tell=self._say, directory=settings.VAR_DIR / "laboratory")
        except command.Misused as why:
            raise CommandError(str(why), returncode=2) from None
        except (EmbeddedAway, StackFailed) as problem:
            raise CommandError(str(problem), returncode=2) from None
        except command.Interrupted:
            raise CommandError("Interrupted: above is what was played until then.", returncode=2) from None
        if lost:
            raise SystemExit(1)

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def _seed(self, options: dict[str, Any]) -> None:
        version = seed_demo(
            number=options["number"],
            tool_url=options["tool_url"],
            target_number=options["target"],
            at=timezone.now(),
            allowed_private=settings.TOOL_ALLOWED_PRIVATE,
        )
        if version is not None:
            try:
                premake_version.apply_async((version.pk,), retry=False)
            except OperationalError:
                self.stderr.write("Nobody was told to prepare the agent at Vapi, the broker is away: calls will carry it inline.")
        self.stdout.write(f"{options['number']} is answered by TechFlow's agent.")

    def _clips(self) -> None:
        try:
            made = clips.synthesise()
        except RuntimeError as missing:
            raise CommandError(str(missing), returncode=2) from None
        copied = clips.copy_to(BRIDGE_CLIPS)
        self.stdout.write(f"{len(made)} clips made, {len(copied)} copied for the bridge.")
