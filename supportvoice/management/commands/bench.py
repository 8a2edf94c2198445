"""`bench`: what a call costs on this machine, beside what others would cost here."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from supportvoice.bench import report, rounds, silence
from supportvoice.bench.subjects import SUBJECTS, Ground
from supportvoice.embedded import EmbeddedAway
from supportvoice.parent import listen
from supportvoice.stack import HOME, StackFailed


class Command(BaseCommand):
    help = "Measures cost and delay of many calls at once, beside reference relays in the same run: one table, one JSON."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--calls", type=int, default=30, help="calls at once (30)")
        parser.add_argument("--seconds", type=float, default=10.0, help="how long each run is measured (10)")
        parser.add_argument("--rounds", type=int, default=3, help="how often each subject is measured; the median counts (3)")
        parser.add_argument("--only", nargs="+", choices=sorted(SUBJECTS), default=[], help="measure these alone")
        parser.add_argument(
            "--pcm", action="store_true", help="ours alone, with Vapi's leg in PCM16 at 16 kHz; converted sound is counted, not compared"
        )
        parser.add_argument("--soak", type=int, default=0, metavar="N", help="instead: N short calls through ours, 30 at once")
        parser.add_argument("--json", type=Path, metavar="FILE", help="keep everything that was measured there")

    def handle(self, *args: Any, **options: Any) -> None:
        if min(options["calls"], options["seconds"], options["rounds"]) <= 0 or options["soak"] < 0:
            raise CommandError("--calls, --seconds and --rounds must be more than 0.", returncode=2)
        try:
            presets = {} if options["soak"] else silence.by_preset(self._say)
            found = asyncio.run(self._measured(options, presets))
        except (EmbeddedAway, StackFailed) as problem:
            raise CommandError(str(problem), returncode=1) from None
        for line in report.table(found):
            self.stdout.write(line)
        if options["json"]:
            options["json"].parent.mkdir(parents=True, exist_ok=True)
            options["json"].write_text(json.dumps(found, indent=1) + "\n")

    async def _measured(self, options: dict[str, Any], presets: dict[str, dict[str, int]]) -> dict[str, Any]:
        plan = rounds.Plan(calls=options["calls"], seconds=options["seconds"], rounds=options["rounds"])
        about = {
            "date": timezone.now().isoformat(timespec="seconds"),
            "commit": report.commit(HOME),
            "machine": report.machine(),
            "versions": report.versions(),
            "plan": {
                "calls": plan.calls,
                "seconds": plan.seconds,
                "rounds": plan.rounds,
                "soak": options["soak"],
                "sound": "pcm16" if options["pcm"] else "mulaw",
            },
        }
        runs: dict[str, list[dict[str, Any]]] = {}
        stalls: dict[str, dict[str, Any]] = {}
        left_out: dict[str, str] = {}
        soak = None
        with tempfile.TemporaryDirectory(prefix="bench-") as directory, listen("127.0.0.1", 0) as vapi:
            ground = Ground(Path(directory), vapi, say=self._say, wide=options["pcm"])
            if options["soak"]:
                soak = await rounds.soak(ground, SUBJECTS["ours"], options["soak"])
            else:
                subjects, left_out = rounds.choose(SUBJECTS, ["ours"] if options["pcm"] else options["only"])
                runs, stalls = await rounds.measure(ground, plan, subjects)
        return report.document(about=about, runs=runs, left_out=left_out, stalls=stalls, soak=soak, presets=presets)

    def _say(self, sentence: str) -> None:
        self.stderr.write(f"... {sentence}")
        self.stderr.flush()
