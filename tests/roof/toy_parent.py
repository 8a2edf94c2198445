"""`serve` around the toy children, for tests that send signals: prints `port child-pid child-pid` when both serve."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from supportvoice.server import Parent, listen


async def main() -> int:
    listening = listen("127.0.0.1", 0)

    def ready() -> None:
        pids = (str(child.process.pid) for child in parent.children.values())
        print(listening.getsockname()[1], *pids, flush=True)  # noqa: T201

    home = Path(__file__).resolve().parents[2]
    parent = Parent(listening, int(sys.argv[1]), "all", home, ready, program="tests.roof.toy_child")
    return await parent.run()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
