"""The one message of Twilio's that comes fifty times a second, read without parsing it.

Twilio writes every media message the same way, so it is known by how it begins and how it ends, and what stands between is
the sound. Whatever deviates by one byte is left to `twilio_media.read`, which alone knows what is wrong with a message: this
here either gives what that would give or nothing at all. Pure.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable

NUMBER = "(?:0|[1-9][0-9]{0,14})"
BEGIN = re.compile(
    rf'\{{"event":"media","sequenceNumber":"{NUMBER}","media":\{{"track":"inbound","chunk":"{NUMBER}","timestamp":"{NUMBER}","payload":"'.encode()
).match
LONGEST = 2000  # bytes: over a second of sound


def express(stream_sid: str) -> Callable[[bytes], bytes | None]:
    """What reads a message of this stream, as it came: its sound, or None when `twilio_media.read` has to be asked."""
    end = f'"}},"streamSid":"{stream_sid}"}}'.encode()
    behind = len(end)

    def sound_of(message: bytes) -> bytes | None:
        begin = BEGIN(message)
        if begin is None or not message.endswith(end):
            return None
        first, last = begin.end(), len(message) - behind
        if not first < last < LONGEST:
            return None
        try:
            return a2b_base64(message[first:last], strict_mode=True)
        except Base64Error:
            return None

    return sound_of
