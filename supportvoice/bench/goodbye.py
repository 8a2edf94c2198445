"""What both vendors tell of a call that is over, each with a POST of its own: Twilio its status callback, Vapi the end of its session.

Until then its rows are not done with: a caller whose stream has stopped may come again. A stranger to the house, as the load is.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha1
from hmac import digest
from urllib.parse import urlencode

STATUS_PATH, VAPI_PATH = "/webhook/twilio/status", "/webhook/vapi"
ANSWERS_WITHIN_S = 10.0
TRIES, APART_S = 3, 0.5  # a database that many write to may ask to be told again


def vapi_call_id(call_sid: str) -> str:
    """The CallSid's own digits, so that whoever knows the one knows the other."""
    return str(uuid.UUID(call_sid[2:]))


@dataclass(frozen=True, slots=True)
class LastWords:
    """`port` is where the subject listens; the rest is what it knows both vendors by."""

    port: int
    auth_token: str
    account_sid: str
    vapi_secret: str

    async def told_of(self, call_sid: str) -> bool:
        """True when both were taken."""
        ended = {"type": "status-update", "status": "ended", "endedReason": "customer-ended-call"}
        session = {"message": {**ended, "call": {"id": vapi_call_id(call_sid), "name": f"{call_sid}.0"}}}
        form = {"AccountSid": self.account_sid, "CallSid": call_sid, "CallStatus": "completed"}
        by_twilio = {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": self._signature(form)}
        by_vapi = {"Content-Type": "application/json", "X-Vapi-Secret": self.vapi_secret}
        taken = await self._taken(STATUS_PATH, by_twilio, urlencode(form).encode())
        return await self._taken(VAPI_PATH, by_vapi, json.dumps(session).encode()) and taken

    def _signature(self, form: Mapping[str, str]) -> str:
        signed = f"http://127.0.0.1:{self.port}{STATUS_PATH}" + "".join(name + form[name] for name in sorted(form))
        return b64encode(digest(self.auth_token.encode(), signed.encode(), sha1)).decode()

    async def _taken(self, path: str, headers: Mapping[str, str], body: bytes) -> bool:
        for _ in range(TRIES):
            if await self._post(path, headers, body) == 200:
                return True
            await asyncio.sleep(APART_S)
        return False

    async def _post(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        """The status of the answer; 0 when none came."""
        whole = {"Host": f"127.0.0.1:{self.port}", "Connection": "close", "Content-Length": str(len(body)), **headers}
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in whole.items())
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(head.encode() + b"\r\n" + body)
                    first, *_ = (await reader.read()).split(b"\r\n")
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return 0
        return int(first.split()[1]) if first.startswith(b"HTTP/") else 0
