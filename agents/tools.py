"""Runs a tool: the one door from a conversation to somebody's HTTP address. The address was typed by a person and the
arguments were made up by a model, so neither is trusted.

The name is looked up once and the request goes to exactly the address that was checked: no private, loopback, link-local or
other special network unless it is in `allowed`, no redirect, no proxy, https on port 443 or 8443. The answer becomes one line
of at most 4,000 characters. Whatever goes wrong is a sentence the agent can work with, never an exception.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from agents.limits import url_problem
from bridge.deadline import Answer, Courier, Forbidden, NoAnswer
from bridge.errors import BadMessage
from bridge.untrusted import parse_untrusted

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 256 * 1024
MAX_ARGUMENT_BYTES = 64 * 1024
MAX_TEXT_CHARS = 4000
MAX_PROBLEM_CHARS = 200
USER_AGENT = "supportvoice/0.1"
LookUp = Callable[[str, int], list[str]]
V4_INSIDE_V6 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """One line for the model: `text` when it worked, else `problem`; the other one is empty."""

    text: str
    problem: str


def look_up(host: str, port: int) -> list[str]:
    """Every address of a name, in the system's order. Raises OSError."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def run(
    tool: Mapping[str, Any],
    arguments: Mapping[str, Any],
    *,
    call: Mapping[str, Any],
    timeout: float,
    allowed: Iterable[str] = (),
    look_up: LookUp = look_up,
) -> ToolAnswer:
    """POST the arguments as a JSON object and wait at most `timeout` seconds, or less if the tool says so.

    `call` is what the tool may know of the call; it stands beside the arguments under the key `call`, so that a tool can
    trust who is calling without asking the model. `allowed` lists host:port pairs that may be private and plain http.
    """
    allowed = frozenset(allowed)
    url = str(tool.get("url", ""))
    body = orjson.dumps({**arguments, "call": dict(call)}, option=orjson.OPT_NON_STR_KEYS)
    if len(body) > MAX_ARGUMENT_BYTES:
        return ToolAnswer(text="", problem="There was too much to look up at once.")
    if url_problem(url, allowed_private=allowed):
        return ToolAnswer(text="", problem="This tool has no usable address.")
    courier = Courier(user_agent=USER_AGENT, resolve=_Resolver(allowed, look_up))
    started = time.monotonic()
    try:
        within = min(timeout, float(tool.get("timeout_s") or timeout))
        answer = courier.post(url, body=body, headers={}, within=within, max_bytes=MAX_ANSWER_BYTES)
        said = _said(answer)
    except Forbidden:
        said = ToolAnswer(text="", problem="This tool has no usable address.")
    except NoAnswer as nothing:
        said = ToolAnswer(text="", problem="The tool did not answer in time." if nothing.late else "The tool cannot be reached.")
    finally:
        courier.close()
    ms = round((time.monotonic() - started) * 1000)
    log.info("tool run", extra={"tool": tool.get("name"), "ms": ms, "worked": not said.problem})
    return said


class _Resolver:
    """Looks a name up once and hands out an address only when every one of them may be called."""

    def __init__(self, allowed: frozenset[str], look_up: LookUp) -> None:
        self._allowed = allowed
        self._look_up = look_up

    def __call__(self, host: str, port: int) -> str:
        addresses = self._look_up(host.strip("[]"), port)
        if not addresses:
            raise Forbidden("The name has no address.")
        if f"{host}:{port}" not in self._allowed and not all(is_public(address) for address in addresses):
            raise Forbidden("The address is not a public one.")
        return addresses[0]


def is_public(address: str) -> bool:
    """True for an address anybody on the internet could reach; one that wraps another one counts as the inner one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip.sixtofour is not None or ip.teredo is not None or any(ip in network for network in V4_INSIDE_V6):
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _said(answer: Answer) -> ToolAnswer:
    if not answer.whole:
        return ToolAnswer(text="", problem="The tool answered with too much.")
    try:
        value = parse_untrusted(answer.body, max_bytes=MAX_ANSWER_BYTES) if answer.body.strip() else ""
    except BadMessage:
        value = None
    worked = 200 <= answer.status < 300
    if value is None:
        return ToolAnswer(
            text="", problem="The tool answered with something unreadable." if worked else f"The tool failed ({answer.status})."
        )
    text = _one_line(value if isinstance(value, str) else orjson.dumps(value).decode())
    if not worked:  # "no such account" is what the agent needs to hear
        return ToolAnswer(text="", problem=f"The tool failed ({answer.status}). {text[:MAX_PROBLEM_CHARS]}".strip())
    return ToolAnswer(text=text or "done", problem="")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_TEXT_CHARS]
