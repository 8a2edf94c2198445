"""A process that carries one stream, to be killed: it is told who said what, a line of JSON each, and `die`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import django


async def carry(call_sid: str) -> None:
    from django.conf import settings  # only after the set-up

    from bridge import stream_token
    from bridge.lately import Lately
    from bridge.ports import CallRef
    from calls.ledger import DatabaseLedger
    from tests.builders import FakeVapi

    heard = Lately()
    ledger = DatabaseLedger(token_key=stream_token.key_from(settings.SECRET_KEY), client=FakeVapi())
    with ledger.watching(CallRef(call_sid, 0, "call"), lambda: None, lambda: heard):
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line == "die\n":
                os.kill(os.getpid(), signal.SIGKILL)
            heard.add(*json.loads(line))


def main() -> None:
    django.setup()
    print("ready", flush=True)  # noqa: T201
    asyncio.run(carry(sys.stdin.readline().strip()))


if __name__ == "__main__":
    main()
