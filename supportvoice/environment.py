"""Settings from the environment: NAME, or the file that NAME_FILE names, for secrets that a platform mounts as files."""

from __future__ import annotations

from typing import Any

import environ
from environ.fileaware_mapping import FileAwareMapping


class Files(FileAwareMapping):  # type: ignore[misc]
    """What stands in a file, without the line end that every editor leaves there."""

    def __getitem__(self, key: str) -> Any:
        try:
            return super().__getitem__(key).rstrip("\r\n")
        except (OSError, UnicodeError) as problem:
            why = getattr(problem, "strerror", None) or "it is no text"
            raise SystemExit(f"The file of {key}_FILE cannot be read: {why}.") from None


class Env(environ.Env):  # type: ignore[misc]
    ENVIRON = Files()
