"""What Vapi's REST answers say, once they are believed: a stranger's text, bounded, checked field by field, never repeated in an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from bridge.errors import BadMessage, VapiRefused
from bridge.untrusted import parse_untrusted

MAX_ANSWER_BYTES = 256 * 1024
MAX_LIST_BYTES = 8 * 1024 * 1024  # a listed call carries its assistant and, when it is over, all that was said
LIST_NODES = 400_000
MAX_CALL_BYTES = 8 * 1024 * 1024  # as an end-of-call report may have, and this is one
CALL_NODES = 1_000_000
MAX_REFUSAL_BYTES = 4096  # as far as it is looked at
LIMITS = {401: "key", 402: "credit", 403: "key"}
SAID_IN_WORDS = (  # of a 400
    ("over concurrency limit", "lines"),
    ("wallet balance", "credit"),
    ("insufficient credits", "credit"),
    ("subscription is frozen", "credit"),
)
MAX_URL_CHARS = 500
MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,16}Z", re.ASCII)
IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")
URL = re.compile(r"(?P<scheme>[a-z]+)://(?P<host>[a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~%/?&=+:,@-]*)?")


@dataclass(frozen=True, slots=True)
class VapiCall:
    """A Vapi call that exists. Its URLs are secrets; `control_url` is empty when Vapi gave none we may use."""

    id: str
    socket_url: str = field(repr=False)
    control_url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ListedCall:
    """A call as a list shows it; the URLs are empty where none may be used. `server_url` is who is told of it."""

    id: str
    name: str
    is_over: bool
    control_url: str = field(repr=False)
    socket_url: str = field(repr=False)
    server_url: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: `size` entries, among them `calls`. `oldest` is when the first of them was created, "" if none says so."""

    size: int
    calls: tuple[ListedCall, ...]
    oldest: str


class Hosts:
    """Where Vapi may send us: host names or `*.domain`; none means the host of `base_url`, its sub-domains and `*.vapi.ai`.

    Plain `ws://` and `http://` lead to Vapi only when `base_url` is plain http itself.
    """

    def __init__(self, base_url: str, names: Iterable[str]) -> None:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        self._plain = parts.scheme == "http"
        self._names = tuple(name.lower() for name in names) or (host, f"*.{host}", "*.vapi.ai")

    def control(self, url: Any) -> str:
        """The address if a request may go there, else nothing."""
        return self._leads_to_vapi(url, secure="https", plain="http")

    def socket(self, url: Any) -> str:
        """The address if a WebSocket may be opened there, else nothing."""
        return self._leads_to_vapi(url, secure="wss", plain="ws")

    def _leads_to_vapi(self, url: Any, *, secure: str, plain: str) -> str:
        """Only addresses that every parser reads alike, so that the host we check is the host that is called."""
        match = URL.fullmatch(url) if isinstance(url, str) and len(url) <= MAX_URL_CHARS else None
        if match is None or match["scheme"] not in ({secure, plain} if self._plain else {secure}):
            return ""
        host = match["host"].strip("[]")
        allowed = any(host.endswith(name[1:]) if name.startswith("*.") else host == name for name in self._names)
        return match[0] if allowed else ""


def an_object(body: bytes) -> dict[str, Any]:
    """Raises VapiRefused with status 201: something was made, and we cannot read what."""
    try:
        value = parse_untrusted(body, max_bytes=MAX_ANSWER_BYTES)
    except BadMessage:
        raise VapiRefused("Vapi's answer is not sane JSON.", status=201) from None
    if not isinstance(value, dict):
        raise VapiRefused("Vapi's answer is not an object.", status=201)
    return value


def identifier(answer: Mapping[str, Any]) -> str:
    """Raises VapiRefused with status 201."""
    value = answer.get("id")
    if not isinstance(value, str) or not IDENTIFIER.fullmatch(value):
        raise VapiRefused("Vapi's answer has no usable id.", status=201)
    return value


