"""Two processes, one database, let go at once.

Each child is a Django of its own on the file of the test's database, or on a server's. A job is named, prepared in both, and begun
by both at the same moment of the machine's monotonic clock, many times over; what each time gave comes back as JSON. A pipe closed
by a parent that is gone ends them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from django.conf import settings

ROOT = Path(__file__).parents[2]
PREPARES_S, GAP_S = 0.03, 0.015


class Child:
    def __init__(self, database_url: str, spool: str) -> None:
        own = {"DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "supportvoice.settings", "SPOOL_DIR": spool}
        command = [sys.executable, "-m", "tests.races.child"]
        self.process = subprocess.Popen(command, cwd=ROOT, env=os.environ | own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in: IO[str] = self.process.stdin
        self._out: IO[str] = self.process.stdout

    def ready(self) -> None:
        assert self._out.readline() == "ready\n"

    def begin(self, job: str, each: list[dict[str, Any]], at: float, gap_s: float) -> None:
        self._in.write(json.dumps({"job": job, "each": each, "at": at, "gap_s": gap_s}) + "\n")
        self._in.flush()

    def results(self) -> list[Any]:
        answer = json.loads(self._out.readline())
        assert "problem" not in answer, answer["problem"]
        given: list[Any] = answer["given"]
        return given

    def end(self) -> None:
        self._in.close()
        self._out.close()
        self.process.wait(10)


class Pair:
    def __init__(self, database_url: str = "") -> None:
        url = database_url or f"sqlite:///{settings.DATABASES['default']['NAME']}"
        self._spool = TemporaryDirectory()
        self._children = (Child(url, self._spool.name), Child(url, self._spool.name))
        for child in self._children:
            child.ready()

    def at_once(
        self, job: str, each: list[dict[str, Any]], other: str = "", others: list[dict[str, Any]] | None = None, *, gap_s: float = GAP_S
    ) -> list[tuple[Any, Any]]:
        """Both do `job` with each of these arguments, or the second does `other` with `others`; what each pair gave."""
        at = time.monotonic() + PREPARES_S
        jobs = ((job, each), (other or job, each if others is None else others))
        for child, (name, arguments) in zip(self._children, jobs, strict=True):
            child.begin(name, arguments, at, gap_s)
        first, second = (child.results() for child in self._children)
        return list(zip(first, second, strict=True))

    def first(self, job: str, **arguments: Any) -> Any:
        """What `job` gives in the first of them, alone."""
        self._children[0].begin(job, [arguments], time.monotonic(), 0.0)
        return self._children[0].results()[0]

    def end(self) -> None:
        for child in self._children:
            child.end()
        self._spool.cleanup()
