"""Who may tell us that Vapi said something: the three ways Vapi can show the secret we share with it.

The legacy header `X-Vapi-Secret`, a bearer token, or an HMAC over `{timestamp}.{body}` with the credential's defaults
(SHA-256, hex). The unit of that timestamp is not documented, so seconds and milliseconds are both understood.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping

WINDOW_S = 300
MILLISECONDS_FROM = 10**11  # as seconds this would be the year 5138
TIMESTAMP = re.compile(r"[0-9]{9,14}", re.ASCII)


class VapiProof:
    """Checks a webhook against every secret in use (several while one is rotated out). No secret: nobody passes."""

    def __init__(self, *, secrets: Iterable[str]) -> None:
        self._secrets = [secret.encode() for secret in secrets if secret]

    def __call__(self, *, headers: Mapping[str, str], body: bytes, now: float) -> bool:
        """True when any of the three proofs holds. `headers` must ignore case; `now` is wall time in seconds."""
        shown = [headers.get("X-Vapi-Secret", "")]
        scheme, _, bearer = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            shown.append(bearer.strip())
        known = self._knows(shown)
        return self._signed(headers, body, now) or known

    def _knows(self, shown: list[str]) -> bool:
        """Every pair is compared, and each in constant time: how long it takes says nothing about a secret."""
        found = False
        for value in shown:
            for secret in self._secrets:
                found |= hmac.compare_digest(value.encode("utf-8", "replace"), secret)
        return found

    def _signed(self, headers: Mapping[str, str], body: bytes, now: float) -> bool:
        timestamp = headers.get("X-Timestamp", "")
        if not TIMESTAMP.fullmatch(timestamp):
            return False
        seconds = int(timestamp) / (1000 if int(timestamp) >= MILLISECONDS_FROM else 1)
        if abs(now - seconds) > WINDOW_S:
            return False
        shown = headers.get("X-Signature", "").removeprefix("sha256=").lower().encode("utf-8", "replace")
        found = False
        for secret in self._secrets:
            mac = hmac.digest(secret, timestamp.encode() + b"." + body, hashlib.sha256)
            found |= hmac.compare_digest(shown, mac.hex().encode())
        return found
