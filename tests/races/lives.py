"""`serve` around processes that have a lease and nothing else: prints `pid boot` of each when all are there.

Told so, it says nothing of a child that dies: then the lease alone tells.
"""

from __future__ import annotations

import asyncio
import sys

import django

from supportvoice.parent import Parent, listen
from tests.races.pair import ROOT


async def main(workers: int, *, buries: bool) -> int:
    django.setup()
    from supportvoice.management.commands.serve import bury  # only after the set-up

    def ready() -> None:
        print(*(f"{child.process.pid} {child.boot}" for child in parent.children.values()), sep="\n", flush=True)  # noqa: T201

    program = "tests.races.life"
    parent = Parent(listen("127.0.0.1", 0), workers, "all", ROOT, ready, bury if buries else None, program=program)
    return await parent.run()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]), buries=sys.argv[2] == "buries")))
