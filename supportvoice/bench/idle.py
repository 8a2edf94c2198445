"""A loop with nothing to do, beside what is measured: its stalls are the machine's. Answers each line of input with a line of JSON."""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

from supportvoice.bench.stalls import StallWatch


async def main() -> None:
    watch = StallWatch()
    watching = asyncio.create_task(watch.run())
    asked = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while await asked.readline():
        sys.stdout.write(json.dumps(watch.take()) + "\n")
        sys.stdout.flush()
    watching.cancel()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
