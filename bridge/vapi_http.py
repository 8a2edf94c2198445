"""Vapi's REST side: create calls and assistants, end calls. It answers in time or says whether a call may exist anyway.

Deadlines are CALL.md M9: `POST /call` has no idempotency key, so it is tried a second time only when it is certain that
the first try created nothing (no connection, 429, 503), never after a read time-out. What Vapi answers is a stranger's
text: bounded, checked field by field, never repeated in an error. The two URLs of a call open it to whoever has them.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from bridge.deadline import Answer, Courier, NoAnswer
from bridge.errors import BadMessage, VapiError, VapiRefused, VapiUnavailable
from bridge.untrusted import parse_untrusted
from bridge.vapi_ending import end_on_socket

CREATE_CALL_S = 3.0  # while a caller waits, retry included
NOBODY_WAITS_S = 10.0
LET_GO_S = 0.5
RETRY_AFTER_S = 0.2
MAX_ANSWER_BYTES = 256 * 1024
MAX_URL_CHARS = 500
USER_AGENT = "supportvoice/0.1"  # Vapi's edge refuses the default Python ones
CREATED_NOTHING = {429, 503}
IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")
URL = re.compile(r"(?P<scheme>[a-z]+)://(?P<host>[a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~%/?&=+:,@-]*)?")


@dataclass(frozen=True, slots=True)
class VapiCall:
    """A Vapi call that exists. Its URLs are secrets; `control_url` is empty when Vapi gave none we may use."""

    id: str
    socket_url: str = field(repr=False)
    control_url: str = field(repr=False)


class VapiClient:
    """One account at Vapi, or at any server that speaks like it. Safe to share between threads.

    `socket_hosts`: where Vapi may send us, as host names or `*.domain`; empty means the host of `base_url`, its
    sub-domains and `*.vapi.ai`. Plain `ws://` and `http://` are accepted only when `base_url` is plain http itself.
    """

    def __init__(self, *, base_url: str, api_key: str, socket_hosts: Iterable[str] = (), courier: Courier | None = None) -> None:
        parts = urlsplit(base_url)
        self._base_url = base_url.rstrip("/")
        self._plain = parts.scheme == "http"
        self._hosts = tuple(host.lower() for host in socket_hosts) or _usual_hosts(parts.hostname or "")
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._courier = courier or Courier(user_agent=USER_AGENT)

    def create_call(
        self,
        request: Mapping[str, Any],
        *,
        deadline_s: float = CREATE_CALL_S,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> VapiCall:
        """Create a call over the WebSocket transport within `deadline_s` seconds in all.

        Raises VapiUnavailable (`sent`: a call may exist all the same) or VapiRefused.
        """
        until = clock() + deadline_s
        try:
            return self._read_call(self._post("/call", request, within=deadline_s))
        except VapiUnavailable as first:
            left = until - clock() - RETRY_AFTER_S
            if first.sent or left <= 0:
                raise
            pause(RETRY_AFTER_S)
        return self._read_call(self._post("/call", request, within=left))

    def create_assistant(self, assistant: Mapping[str, Any], *, deadline_s: float = NOBODY_WAITS_S) -> str:
        """Store an assistant and return its id. Raises VapiUnavailable or VapiRefused."""
        answer = _object(self._post("/assistant", assistant, within=deadline_s))
        return _identifier(answer.get("id"))

    def end_call(self, control_url: str, *, deadline_s: float = NOBODY_WAITS_S) -> None:
        """End a running call; ending one that is over or unknown is no error. Raises VapiUnavailable or VapiRefused."""
        if not self._leads_to_vapi(control_url, secure="https", plain="http"):
            raise VapiRefused("The control address does not lead to Vapi.")
        try:
            self._post(control_url, {"type": "end-call"}, within=deadline_s)
        except VapiRefused as refused:
            if refused.status not in (404, 410):
                raise

    def end_by_socket(self, socket_url: str) -> None:
        """End a running call that has no control address, within 2 s. Errors are those of `end_call`."""
        if not self._leads_to_vapi(socket_url, secure="wss", plain="ws"):
            raise VapiRefused("The socket address does not lead to Vapi.")
        end_on_socket(socket_url, headers=self._headers | {"User-Agent": USER_AGENT})

    def close(self) -> None:
        self._courier.close()

    def _post(self, where: str, body: Mapping[str, Any], *, within: float) -> bytes:
        url = self._base_url + where if where.startswith("/") else where
        try:
            answer = self._courier.post(url, body=orjson.dumps(body), headers=self._headers, within=within, max_bytes=MAX_ANSWER_BYTES)
        except NoAnswer as nothing:
            sentence = "Vapi did not answer in time." if nothing.late else "Vapi cannot be reached."
            raise VapiUnavailable(sentence, sent=nothing.sent) from None
        return _success(answer)

    def _read_call(self, body: bytes) -> VapiCall:
        answer = _object(body)
        control_url = _inside(answer, "monitor", "controlUrl")
        if not isinstance(control_url, str) or not self._leads_to_vapi(control_url, secure="https", plain="http"):
            control_url = ""  # the call is then ended through its socket
        try:
            return self._usable_call(answer, control_url)
        except VapiError:
            with contextlib.suppress(VapiError):  # it runs at Vapi all the same, or keeps a line busy
                self.end_call(control_url, deadline_s=LET_GO_S)
            raise

    def _usable_call(self, answer: Mapping[str, Any], control_url: str) -> VapiCall:
        call_id = _identifier(answer.get("id"))
        socket_url = _inside(answer, "transport", "websocketCallUrl")
        if not isinstance(socket_url, str) or not self._leads_to_vapi(socket_url, secure="wss", plain="ws"):
            raise VapiRefused("Vapi's answer has no usable socket address.", status=201)
        if _inside(answer, "subscriptionLimits", "concurrencyBlocked") is True:
            raise VapiUnavailable("Vapi's line limit is reached.", status=201, sent=True)
        return VapiCall(id=call_id, socket_url=socket_url, control_url=control_url)

    def _leads_to_vapi(self, url: str, *, secure: str, plain: str) -> bool:
        """Only addresses that every parser reads alike, so that the host we check is the host that is called."""
        match = URL.fullmatch(url) if len(url) <= MAX_URL_CHARS else None
        if match is None or match["scheme"] not in ({secure, plain} if self._plain else {secure}):
            return False
        host = match["host"].strip("[]")
        return any(host.endswith(name[1:]) if name.startswith("*.") else host == name for name in self._hosts)


def _usual_hosts(host: str) -> tuple[str, ...]:
    return (host, f"*.{host}", "*.vapi.ai")


def _success(answer: Answer) -> bytes:
    status = answer.status
    if status in CREATED_NOTHING:
        raise VapiUnavailable("Vapi is too busy." if status == 429 else "Vapi is out of service.", status=status)
    if status >= 500:
        raise VapiUnavailable("Vapi failed.", status=status, sent=True)
    if not 200 <= status < 300:
        raise VapiRefused(f"Vapi refused with {status}.", status=status)
    if not answer.whole:
        raise VapiRefused("Vapi's answer is too long.", status=status)
    return answer.body


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = parse_untrusted(body, max_bytes=MAX_ANSWER_BYTES)
    except BadMessage:
        raise VapiRefused("Vapi's answer is not sane JSON.", status=201) from None
    if not isinstance(value, dict):
        raise VapiRefused("Vapi's answer is not an object.", status=201)
    return value


def _inside(answer: Mapping[str, Any], outer: str, inner: str) -> Any:
    part = answer.get(outer)
    return part.get(inner) if isinstance(part, dict) else None


def _identifier(value: Any) -> str:
    if not isinstance(value, str) or not IDENTIFIER.fullmatch(value):
        raise VapiRefused("Vapi's answer has no usable id.", status=201)
    return value
