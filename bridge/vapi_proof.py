"""Who may tell us that Vapi said something: the three ways Vapi can show the secret we share with it.

The legacy header `X-Vapi-Secret`, a bearer token, or an HMAC over `{timestamp}.{body}`. A credential may choose the hash
(SHA-256, SHA-512, SHA-1), the encoding (hex, base64) and a prefix; a signature's length tells which it is. The unit of the
timestamp is not documented, so seconds and milliseconds are both understood.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable, Mapping

WINDOW_S = 300
MILLISECONDS_FROM = 10**11  # as seconds this would be the year 5138
TIMESTAMP = re.compile(r"[0-9]{9,14}", re.ASCII)
PREFIX = re.compile(r"^(sha1|sha256|sha512|v1)[=,]", re.IGNORECASE)
HEX = {40: "sha1", 64: "sha256", 128: "sha512"}
BASE64 = {27: "sha1", 43: "sha256", 86: "sha512"}  # without padding


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
        shown = PREFIX.sub("", headers.get("X-Signature", ""), count=1)
        found = False
        for secret in self._secrets:
            found |= _is_signature(shown, secret, timestamp.encode() + b"." + body)
        return found


def _is_signature(shown: str, secret: bytes, signed: bytes) -> bool:
    if algorithm := HEX.get(len(shown)):
        return hmac.compare_digest(shown.lower().encode("utf-8", "replace"), hmac.digest(secret, signed, algorithm).hex().encode())
    bare = shown.rstrip("=").translate(str.maketrans("-_", "+/"))
    if algorithm := BASE64.get(len(bare)):
        made = base64.b64encode(hmac.digest(secret, signed, algorithm)).rstrip(b"=")
        return hmac.compare_digest(bare.encode("utf-8", "replace"), made)
    return False
