"""The one command: what is true of it whatever it is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("lines", [1, 100_000], ids=["what waits in the buffer", "more than it holds"])
def test_a_reader_that_has_enough_ends_any_command_quietly(lines: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", f"for n in range({lines}): print(n)"]
        env = os.environ | {"PYTHONUNBUFFERED": ""}  # or there is no buffer
        ended = subprocess.run(command, cwd=ROOT, env=env, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")
