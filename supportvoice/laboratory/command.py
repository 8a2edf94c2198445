"""`sandbox faults`: its options, and one run from an empty house to the report."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from supportvoice.bench import report as bench_report
from supportvoice.laboratory import busy, databases, matrix, report
from supportvoice.laboratory.ground import open_ground
from supportvoice.laboratory.nemesis import nemesis
from supportvoice.laboratory.rolling import Rolling
from supportvoice.laboratory.runs import AT_ONCE, Laboratory, Placed
from supportvoice.stack import HOME

RUNS = 1


class Misused(Exception):
    """The command cannot be done as it was given; the text says why, in one sentence."""


class Interrupted(Exception):
    """Somebody pressed Ctrl-C, or sent a SIGTERM. What was played until then has been told and kept."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list", action="store_true", help="only name the sandbox's faults, for `call --fault`")
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="these ids (C9) or rows ('C9 next verb') of the table alone")
    parser.add_argument("--runs", type=int, default=RUNS, help="injections of each id (1, and at least one of each row)")
    parser.add_argument("--seed", type=int, default=None, help="of all that is random; printed at the end")
    parser.add_argument("--nemesis", type=int, default=0, metavar="CALLS", help="instead: so many calls, and a random fault every 5 s")
    parser.add_argument(
        "--restarts", type=int, default=0, metavar="N", help="instead: so many rolling restarts, under calls that come and go"
    )
    parser.add_argument("--at-once", type=int, default=0, metavar="N", help=f"calls at once ({AT_ONCE}; 30 with --nemesis or --restarts)")
    parser.add_argument("--database", default="", metavar="URL", help="make the houses' databases on this PostgreSQL (else: SQLite files)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="where to keep the result")
    parser.add_argument("--html", type=Path, default=None, metavar="FILE", help="where to keep it as a page")


def run(options: Mapping[str, Any], *, tell: Callable[[str], None], directory: Path) -> int:
    """How many calls were lost. Raises Misused, StackFailed, EmbeddedAway, and Interrupted, all told."""
    if options["runs"] < 1 or min(options[name] for name in ("nemesis", "restarts", "at_once")) < 0:
        raise Misused("--runs takes 1 or more, --nemesis, --restarts and --at-once 0 or more.")
    if options["nemesis"] and options["restarts"]:
        raise Misused("--nemesis and --restarts are two runs.")
    try:
        rows = matrix.chosen(options["only"])
    except KeyError as unknown:
        known = ", ".join(dict.fromkeys(row.id for row in matrix.MATRIX))
        raise Misused(f"{unknown.args[0]} is no fault of the table: take one of {known}.") from None
    database = _database_of(options["database"])
    seed = secrets.randbelow(1 << 31) if options["seed"] is None else options["seed"]
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": bench_report.commit(HOME),
        "machine": {**bench_report.machine(), "load_at_start": round(os.getloadavg()[0], 1)},
        "versions": report.versions(),
        "database": database,
        "seed": seed,
        "runs": options["runs"],
        "nemesis": options["nemesis"],
        "restarts": options["restarts"],
    }
    not_here = {row.name: why for row in rows if (why := row.not_here(database.split(" ")[0]))}
    calls, restarts_s, interrupted = list[Placed](), list[float](), False
    try:
        asyncio.run(_play(options, [row for row in rows if row.name not in not_here], seed, tell, calls, restarts_s))
    except (KeyboardInterrupt, asyncio.CancelledError):
        interrupted = True
    left_out = {} if _is_busy(options) else {**not_here, **({} if options["only"] else matrix.NOT_COVERED)}
    about |= {"interrupted": interrupted, "restarts_s": report.spread(restarts_s)}
    found = report.document(about=about, calls=calls, not_covered=left_out)
    for line in report.table(found):
        tell(line)
    stem = directory / datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
    _keep(options["json"] or stem.with_suffix(".json"), json.dumps(found, indent=1) + "\n", tell)
    _keep(options["html"] or stem.with_suffix(".html"), report.page(found), tell)
    if interrupted:
        raise Interrupted
    return int(found["lost"])


def _is_busy(options: Mapping[str, Any]) -> bool:
    """No row of the table is played, but something else under calls that come and go."""
    return bool(options["nemesis"] or options["restarts"])


def _database_of(server: str) -> str:
    """What the run is played on, by name and version. Raises Misused."""
    if server and not databases.is_of_postgresql(server):
        raise Misused("--database takes postgres://user@host:port/name, a database of a PostgreSQL on which others may be made.")
    try:
        return databases.named(server)
    except psycopg.Error as problem:
        raise Misused(f"No PostgreSQL answers there: {str(problem).strip()}") from None


async def _play(
    options: Mapping[str, Any],
    rows: Sequence[matrix.Row],
    seed: int,
    tell: Callable[[str], None],
    calls: list[Placed],
    restarts_s: list[float],
) -> None:
    """Every call that is over is put with `calls`. Rows that need another house than the usual one are played in it, after the others.

    How long each rolling restart took is put with `restarts_s`.
    """
    _leave_when_told()
    rng = random.Random(seed)
    busy_house = matrix.DOUBLED if options["restarts"] else matrix.USUAL
    for house in [busy_house] if _is_busy(options) else sorted({row.house for row in rows}):
        with tempfile.TemporaryDirectory(prefix="laboratory-") as directory:
            opening = open_ground(
                Path(directory), say=lambda sentence: tell(f"... {sentence}"), server=options["database"], **house._asdict()
            )
            async with opening as ground:
                if options["nemesis"]:
                    calls += await nemesis(ground, rng=rng, calls=options["nemesis"], at_once=options["at_once"], tell=tell)
                    return
                if options["restarts"]:
                    rolling = Rolling(ground, rng, tell, at_once=options["at_once"] or busy.AT_ONCE, restarts_s=restarts_s)
                    calls += await rolling.play(options["restarts"])
                    return
                laboratory = Laboratory(ground, rng, tell, at_once=options["at_once"] or AT_ONCE, done=calls)
                await laboratory.run([row for row in rows if row.house == house], options["runs"], among=rows)


def _leave_when_told() -> None:
    """A SIGTERM is as good as Ctrl-C: what was begun is taken back, and that once, however often it is said."""
    playing = asyncio.current_task()
    assert playing is not None  # noqa: S101 - we are in it
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: playing.cancelling() or playing.cancel())


def _keep(path: Path, text: str, tell: Callable[[str], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    tell(f"kept in {path}")
