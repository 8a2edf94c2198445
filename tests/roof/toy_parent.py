"""`serve` around the toy children, for tests that send signals: prints `port child-pid child-pid` when both serve.

With `limit-MIB` that is how much memory each of them may use, with `serves-within-S` how long one has to come up.

It prints `given away` for a child that does not answer, or fails to as a database would. With `marks` it prints before that
that the child `stands still`, and afterwards that it `goes on`, with its process id.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path

from supportvoice.memory import MIB
from supportvoice.parent import Parent, listen


def give_away(boot: uuid.UUID) -> None:
    if "nobody-is-told" in sys.argv:
        raise OSError("The database is away.")
    print("given away", flush=True)  # noqa: T201


def mark(place: str, stands_still: bool) -> None:
    print("stands still" if stands_still else "goes on", place.split()[2], flush=True)  # noqa: T201


async def main() -> int:
    listening = listen("127.0.0.1", 0)

    def ready() -> None:
        pids = (str(child.process.pid) for child in parent.children.values())
        print(listening.getsockname()[1], *pids, flush=True)  # noqa: T201

    home = Path(__file__).resolve().parents[2]
    limit = sum(int(word.removeprefix("limit-")) * MIB for word in sys.argv if word.startswith("limit-"))
    parent = Parent(
        listening, int(sys.argv[1]), "all", home, ready, give_away=give_away, memory_limit=limit, program="tests.roof.toy_child"
    )
    parent.mark = mark if "marks" in sys.argv else None
    for word in sys.argv:
        if word.startswith("serves-within-"):
            parent.serves_within_s = float(word.removeprefix("serves-within-"))
    return await parent.run()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
