"""Two processes, one database, let go at once.

Each child is a Django of its own on the file of the test's database, or on a server's. A job is named, prepared in both, and begun
by both at the same moment of the machine's monotonic clock, many times over: each time they tell one another, over a socket of their
own, when they can begin. What each time gave comes back as JSON. A pipe closed by a parent that is gone ends them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from django.conf import settings

ROOT = Path(__file__).parents[2]
PREPARES_S = 0.03


def given(answer: dict[str, Any]) -> list[Any]:
    assert "problem" not in answer, answer["problem"]
    return list(answer["given"])


class Child:
    def __init__(self, database_url: str, spool: str, other: socket.socket | None = None) -> None:
        """`other`: where it meets the other one of a pair."""
        own = {"DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "supportvoice.settings", "SPOOL_DIR": spool}
        meets_at = [] if other is None else [other.fileno()]
        command = [sys.executable, "-m", "tests.races.child", *map(str, meets_at)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "pass_fds": meets_at}
        self.process = subprocess.Popen(command, cwd=ROOT, env=os.environ | own, **pipes)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in: IO[str] = self.process.stdin
        self._out: IO[str] = self.process.stdout

    def ready(self) -> None:
        assert self._out.readline() == "ready\n"

    def begin(self, job: str, each: list[dict[str, Any]], at: float, *, meets: bool = False) -> None:
        self._in.write(json.dumps({"job": job, "each": each, "at": at, "meets": meets}) + "\n")
        self._in.flush()

    def answer(self) -> dict[str, Any]:
        """What each time gave, or the problem there was."""
        told: dict[str, Any] = json.loads(self._out.readline())
        return told

    def results(self) -> list[Any]:
        return given(self.answer())

    def end(self) -> None:
        self._in.close()
        self._out.close()
        self.process.wait(10)


class Pair:
    def __init__(self, database_url: str = "") -> None:
        url = database_url or f"sqlite:///{settings.DATABASES['default']['NAME']}"
        self._spool = TemporaryDirectory()
        one, two = socket.socketpair()
        with one, two:
            self._children = (Child(url, self._spool.name, one), Child(url, self._spool.name, two))
        for child in self._children:
            child.ready()

    def at_once(
        self, job: str, each: list[dict[str, Any]], other: str = "", others: list[dict[str, Any]] | None = None, *, each_time: bool = True
    ) -> list[tuple[Any, Any]]:
        """Both do `job` with each of these arguments, or the second does `other` with `others`; what each pair gave.

        They begin together `each_time`, or the first time only.
        """
        at = time.monotonic() + PREPARES_S
        jobs = ((job, each), (other or job, each if others is None else others))
        for child, (name, arguments) in zip(self._children, jobs, strict=True):
            child.begin(name, arguments, at, meets=each_time)
        answers = [child.answer() for child in self._children]  # both, also if there was a problem: the next test asks them too
        first, second = map(given, answers)
        return list(zip(first, second, strict=True))

    def first(self, job: str, **arguments: Any) -> Any:
        """What `job` gives in the first of them, alone."""
        self._children[0].begin(job, [arguments], time.monotonic())
        return self._children[0].results()[0]

    def end(self) -> None:
        for child in self._children:
            child.end()
        self._spool.cleanup()
