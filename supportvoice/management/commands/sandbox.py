"""`sandbox`: the vendors' stand-ins on their own, for trying things out against a running `serve`."""

from __future__ import annotations

import asyncio
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from agents.services import seed_demo
from agents.tasks import premake_version
from bridge.sandbox import clips
from bridge.sandbox.script import SCENARIOS, Caller
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.vapi import VapiSandbox
from supportvoice.demo import COLLEAGUE, EARS, LINE, crm_running, keep_sound

BRIDGE_CLIPS = settings.BASE_DIR / "bridge" / "clips"


class Command(BaseCommand):
    help = "A Vapi to call (serve), a caller (call), the agent they talk about (seed), and their voices (clips)."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        serve = verbs.add_parser("serve", help="a Vapi-compatible server, and the customer database its tool asks")
        serve.add_argument("--port", type=int, default=8090)
        serve.add_argument("--api-key", default=settings.VAPI_API_KEY or "sandbox-vapi-key")
        serve.add_argument("--scenario", choices=sorted(SCENARIOS), default="techflow")
        hears = "how the agent hears the caller: by comparing clips, or by recognising words (extra: voice)"
        serve.add_argument("--ear", choices=sorted(EARS), default="clips", help=hears)
        call = verbs.add_parser("call", help="one call to PUBLIC_URL, signed with TWILIO_AUTH_TOKEN")
        call.add_argument("--to", default=settings.TWILIO_PHONE_NUMBER or LINE)
        call.add_argument("--scenario", choices=sorted(SCENARIOS), default="techflow")
        seed = verbs.add_parser("seed", help="the TechFlow agent, its tool, its line and the colleague behind it")
        seed.add_argument("--number", default=settings.TWILIO_PHONE_NUMBER or LINE)
        seed.add_argument("--target", default=COLLEAGUE)
        seed.add_argument("--tool-url", required=True)
        verbs.add_parser("clips", help="synthesise everything that is said again (extra: voice)")

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEBUG and not settings.ALLOW_INSECURE:
            raise CommandError("The sandbox does not run with DEBUG=0.", returncode=2)
        match options["verb"]:
            case "serve":
                asyncio.run(self._serve(options))
            case "call":
                asyncio.run(self._call(options))
            case "seed":
                self._seed(options)
            case "clips":
                self._clips()

    async def _serve(self, options: dict[str, Any]) -> None:
        scenario, ear = SCENARIOS[options["scenario"]], EARS[options["ear"]]
        try:
            ear()
        except RuntimeError as missing:
            raise CommandError(str(missing), returncode=2) from None
        vapi = VapiSandbox(scenario=scenario, api_key=options["api_key"], port=options["port"], ear_factory=ear)
        async with crm_running() as tool_host, vapi:
            self.stdout.write(f"VAPI_BASE_URL={vapi.base_url} VAPI_API_KEY={options['api_key']} TOOL_ALLOWED_PRIVATE={tool_host}")
            self.stdout.write(f"The tool's address: http://{tool_host}/crm/get_user_account. Ctrl-C ends.")
            self.stdout.flush()
            await asyncio.Event().wait()

    async def _call(self, options: dict[str, Any]) -> None:
        if not settings.TWILIO_AUTH_TOKENS:
            raise CommandError("TWILIO_AUTH_TOKEN is empty: serve would not believe the call.", returncode=2)
        call = TwilioCall(
            webhook_url=f"{settings.PUBLIC_URL}/webhook/twilio",
            status_url=f"{settings.PUBLIC_URL}/webhook/twilio/status",
            auth_token=settings.TWILIO_AUTH_TOKENS[0],
            account_sid=settings.TWILIO_ACCOUNT_SID or "AC" + "1" * 32,
            to_number=options["to"],
            caller=Caller(SCENARIOS[options["scenario"]].caller),
        )
        await call.run()
        for moment in call.timeline:
            self.stdout.write(f"{moment.at - call.timeline[0].at:7.3f} {moment.what} {dict(moment.detail)}")
        self.stdout.write(f"{keep_sound(call, settings.VAR_DIR / 'sandbox')}")

    def _seed(self, options: dict[str, Any]) -> None:
        version = seed_demo(
            number=options["number"],
            tool_url=options["tool_url"],
            target_number=options["target"],
            at=timezone.now(),
            allowed_private=settings.TOOL_ALLOWED_PRIVATE,
        )
        if version is not None:
            premake_version.delay(version.pk)
        self.stdout.write(f"{options['number']} is answered by TechFlow's agent.")

    def _clips(self) -> None:
        try:
            made = clips.synthesise()
        except RuntimeError as missing:
            raise CommandError(str(missing), returncode=2) from None
        copied = clips.copy_to(BRIDGE_CLIPS)
        self.stdout.write(f"{len(made)} clips made, {len(copied)} copied for the bridge.")
