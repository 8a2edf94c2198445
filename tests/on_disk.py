"""The files of the test's database, as they lie on the disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

from django.db import connection


def bytes_of_the_database() -> bytes:
    """The file, and the log beside it. Another process reads them.

    Who closes a file gives up all locks that its process has on it (POSIX): SQLite in a process that ends would take itself for the
    last one then, and take the log away from ours.
    """
    path = Path(connection.settings_dict["NAME"])
    files = [file for file in (path, path.with_name(f"{path.name}-wal")) if file.exists()]
    return subprocess.run(["cat", *files], check=True, capture_output=True).stdout