def control_url(call: Mapping[str, Any], hosts: Hosts) -> str:
    return hosts.control(_inside(call, "monitor", "controlUrl"))


def created(answer: Mapping[str, Any], hosts: Hosts) -> VapiCall:
    """The call an answer to a create describes. Raises VapiRefused with status 201."""
    call_id = identifier(answer)
    socket_url = hosts.socket(_inside(answer, "transport", "websocketCallUrl"))
    if not socket_url:
        raise VapiRefused("Vapi's answer has no usable socket address.", status=201)
    return VapiCall(id=call_id, socket_url=socket_url, control_url=control_url(answer, hosts))


def limit(status: int, body: bytes) -> str:
    """Which limit of the whole account a refusal tells of, by its status or in words: key, credit, lines, or none."""
    if status in LIMITS:
        return LIMITS[status]
    if status != 400:
        return ""
    told = body[:MAX_REFUSAL_BYTES].decode("utf-8", "replace").lower()
    return next((found for words, found in SAID_IN_WORDS if words in told), "")


def is_blocked(answer: Mapping[str, Any]) -> bool:
    """The call was made, but all lines of the account are busy and it will not start."""
    return _inside(answer, "subscriptionLimits", "concurrencyBlocked") is True


def listed(body: bytes, hosts: Hosts) -> Page:
    """The calls of a list; an entry that is none is left out, but counted. Raises VapiRefused."""
    try:
        value = parse_untrusted(body, max_bytes=MAX_LIST_BYTES, max_nodes=LIST_NODES)
    except BadMessage:
        raise VapiRefused("Vapi's list of calls is not sane JSON.", status=200) from None
    if not isinstance(value, list):
        raise VapiRefused("Vapi's list of calls is not a list.", status=200)
    entries = [entry for entry in value if isinstance(entry, dict)]
    calls = [entry for entry in entries if _has_id(entry)]
    return Page(len(value), tuple(_listed(call, hosts) for call in calls), _oldest(calls) or _oldest(entries))


def found(body: bytes, call_id: str) -> dict[str, Any]:
    """The call that was asked for by its id, as Vapi has it. Raises VapiRefused."""
    try:
        value = parse_untrusted(body, max_bytes=MAX_CALL_BYTES, max_nodes=CALL_NODES)
    except BadMessage:
        raise VapiRefused("Vapi's call is not sane JSON.", status=200) from None
    if not isinstance(value, dict) or value.get("id") != call_id or not isinstance(value.get("status"), str):
        raise VapiRefused("Vapi's answer is not the call that was asked for.", status=200)
    return value


def is_over(call: Mapping[str, Any]) -> bool:
    return call.get("status") == "ended"


def _listed(call: Mapping[str, Any], hosts: Hosts) -> ListedCall:
    name = call.get("name")
    return ListedCall(
        id=call["id"],
        name=name if isinstance(name, str) else "",
        is_over=is_over(call),
        control_url=control_url(call, hosts),
        socket_url=hosts.socket(_inside(call, "transport", "websocketCallUrl")),
        server_url=_server_url(call),
    )


def _server_url(call: Mapping[str, Any]) -> str:
    for place in ("assistantOverrides", "assistant"):
        server = _inside(call, place, "server")
        if isinstance(server, dict) and isinstance(server.get("url"), str):
            return str(server["url"])
    return ""


def _oldest(entries: Iterable[Mapping[str, Any]]) -> str:
    moments = (entry.get("createdAt") for entry in entries)
    return min((moment for moment in moments if isinstance(moment, str) and MOMENT.fullmatch(moment)), default="")


def _has_id(call: Mapping[str, Any]) -> bool:
    return isinstance(call.get("id"), str) and IDENTIFIER.fullmatch(call["id"]) is not None


def _inside(answer: Mapping[str, Any], outer: str, inner: str) -> Any:
    part = answer.get(outer)
    return part.get(inner) if isinstance(part, dict) else None
