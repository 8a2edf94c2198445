"""The one-time token that opens a media stream: `<epoch>.<expires>.<MAC>`.

It proves that the stream belongs to the call and epoch we answered, also when no database is there to ask. It is made
from the call's own fields and nothing random, so a repeated webhook gets the same bytes; *one-time* is the ledger's
part (it admits each epoch once). Times are whole seconds of the wall clock.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable

from bridge.errors import BadMessage

LIFE_S = 120  # a minute for the stream to open, and as much for the disclosure spoken before it
TOKEN = re.compile(r"(0|[1-9][0-9]{0,8})\.([1-9][0-9]{0,11})\.([A-Za-z0-9_-]{43})", re.ASCII)


def key_from(secret: str) -> bytes:
    """The signing key for this purpose alone, made from the application's secret."""
    return hmac.digest(secret.encode(), b"supportvoice: media stream token", hashlib.sha256)


def issue(*, key: bytes, call_sid: str, epoch: int, expires: int) -> str:
    """The token for the stream `epoch` of a call; good up to and including second `expires`."""
    return f"{epoch}.{expires}.{_mac(key, call_sid, epoch, expires)}"


def check(*, key: bytes, token: str, call_sid: str, now: float, former: Iterable[bytes] = ()) -> int:
    """The epoch the token was issued for. Raises BadMessage when it is forged, another call's, or too old.

    `former`: keys that are being rotated out; what they signed is still good.
    """
    parts = TOKEN.fullmatch(token)
    if parts is None:
        raise BadMessage("The stream token is malformed.")
    epoch, expires = int(parts[1]), int(parts[2])
    if not any(hmac.compare_digest(parts[3], _mac(one, call_sid, epoch, expires)) for one in (key, *former)):
        raise BadMessage("The stream token was not issued for this call.")
    if now > expires:
        raise BadMessage("The stream token is too old.")
    return epoch


def _mac(key: bytes, call_sid: str, epoch: int, expires: int) -> str:
    digest = hmac.digest(key, f"{call_sid}|{epoch}|{expires}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
