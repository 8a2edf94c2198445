"""Our serving process, exactly as `serve` starts it, with a watch beside its loop.

`GET /bench` tells what the watch has seen since it was asked last, and how many tasks and threads of pools there are.
Nothing of this is in production.
"""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any

import django
import orjson

django.setup(set_prefix=False)  # before anything that needs the models

from calls import storing  # noqa: E402
from calls.publisher import Publisher  # noqa: E402
from calls.writer import BoundedWriter  # noqa: E402
from supportvoice import child  # noqa: E402
from supportvoice.asgi import application, duty  # noqa: E402
from supportvoice.bench.stalls import StallWatch  # noqa: E402

OF_A_POOL = re.compile(r"_[0-9]+\Z")  # how an executor names its threads, which it keeps


class Watched:
    """The whole application. The watch begins when it is asked for (`/bench?watch`): it takes a little of what is measured."""

    def __init__(self, watch: StallWatch) -> None:
        self._watch = watch
        self._watching: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/bench":
            await application(scope, receive, send)
            return
        if self._watching is None and scope["query_string"] == b"watch":
            self._watching = asyncio.create_task(self._watch.run())
        pooled = sum(OF_A_POOL.search(thread.name) is not None for thread in threading.enumerate())
        told = orjson.dumps({**self._watch.take(), "tasks": len(asyncio.all_tasks()), "pool_threads": pooled})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(told))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": told})


def followed() -> StallWatch:
    """A watch that knows of collections, of the threads that use the database and of the one that talks to Redis."""
    watch = StallWatch(busy=lambda: duty.streams > 0)
    watch.follow_gc()
    storing.in_thread = watch.timed("database", storing.in_thread)
    BoundedWriter._store = watch.timed("database", BoundedWriter._store)  # type: ignore[method-assign]
    Publisher._publish_safely = watch.timed("redis", Publisher._publish_safely)  # type: ignore[method-assign]
    return watch


if __name__ == "__main__":
    child.main(Watched(followed()))
