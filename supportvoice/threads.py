"""How a request is answered: all of it in one thread, borrowed for as long as it takes, with the database connection that thread keeps.

Django's own way is a fresh thread, and so a fresh connection, for every request, and a hop to it and back for each
middleware; each hop is a turn at the interpreter that the sound of a call waits for. Together with connections that are
kept and statements that are not (`supportvoice.sqlite3`), this took the serving processes from 33 to 21 seconds of CPU
for thirty calls at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from asgiref.typing import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase

KEPT = 8  # idle ones; as many as there are requests under way exist for as long as these take


class OneHop(ASGIHandler):
    """Django with all of its middleware, and the view, in the request's thread."""

    def load_middleware(self, is_async: bool = False) -> None:
        super().load_middleware(is_async=False)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        return await sync_to_async(self.get_response)(request)


class RequestThread(ThreadPoolExecutor):
    """One thread. `busy` with what it was given last, perhaps for longer than whoever asked for it waits."""

    def __init__(self) -> None:
        super().__init__(1, thread_name_prefix="request")
        self.busy: Future[Any] | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.busy = super().submit(fn, *args, **kwargs)
        return self.busy


def lent_threads(app: ASGI3Application, *, kept: int = KEPT) -> ASGI3Application:
    """`app` with a thread for each request, used again by a later one as soon as it is idle."""
    idle: list[RequestThread] = []

    def give_back(thread: RequestThread) -> None:
        if len(idle) < kept:
            idle.append(thread)
        else:
            thread.submit(connections.close_all)  # it is kept by the thread, and would stay open until garbage is collected
            thread.shutdown(wait=False)

    async def lending(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        thread = idle.pop() if idle else RequestThread()
        try:
            async with ThreadSensitiveContext(executor=thread):
                await app(scope, receive, send)
        finally:
            if thread.busy is None:
                give_back(thread)
            else:
                thread.busy.add_done_callback(lambda _: give_back(thread))

    return lending
