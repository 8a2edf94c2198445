"""A disk of 64 KiB that a test can fill: only the kernel's own ENOSPC says what a full disk still takes.

To mount one wants root; tests that do are marked `small_disk`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SIZE = 64 * 1024
PAGE = 4096  # what the smallest file takes of it


@contextmanager
def small_disk(at: Path) -> Iterator[None]:
    """Inside, everything below `at` is on a disk of its own. Raises CalledProcessError where nobody may mount one."""
    at.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "small-disk", str(at)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True, capture_output=True)  # lazily, for a spool may be open


@contextmanager
def filled(disk: Path, *, but: int = 0) -> Iterator[None]:
    """Inside, there is no byte left on it; or so many."""
    rest = disk / "rest"
    with rest.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"\0" * PAGE):
            pass
    os.truncate(rest, rest.stat().st_size - but)
    try:
        yield
    finally:
        rest.unlink()


def can_be_had() -> bool:
    with tempfile.TemporaryDirectory() as directory, suppress(OSError, subprocess.CalledProcessError), small_disk(Path(directory)):
        return True
    return False
