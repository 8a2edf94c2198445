"""Proof for a tool that a request is ours: HMAC-SHA256 over the time and the body, with a secret both sides know.

The secret is the one of all tools (setting TOOL_SIGNING_SECRET) or stands in an environment variable that the tool names.
A published version keeps that name and never the value. A tool whose own secret is missing is not called at all.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings

from agents.limits import secret_problem

TIMESTAMP, SIGNATURE, TOOL_CALL = "X-Supportvoice-Timestamp", "X-Supportvoice-Signature", "X-Supportvoice-Tool-Call"
FITS_A_HEADER = re.compile(r"[!-~]{1,100}", re.ASCII)


class SecretMissing(Exception):
    """The tool names a variable that holds nothing, or one that may not be used; the text is one plain sentence without either."""


def secret_of(tool: Mapping[str, Any]) -> str:
    """What this tool's requests are signed with; empty when they are not. Raises SecretMissing."""
    name = str(tool.get("secret_env") or "")
    if not name:
        return str(settings.TOOL_SIGNING_SECRET)
    secret = "" if secret_problem(name) else _from_environment(name)
    if not secret:
        raise SecretMissing("A tool's signing secret is missing from the environment.")
    return secret


def headers(*, body: bytes, secret: str, tool_call_id: str, at: float) -> dict[str, str]:
    """What goes beside a `body`, at `at` seconds since 1970. The tool call's id comes once for one effect, however often the body does."""
    beside = {TOOL_CALL: tool_call_id if FITS_A_HEADER.fullmatch(tool_call_id) else hashlib.sha256(tool_call_id.encode()).hexdigest()}
    if secret:
        stamp = str(int(at))
        signed = hmac.new(secret.encode(errors="surrogateescape"), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        beside |= {TIMESTAMP: stamp, SIGNATURE: f"sha256={signed}"}
    return beside


def _from_environment(name: str) -> str:
    """NAME, or the content of the file that NAME_FILE names, as for the settings."""
    path = os.environ.get(f"{name}_FILE", "")
    try:
        return Path(path).read_text().strip() if path else os.environ.get(name, "").strip()
    except (OSError, ValueError):
        return ""
