"""Keeps what is told while the database is away, and stores it when the database is back: in order, and once.

`append` puts it on the disk (`calls.spool`) and starts a thread, which looks four times a second whether the database takes
a write. Then everything goes in as it was told, a batch a transaction, and the number of its last line with it: whoever dies
in between is taken up exactly there. Until the last line is in, whatever is new goes behind the others.

While the database is known to be away nobody asks it in vain: `is_away` is looked at before. A thread that waits for a
database costs its caller what the caller has: time. But one that was busy is not away: only a further write, made for nothing
else, says so.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.db import connections, transaction

from calls import away, spool
from calls.models import SpoolMark
from calls.spool import Line, Spool

log = logging.getLogger(__name__)

LOOK_S = 0.25
LINES_AT_ONCE = 50  # whoever carries a call meanwhile waits for the lock no longer than one of these takes
OTHERS_FIRST_S = 0.02
Store = Callable[[Sequence[Mapping[str, Any]]], None]


class Keeper:
    """One per process. `store` puts a batch into the database, in its order, inside a transaction, or raises.

    An empty batch, outside of any transaction, stands for the calls that were answered by heart. `finish` is called when
    nothing that any process of this machine kept waits any more: for what has to come after all of it.
    """

    def __init__(self, *, spool: Spool, directory: Path, store: Store, finish: Callable[[], None] = lambda: None) -> None:
        self.spool = spool
        self._directory, self._store, self._finish = directory, store, finish
        self._lock, self._asking, self._found_out = threading.Lock(), threading.Lock(), threading.Condition()
        self._asked_at = float("-inf")
        self._is_suspect = False
        self._thread: threading.Thread | None = None
        self._away_since: float | None = None
        self._looks_again = False
        self._stopping = threading.Event()

    # -- for everybody: these never ask the database -------------------------------------------------------------------

    @property
    def is_away(self) -> bool:
        """True from when the database was found not to take a write, until it takes one."""
        return self._away_since is not None

    @property
    def holds(self) -> bool:
        """True while what is new has to go behind what is kept already."""
        return self.is_away or self.spool.waits

    def append(self, told: Sequence[Mapping[str, Any]]) -> bool:
        """Keep these. False when there was no room for all of them."""
        kept = self.spool.append(told)
        self.look()
        return kept == len(told)

    def look(self) -> None:
        """There is something to store, or may be soon."""
        with self._lock:
            if self._stopping.is_set():
                return
            self._looks_again = True
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name="keeper", daemon=True)
                thread.start()
                self._thread = thread  # not before: `stop` joins it

    def suspect(self) -> None:
        """The database did not do what it was asked in time: find out whether it is away. Returns at once."""
        self._is_suspect = True
        self.look()

    # -- for whoever cannot go on without knowing --------------------------------------------------------------------

    def ask(self) -> bool:
        """True when the database is away. Asks it for a write, for a second at most; one asks for all who want to know."""
        since = time.monotonic()
        with self._asking:
            if self._away_since is None and self._asked_at < since:
                self._find_out()
        self.look()
        return self.is_away

    def is_found_away(self, *, within_s: float) -> bool | None:
        """As `ask`, for whoever waits no longer than that: the thread asks. None when nobody knows by then."""
        since = time.monotonic()
        self.suspect()
        with self._found_out:
            is_known = self._found_out.wait_for(lambda: self.is_away or self._asked_at > since, within_s)
        return self.is_away if is_known else None

    def _find_out(self) -> None:
        try:
            away.ask_for_a_write()
        except Exception as problem:  # whatever it is, this database takes nothing
            self._away_since = time.monotonic()
            log.error("The database is away; what is told is kept in the spool", extra={"problem": type(problem).__name__})
        with self._found_out:
            self._asked_at, self._is_suspect = time.monotonic(), False
            self._found_out.notify_all()

    def stop(self) -> None:
        """Look no more. What is kept stays on the disk, for whoever comes next."""
        self._stopping.set()
        if (thread := self._thread) is not None:
            thread.join(5.0)

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._looks_again = False
                self._look()
                with self._lock:
                    if not (self.holds or self._is_suspect or self._looks_again):
                        self._thread = None
                        return
                self._stopping.wait(LOOK_S)
        finally:
            connections.close_all()

    def _look(self) -> None:
        if self._is_suspect and self._away_since is None:
            with self._asking:
                self._find_out()
            if self._away_since is not None:
                return
        try:
            if self._away_since is not None:
                away.ask_for_a_write()
                log.warning("The database is back", extra={"s": round(time.monotonic() - self._away_since, 1)})
                self._away_since = None
            self.replay()
        except Exception as problem:  # whatever the database raises: this thread must live on
            if not away.is_away(problem):
                log.error("The spool could not be stored", extra={"problem": type(problem).__name__})
            else:
                self._is_suspect = True
            connections.close_all()

    def replay(self) -> int:
        """Store what this process kept. Returns how many lines. Raises what the database raises."""
        self._store([])
        stored, name = 0, self.spool.name
        while lines := self.spool.unread(at_most=LINES_AT_ONCE):
            name = self.spool.name
            for part in self._stored(name, lines):
                self.spool.was_read(part)
                stored += len(part)
            self._stopping.wait(OTHERS_FIRST_S)
        if stored:
            SpoolMark.objects.filter(name=name).delete()
            log.warning("What the spool kept is stored", extra={"lines": stored})
        self._finish_if_all_is_told()
        return stored

    def adopt(self) -> int:
        """Store what dead processes of this machine kept. Returns how many lines. Raises what the database raises."""
        self._store([])
        stored = sum(map(self._adopted, spool.files(self._directory)))
        self._finish_if_all_is_told()
        return stored

    def _finish_if_all_is_told(self) -> None:
        """Whoever stores the last file comes here after it is gone, so of several processes one at least finds none."""
        if not spool.files(self._directory):
            self._finish()

    def _adopted(self, path: Path) -> int:
        stored, at = 0, 0
        with spool.adopted(path) as file:
            if file is None:
                return 0
            while lines := spool.lines_of(file, at, LINES_AT_ONCE):
                at += sum(len(spool.encoded(*line)) for line in lines)
                stored += sum(map(len, self._stored(path.name, lines)))
                self._stopping.wait(OTHERS_FIRST_S)
            spool.end(path, os.dup(file))
        SpoolMark.objects.filter(name=path.name).delete()
        log.warning("What a dead process kept is stored", extra={"lines": stored})
        return stored

    def _stored(self, name: str, lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
        """Store these, all at once if the database takes them so. Yields what is stored, as soon as it is.

        What the mark says is stored already is not stored again: whoever stored it may have failed, or died, after that.
        """
        self._store([])  # the calls these lines are of
        try:
            with transaction.atomic():
                mark, _ = SpoolMark.objects.get_or_create(name=name, defaults={"number": 0})
                if new := [line.told for line in lines if line.number > mark.number]:
                    SpoolMark.objects.filter(pk=mark.pk).update(number=lines[-1].number)
                    self._store(new)
        except Exception as problem:
            if away.is_away(problem):
                raise
            if len(lines) > 1:
                for line in lines:
                    yield from self._stored(name, [line])
                return
            log.error("The database refused a line of the spool", extra={"problem": type(problem).__name__})
            SpoolMark.objects.update_or_create(name=name, defaults={"number": lines[-1].number})
        yield lines
