"""Log-ins, as Django keeps them in the database; a cookie that holds no key of ours is not looked for.

A browser can put a NUL into a cookie, and PostgreSQL refuses to be asked about one: every page of such a browser would fail.
"""

from __future__ import annotations

import re
from typing import Any

from django.contrib.sessions.backends import db

KEY = re.compile(r"[a-z0-9]{32}")


class SessionStore(db.SessionStore):
    def _validate_session_key(self, key: Any) -> bool:
        return isinstance(key, str) and KEY.fullmatch(key) is not None
