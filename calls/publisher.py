"""Waking others up: one thread per process hands Celery tasks to the broker and hints to the channel layer.

The rule: whoever publishes never waits and never fails. A dead or frozen broker costs this thread its time-outs and the
queue its room; what does not fit, or was refused, is dropped and counted. Nothing is lost by that: rows are the truth,
and whoever waits for a hint looks by itself a moment later.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from channels.layers import get_channel_layer

from bridge import live
from calls.no_room import NoRoom

log = logging.getLogger(__name__)

QUEUE_LIMIT = 10_000
HINT_TIMEOUT_S = 0.2
PAUSE_AFTER_FAILURE_S = 1.0  # hints on a dead layer are dropped at once for this long
GOODBYE_S = 1.0


class Task(Protocol):
    """What we need of a Celery task."""

    name: str

    def apply_async(self, args: tuple[Any, ...], *, retry: bool) -> Any: ...


@dataclass(slots=True)
class Counts:
    """What became of everything that was to be published."""

    published: int = 0
    dropped: int = 0  # no room in the queue, or the layer is known to be away
    failed: int = 0


@dataclass(frozen=True, slots=True)
class TaskCall:
    task: Task
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Hint:
    call_sid: str
    hint: str
    at: float


class Rows:
    """A hint that calls have new rows. Which calls, and up to which row, is looked up when its turn comes: one covers all until then."""


class Publisher:
    """The thread and its queue. `layer` is asked for once, in the thread; None means there is none to hint."""

    def __init__(self, *, layer: Callable[[], live.Layer | None] = get_channel_layer, limit: int = QUEUE_LIMIT) -> None:
        self.counts = Counts()
        self._no_room = NoRoom("publisher")
        self._find_layer = layer
        self._queue: queue.Queue[TaskCall | Hint | Rows | None] = queue.Queue(maxsize=limit)
        self._rows: dict[uuid.UUID, int] = {}  # newest number per call: a burst of rows is one hint, and so are those of many calls
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._layer_away_until = 0.0
        self._abandoned = False

    # -- for everybody: these return at once -----------------------------------------------------------------------

    def task(self, task: Task, *args: Any) -> None:
        self._put(TaskCall(task, args))

    def tell(self, call_sid: str, hint: str) -> None:
        self._put(Hint(call_sid, hint, time.time()))

    def rows(self, public_id: uuid.UUID, seq: int) -> None:
        with self._lock:
            waiting = bool(self._rows)
            self._rows[public_id] = max(seq, self._rows.get(public_id, 0))
        if not waiting and not self._put(Rows()):
            with self._lock:
                self._rows.clear()

    def stop(self, *, within_s: float = GOODBYE_S) -> None:
        """Publish what waits, for so long at most, drop the rest and end the thread."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            return
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=within_s)
        thread.join(within_s)
        self._abandoned = True

    def _put(self, item: TaskCall | Hint | Rows) -> bool:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self.counts.dropped += 1
            self._no_room.dropped()
            return False
        if self._thread is None:
            self._start()
        return True

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
                self._thread.start()

    # -- in the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        loop = asyncio.new_event_loop()
        try:
            while (item := self._queue.get()) is not None and not self._abandoned:
                self._publish_safely(item, loop)
                self._no_room.rest()
        finally:
            loop.close()

    def _publish_safely(self, item: TaskCall | Hint | Rows, loop: asyncio.AbstractEventLoop) -> None:
        """Whatever kombu, redis, the layer or a socket raises: counted, logged, and the thread lives on."""
        try:
            self._publish(item, loop)
        except Exception as problem:
            self.counts.failed += 1
            if not isinstance(item, TaskCall):
                self._layer_away_until = time.monotonic() + PAUSE_AFTER_FAILURE_S
            log.warning("Nobody took what was published", extra={"what": type(item).__name__, "problem": type(problem).__name__})

    def _publish(self, item: TaskCall | Hint | Rows, loop: asyncio.AbstractEventLoop) -> None:
        match item:
            case TaskCall(task, args):
                task.apply_async(args, retry=False)
                self.counts.published += 1
            case Hint(call_sid, hint, at):
                self._send(loop, lambda layer: live.tell(layer, call_sid, hint, at=at))
            case Rows():
                with self._lock:
                    written, self._rows = self._rows, {}
                self._send(loop, lambda layer: live.tell_rows(layer, written))

    def _send(self, loop: asyncio.AbstractEventLoop, message: Callable[[live.Layer], Coroutine[Any, Any, None]]) -> None:
        if time.monotonic() < self._layer_away_until:
            self.counts.dropped += 1
            return
        layer = self._find_layer()
        if layer is not None:
            loop.run_until_complete(asyncio.wait_for(message(layer), HINT_TIMEOUT_S))
            self.counts.published += 1


class _Current:
    """This process's publisher, made when it is first needed and again after a fork."""

    def __init__(self) -> None:
        self.publisher = Publisher()

    def renew(self) -> None:
        self.publisher = Publisher()

    def stop(self) -> None:
        self.publisher.stop()


_current = _Current()
os.register_at_fork(after_in_child=_current.renew)
atexit.register(_current.stop)


def install(publisher: Publisher) -> Publisher:
    """Use this one from now on; returns the one used until now."""
    before, _current.publisher = _current.publisher, publisher
    return before


def task(task: Task, *args: Any) -> None:
    """Hand a Celery task to the broker, some time soon. Call it after commit."""
    _current.publisher.task(task, *args)


def tell(call_sid: str, hint: str) -> None:
    """Hint a live call to look; `hint` is one of `bridge.live`'s."""
    _current.publisher.tell(call_sid, hint)


def rows(public_id: uuid.UUID, seq: int) -> None:
    """Hint the pages that show this call that its rows go up to `seq`."""
    _current.publisher.rows(public_id, seq)
