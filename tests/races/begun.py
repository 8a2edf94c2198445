"""A process of this directory that takes orders, a line each, on a database of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from tests.races.pair import ROOT


@contextmanager
def begun(module: str, *, database_url: str, **env: str) -> Iterator[tuple[IO[str], IO[str]]]:
    """Where it is told, and where it tells, once it is ready."""
    own = {"DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "supportvoice.settings", **env}
    command = [sys.executable, "-m", module]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.stdin, process.stdout
        process.stdin.close()
