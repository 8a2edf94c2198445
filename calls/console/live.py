"""The socket of an open page: sends what a reader finds new.

A hint from the channel layer only says "look now"; without any, the socket looks every `POLL_S`. So a lost hint, or a
layer that is away altogether, costs two seconds and never a row. Nothing the browser sends is read.

What its user may see is asked again every `LOOK_AGAIN_S`, before the next row is told: who may see other things than when the
page was made has to load it anew, and who may see nothing any more is sent to the log-in. What the page was made for, it says itself
(`?sees=`): a role may change between the page and its socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ClassVar, Protocol, TypeVar
from urllib.parse import parse_qs

import orjson
from channels.db import DatabaseSyncToAsync
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import Error as DatabaseError
from django.utils import timezone
from redis.exceptions import RedisError

from agents import visitor
from agents.trail import Who
from bridge import live
from calls import roles
from calls.console import shown, watched
from calls.console.reader import CallReader, LiveReader, News
from calls.console.session import user_of
from calls.console.viewer import Viewer, viewer_of
from calls.models import CallSession

log = logging.getLogger(__name__)

POLL_S = 2.0
GATHER_S = 0.1  # hints come in bursts; one read answers them all
STILL_THERE_S = 15.0  # how often the page is told that we are alive
LOOK_AGAIN_S = 3.0  # how long a log-in, a role or a team that was taken away may still be used
LAYER_PAUSE_S = 2.0
LOG_IN = 4401
NOT_OUR_PAGE = 4403
NOT_YOURS = 4405
LOAD_AGAIN = 4410
NO_SUCH_CALL = 4404
NOT_TOLD = 4503
OVER = 1000

_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="console")  # pages wait for each other, never a call for a page

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
T = TypeVar("T")


class Reader(Protocol):
    def exists(self) -> bool: ...

    def read(self) -> News | None: ...


async def _in_thread(work: Callable[[], T]) -> T:
    run = DatabaseSyncToAsync(work, thread_sensitive=False, executor=_threads)
    result: T = await run()
    return result


class PageSocket:
    """One browser page's socket: an ASGI application for one connection."""

    poll_s: ClassVar[float] = POLL_S
    still_there_s: ClassVar[float] = STILL_THERE_S
    look_again_s: ClassVar[float] = LOOK_AGAIN_S
    needs: ClassVar[str] = roles.SEE_CALLS

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.scope, self.receive, self._send = scope, receive, send
        self.wake = asyncio.Event()

    @classmethod
    def as_asgi(cls) -> Callable[[dict[str, Any], Receive, Send], Awaitable[None]]:
        async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await cls(scope, receive, send).run()

        return application

    def reader(self, viewer: Viewer) -> Reader:
        raise NotImplementedError

    def concerns(self, hint: Mapping[str, Any]) -> bool:
        """Whether the rows that were written are shown on this page."""
        return True

    def tell(self) -> None:
        """The trail, who looks at what. Raises NotTold."""

    async def run(self) -> None:
        """From the handshake to the end. Who is not logged in, or on another site's page, is refused before the accept."""
        await self.receive()  # websocket.connect
        if not self._is_our_page():
            return await self._close(NOT_OUR_PAGE)
        viewer = await _in_thread(self._viewer)
        if isinstance(viewer, int):
            return await self._close(viewer)
        if self._asked("sees") not in ("", viewer.mark):
            await self._send({"type": "websocket.accept"})
            return await self._close(LOAD_AGAIN)
        reader = self.reader(viewer)
        if not await _in_thread(reader.exists):
            return await self._close(NO_SUCH_CALL)
        try:
            if viewer.words:
                await _in_thread(self.tell)
        except watched.NotTold:
            return await self._close(NOT_TOLD)
        await self._send({"type": "websocket.accept"})
        tasks = [asyncio.create_task(work) for work in (self._serve(reader, viewer), self._until_gone(), self._hear_hints())]
        try:
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome
        return None

    async def _serve(self, reader: Reader, viewer: Viewer) -> None:
        loop = asyncio.get_running_loop()
        look_again, still_there = loop.time() + self.look_again_s, loop.time() + self.still_there_s
        with suppress(OSError):  # the browser left while we were sending
            while True:
                if loop.time() >= look_again:
                    look_again = loop.time() + self.look_again_s
                    if code := await self._why_not(viewer):
                        return await self._close(code)
                try:
                    news = await _in_thread(reader.read)
                except DatabaseError:
                    log.warning("console could not read; it will try again")
                    news = None
                if news is not None:
                    await self._tell({**news.as_json(), "now": shown.stamp(timezone.now())})
                    if news.over:
                        return await self._close(OVER)
                if loop.time() >= still_there:
                    still_there = loop.time() + self.still_there_s
                    await self._tell({"now": shown.stamp(timezone.now())})
                await self._next_look(at_once=news is not None and news.more)

    async def _next_look(self, *, at_once: bool) -> None:
        if at_once:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self.wake.wait(), self.poll_s)
            await asyncio.sleep(GATHER_S)
        self.wake.clear()

    async def _until_gone(self) -> None:
        while (await self.receive())["type"] != "websocket.disconnect":
            pass

    async def _hear_hints(self) -> None:
        """Wakes the reader at each hint that concerns it. A layer that is away is asked again; the poll goes on meanwhile."""
        layer = get_channel_layer()
        while layer is not None:
            channel = ""
            try:
                channel = await layer.new_channel()
                await layer.group_add(live.ROWS, channel)
                while True:
                    if self.concerns(await layer.receive(channel)):
                        self.wake.set()
            except (OSError, RedisError):
                log.warning("console hears no hints; it polls")
                await asyncio.sleep(LAYER_PAUSE_S)
            finally:
                if channel:
                    with suppress(OSError, RedisError, TimeoutError):
                        await asyncio.wait_for(layer.group_discard(live.ROWS, channel), 1.0)
                    live.forget(layer, channel)

    async def _why_not(self, viewer: Viewer) -> int:
        """With which code to close, now that the page's user may see something else; 0 while nothing changed."""
        try:
            now = await _in_thread(self._viewer)
        except DatabaseError:
            return 0  # nothing can be read meanwhile either
        return now if isinstance(now, int) else 0 if now == viewer else LOAD_AGAIN

    def _viewer(self) -> Viewer | int:
        """What the page's user may see by the rows of now; or why nothing at all, as the code to close with."""
        if not self._is_welcome():
            return LOG_IN
        user = self.scope["user"]
        return viewer_of(user) if user.has_perm(self.needs) else NOT_YOURS

    def _is_our_page(self) -> bool:
        """True for pages of this very host and port: a log-in must not be used by others, not even by our neighbours'.

        The roof checks origins too, but against ALLOWED_HOSTS, which is "any" on a laptop.
        """
        headers = {name: value.decode("latin-1") for name, value in self.scope["headers"]}
        origin = headers.get(b"origin", "")
        if origin in (settings.PUBLIC_URL, *settings.CSRF_TRUSTED_ORIGINS):
            return True
        host = headers.get(b"host", "")
        return host not in ("", settings.PUBLIC_HOST) and origin in (f"http://{host}", f"https://{host}")

    def _is_welcome(self) -> bool:
        """Logged in as somebody, and still so: not expired, not logged out in another tab, with this password, and active."""
        self.scope["user"] = user_of(self.scope["session"].session_key)
        return self.scope["user"] is not None

    def _asked(self, name: str) -> str:
        values: list[str] = parse_qs(self.scope.get("query_string", b"").decode("latin-1")).get(name, [""])
        return values[0]

    async def _tell(self, message: dict[str, Any]) -> None:
        await self._send({"type": "websocket.send", "text": orjson.dumps(message).decode()})

    async def _close(self, code: int) -> None:
        await self._send({"type": "websocket.close", "code": code})


class LiveSocket(PageSocket):
    """The list of live calls."""

    def reader(self, viewer: Viewer) -> Reader:
        return LiveReader(viewer)


class CallSocket(PageSocket):
    """One call, from the cursor in the query string: `?after=<event number>&line=<transcript line>`."""

    def reader(self, viewer: Viewer) -> Reader:
        public_id = self.scope["url_route"]["kwargs"]["public_id"]
        return CallReader(public_id, viewer, after=self._cursor("after"), line=self._cursor("line"))

    def concerns(self, hint: Mapping[str, Any]) -> bool:
        return str(self.scope["url_route"]["kwargs"]["public_id"]) in hint["calls"]

    def tell(self) -> None:
        """As the page does, so that a page and its socket are one line; a socket may come without its page."""
        who = Who(self.scope["user"].get_username(), visitor.of_socket(self.scope))
        watched.call_read(who, CallSession(public_id=self.scope["url_route"]["kwargs"]["public_id"]))

    def _cursor(self, name: str) -> int:
        """Zero, the beginning, for what is no plain number: a page then gets more than it needs, never less."""
        asked = self._asked(name)
        return int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else 0
