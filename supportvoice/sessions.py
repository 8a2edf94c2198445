"""Log-ins, as Django keeps them in the database, but without the keys: a row is found by the hash of its key.

Whoever reads the database, or a copy of it, finds no cookie to come in with. A cookie that holds no key of ours is not
looked for: a browser can put a NUL into it, and PostgreSQL refuses to be asked about one: every page would fail.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from django.contrib.sessions.backends import db
from django.contrib.sessions.base_session import AbstractBaseSession
from django.utils import timezone

KEY = re.compile(r"[a-z0-9]{32}")
KEPT = 40  # characters, as many as the column has: 160 bits


def row_of(session_key: str | None) -> str:
    """What the row of a session is found by."""
    return hashlib.sha256((session_key or "").encode()).hexdigest()[:KEPT]


class SessionStore(db.SessionStore):
    """Django's asynchronous half is not used here, and would not find these rows."""

    def exists(self, session_key: str) -> bool:
        return super().exists(row_of(session_key))

    def delete(self, session_key: str | None = None) -> None:
        if key := session_key or self.session_key:
            super().delete(row_of(key))

    def create_model_instance(self, data: dict[str, Any]) -> AbstractBaseSession:
        row = super().create_model_instance(data)
        row.session_key = row_of(row.session_key)
        return row

    def _get_session_from_db(self) -> AbstractBaseSession | None:
        row = self.model.objects.filter(session_key=row_of(self.session_key), expire_date__gt=timezone.now()).first()
        if row is None:
            self._session_key = None
        return row

    def _validate_session_key(self, key: Any) -> bool:
        return isinstance(key, str) and KEY.fullmatch(key) is not None
