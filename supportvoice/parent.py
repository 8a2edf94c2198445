"""The parent under `serve`: N children on one listening socket, for as long as it is not told to stop.

It accepts nothing; it starts the children (`supportvoice.child`), starts a dead one again, and passes the stop signal on.

A child that alone is told to leave says so to the parent, which starts another in its place at once, and tells the one that leaves
as soon as somebody else serves.

A child that comes near its memory limit is told so by the parent, which looks from outside (`supportvoice.memory`).

A child that does not come to serve is ended, and started again as a dead one.

A child that stands still is there and answers nothing (`supportvoice.presence`): the parent gives its calls to the others at once,
and says so on the disk first, for those who cannot ask the database.
Where nobody can take them, because it is alone or the database cannot be told, the parent ends it: its callers' sockets end, and
Twilio asks what is next. It is ended all the same if it does not go on soon: whoever waits for an answer of it would wait for as
long as it stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from supportvoice.lifeline import place
from supportvoice.memory import LOOK_S, MIB, Memory, Turns, group_limit, resident_limit, use_of, who_hurries
from supportvoice.presence import ASK_S, ENDED_AFTER_S, MISSED_AFTER_S, Presence
from supportvoice.words import ARE_YOU_THERE, HERE, HURRY, RELIEVED, SERVES

log = logging.getLogger(__name__)

# glibc gives threads a heap each, up to eight a core, and memory that one of them freed stays in its own: two heaps keep a process
# flat over ten thousand calls.
AS_A_CHILD = {"MALLOC_ARENA_MAX": "2"}

RESTART_FIRST_S, RESTART_LONGEST_S, HEALTHY_S = 0.2, 5.0, 30.0
RESCUED_FIRST_S = 2.5  # a start keeps a core busy for a second or two, which the callers of the dead one need first

GIVEN_AWAY_WITHIN_S = 1.0
MARKED_WITHIN_S = 0.25
SERVES_WITHIN_S = 60.0  # of its start; a slow machine takes a sixth of that


@dataclass(slots=True, eq=False)
class Child:
    process: asyncio.subprocess.Process
    lifeline: socket.socket
    boot: uuid.UUID  # this life of it, and no other
    born: float
    presence: Presence
    memory: Memory = field(default_factory=Memory)
    ready: bool = False
    given_away: bool = False  # its calls, because it does not answer
    place: str = ""


class StartFailed(Exception):
    """The children do not come up; the text says what to look at."""


@dataclass(slots=True)
class Parent:
    """Keeps `workers` children serving on `listening` until it is told to stop; `run` returns the exit code."""

    GIVE_UP_AFTER: ClassVar[int] = 3  # children in a row that died before they ever served, while `serve` itself starts

    listening: socket.socket
    workers: int
    role: str
    home: Path  # where `supportvoice` is imported from
    on_ready: Callable[[], None] | None = None  # called once, when every child serves
    bury: Callable[[uuid.UUID], None] | None = None  # called in a thread when a child died
    give_away: Callable[[uuid.UUID], None] | None = None  # called in a thread when a child does not answer; may raise anything
    mark: Callable[[str, bool], None] | None = None  # called in a thread with the place of a child, and whether it stands still now
    memory_limit: int = 0  # bytes, of each child; 0: none but the system's
    program: str = "supportvoice.child"
    serves_within_s: float = SERVES_WITHIN_S
    children: dict[int, Child] = field(default_factory=dict)
    departing: dict[Child, asyncio.Task[None]] = field(default_factory=dict)  # told to leave alone, replaced, still with calls
    signals: int = 0
    stillborn: int = 0
    announced: bool = False
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    errands: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self.told_to_stop)
        keepers = [asyncio.create_task(self._keep(number)) for number in range(self.workers)]
        self._send(self._mind_memory())
        try:
            await asyncio.gather(*keepers)
            await asyncio.gather(*self.departing.values())
        except StartFailed as failed:
            print(failed, file=sys.stderr)  # noqa: T201
            return 1
        finally:
            await self._kill_all(keepers)
        return 0

    def told_to_stop(self) -> None:
        self.signals += 1
        self.stopping.set()
        had_theirs = () if self.signals > 1 else self.departing  # a second one ends the wait, and nobody is there to take their calls
        for child in (*self.children.values(), *self.departing):
            if child in had_theirs:
                continue
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM if self.signals < 4 else signal.SIGKILL)

    async def _keep(self, number: int) -> None:
        """One place in the row of children: start, wait, start again a little later."""
        pause = RESTART_FIRST_S
        while not self.stopping.is_set():
            try:
                child = await self._start(number)
            except OSError as problem:  # no descriptor, process or memory is to be had, and the others go on with their calls
                self._note_unstarted(problem)
                pause = await self._pause(RESTART_LONGEST_S)
                continue
            code = await self._outlive(child)
            del self.children[number]
            if self.stopping.is_set():
                return
            if code is None:
                self.departing[child] = asyncio.create_task(self._see_off(child))
                self._relieve()
                continue
            self._note_death(child, code)
            self._bury(child)
            if time.monotonic() - child.born > HEALTHY_S:
                pause = RESTART_FIRST_S
            others_serve = any(other.ready for other in self.children.values())
            await self._pause(max(pause, RESCUED_FIRST_S) if others_serve else pause)
            pause = min(2 * pause, RESTART_LONGEST_S)

    async def _pause(self, pause_s: float) -> float:
        """As long as nobody tells us to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), pause_s)
        return pause_s

    async def _start(self, number: int) -> Child:
        """Raises OSError; nothing is left open then."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        boot = uuid.uuid4()
        with contextlib.ExitStack() as if_not_started:
            if_not_started.callback(ours.close)
            with contextlib.closing(theirs):
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", self.program, "--listening", str(self.listening.fileno())),
                    *("--lifeline", str(theirs.fileno()), "--parent", str(os.getpid()), "--boot", str(boot)),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(self.listening.fileno(), theirs.fileno()),
                    env=AS_A_CHILD | os.environ | {"SERVE_ROLE": self.role},
                    cwd=self.home,
                    start_new_session=True,  # Ctrl-C at a terminal goes to everybody in the session: the parent answers for all
                )
            if_not_started.pop_all()
        child = Child(process, ours, boot, born=time.monotonic(), presence=Presence(time.monotonic()), place=place(process.pid))
        self.children[number] = child
        if self.give_away is not None:
            self._send(self._look_after(child, self.give_away))
        if self.stopping.is_set():  # the signal came while we were starting this one
            process.send_signal(signal.SIGTERM)
        return child

    async def _outlive(self, child: Child) -> int | None:
        """Until the child is dead; on the way, note that it serves. None as soon as it leaves although nobody here told it to."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while said := await loop.sock_recv(child.lifeline, 1):
                if said == SERVES:
                    child.ready, self.stillborn = True, 0
                    self._look_at_memory(child)
                    if child.memory.began_full:
                        log.error("a serving process begins with as much memory as it may have: it stays", extra=_figures(child))
                    self._announce()
                    self._relieve()
                elif said == HERE:
                    child.presence.answered(time.monotonic())
                    self._goes_on(child)
                elif not self.stopping.is_set():
                    return None
        child.lifeline.close()
        code = await child.process.wait()
        self._goes_on(child)
        return code

    def _goes_on(self, child: Child) -> None:
        """It answers, or is known to be dead: it does not stand still, as was said."""
        if child.given_away:
            child.given_away = False
            self._send(self._mark(child, stands_still=False))

    def _relieve(self) -> None:
        """Who is leaving accepts nothing more, once somebody else does."""
        if any(child.ready for child in self.children.values()):
            for child in self.departing:
                with contextlib.suppress(OSError):
                    child.lifeline.send(RELIEVED)

    async def _see_off(self, child: Child) -> None:
        await self._outlive(child)
        self._bury(child)
        del self.departing[child]

    def _announce(self) -> None:
        if not self.announced and len(self.children) == self.workers and all(child.ready for child in self.children.values()):
            self.announced = True
            if self.on_ready is not None:
                self.on_ready()

    def _note_death(self, child: Child, code: int) -> None:
        log.error("a serving process died and is started again", extra={"pid": child.process.pid, "exit_code": code})
        if not child.ready:
            self._note_stillborn()

    def _note_unstarted(self, problem: OSError) -> None:
        log.error("a serving process could not be started", extra={"problem": type(problem).__name__, "errno": problem.errno})
        self._note_stillborn()

    def _note_stillborn(self) -> None:
        """Where nobody serves yet that is the end; later on the others have calls, and the next try may succeed."""
        self.stillborn += 1
        if self.stillborn >= self.GIVE_UP_AFTER and not self.announced:
            raise StartFailed("The serving processes do not start; the lines above say why.")

    def _bury(self, child: Child) -> None:
        """Nobody waits for it: the next child is started meanwhile, and may look after the calls of this one."""
        if self.bury is not None:
            self._send(asyncio.to_thread(self.bury, child.boot))

    def _send(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand)
        self.errands.add(task)
        task.add_done_callback(self.errands.discard)

    async def _look_after(self, child: Child, give_away: Callable[[uuid.UUID], None]) -> None:
        """Ask it whether it is there, for as long as it lives."""
        while child.process.returncode is None:
            await asyncio.sleep(ASK_S)
            with contextlib.suppress(OSError):  # it is dead, or has not read for a minute
                child.lifeline.send(ARE_YOU_THERE)
            silent_s = child.presence.silent_s(time.monotonic())
            if child.ready and silent_s >= ENDED_AFTER_S:
                _end(child)
            elif not child.ready and time.monotonic() - child.born >= self.serves_within_s:
                log.error("a serving process does not come up: it is ended, and another one started", extra={"pid": child.process.pid})
                _end(child)
                return
            elif child.ready and silent_s >= MISSED_AFTER_S and not child.given_away:
                child.given_away = True
                await self._give_away(child, give_away)

    async def _give_away(self, child: Child, give_away: Callable[[uuid.UUID], None]) -> None:
        log.error("a serving process does not answer: others have its calls now", extra={"pid": child.process.pid})
        await self._mark(child, stands_still=True)
        if not child.given_away:  # it was quicker than the mark of it
            await self._mark(child, stands_still=False)
            return
        try:
            async with asyncio.timeout(GIVEN_AWAY_WITHIN_S):
                await asyncio.to_thread(give_away, child.boot)
            is_told = True
        except Exception as problem:  # whatever the database raises
            log.warning("that it does not answer could not be told", extra={"problem": type(problem).__name__})
            is_told = False
        others = [other for other in self.children.values() if other is not child and other.ready and not other.given_away]
        if not (is_told and others) and child.given_away:
            _end(child)

    async def _mark(self, child: Child, *, stands_still: bool) -> None:
        if self.mark is not None and child.place:
            try:
                async with asyncio.timeout(MARKED_WITHIN_S):
                    await asyncio.to_thread(self.mark, child.place, stands_still)
            except TimeoutError:
                log.warning("the disk does not take that a serving process stands still, or goes on", extra={"pid": child.process.pid})

    async def _mind_memory(self) -> None:
        """Who has nearly used up what it may use leaves as if anybody had told it to, and is replaced as then."""
        turns = Turns()
        while True:
            await asyncio.sleep(LOOK_S)
            if self.stopping.is_set():  # whoever left now would do so in vain
                return
            leaving = [child for child in self.departing if child.memory.leaves]  # whoever leaves for another reason goes its own way
            there = {child.memory: child for child in (*self.children.values(), *leaving) if child.ready}
            for child in there.values():
                self._look_at_memory(child)
            if len(self.children) < self.workers or not all(child.ready for child in self.children.values()):
                continue
            if (leaves := turns.who_leaves(there, time.monotonic())) is not None:
                _tell_to_leave(there[leaves])
            for hurries in who_hurries(there):
                with contextlib.suppress(OSError):
                    there[hurries].lifeline.send(HURRY)

    def _look_at_memory(self, child: Child) -> None:
        limit = resident_limit(each=self.memory_limit, group=group_limit(), processes=self.workers)
        child.memory.looked(use_of(child.process.pid, resident_limit=limit), time.monotonic())

    async def _kill_all(self, keepers: list[asyncio.Task[None]]) -> None:
        for child in (*self.children.values(), *self.departing):
            _end(child)
        tasks = [*keepers, *self.departing.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell_to_leave(child: Child) -> None:
    log.warning("a serving process nears its memory limit and leaves", extra=_figures(child))
    with contextlib.suppress(ProcessLookupError):
        child.process.terminate()


def _figures(child: Child) -> dict[str, int]:
    used, limit = (child.memory.use.used, child.memory.use.limit) if child.memory.use is not None else (0, 0)
    return {"pid": child.process.pid, "used_mib": used // MIB, "limit_mib": limit // MIB}


def _end(child: Child) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was quicker
        child.process.kill()


def listen(host: str, port: int) -> socket.socket:
    """The one socket all children accept on. Raises OSError when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=2048)
    listening.setblocking(False)
    return listening
