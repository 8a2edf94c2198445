"""Runs a tool: the one door from a conversation to somebody's HTTP address. The address was typed by a person and the
arguments were made up by a model, so neither is trusted.

The name is looked up once and the request goes to exactly the address that was checked: no private, loopback, link-local or
other special network unless it is in `allowed`, no redirect, no proxy, https on port 443 or 8443. The answer becomes one line
of at most 4,000 characters. Whatever goes wrong is a sentence the agent can work with, never an exception.
"""

from __future__ import annotations

import logging
import socket
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from agents import signing
from agents.addresses import PORTS, is_public, url_problem
from bridge.deadline import Answer, Courier, Forbidden, NoAnswer
from bridge.errors import BadMessage
from bridge.untrusted import parse_untrusted

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 256 * 1024
MAX_ARGUMENT_BYTES = 64 * 1024
MAX_TEXT_CHARS = 4000
MAX_PROBLEM_CHARS = 200  # with our own words before the tool's
NO_ADDRESS = "This tool has no usable address."
LookUp = Callable[[str, int], list[str]]


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """One line for the model: `text` when it worked, else `problem`; the other one is empty.

    `sent` is what left the house, for the call's log: {"to": host, "bytes": n, "signed": bool, "status": n}; empty when nothing did.
    """

    text: str
    problem: str
    sent: Mapping[str, Any] = field(default_factory=dict, compare=False)


def look_up(host: str, port: int) -> list[str]:
    """Every address of a name, in the system's order. Raises OSError."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def run(
    tool: Mapping[str, Any],
    arguments: Mapping[str, Any],
    *,
    call: Mapping[str, Any],
    timeout: float,
    tool_call_id: str = "",
    allowed: Iterable[str] = (),
    look_up: LookUp = look_up,
    now: Callable[[], float] = time.time,
) -> ToolAnswer:
    """POST the arguments as a JSON object and wait at most `timeout` seconds, or less if the tool says so.

    `call` is what the tool may know of the call; it stands beside the arguments under the key `call`, so that a tool can
    trust who is calling without asking the model. `allowed` lists host:port pairs that may be private and plain http.
    """
    allowed, url = frozenset(allowed), str(tool.get("url", ""))
    body = orjson.dumps({**arguments, "call": dict(call)}, option=orjson.OPT_NON_STR_KEYS)
    if len(body) > MAX_ARGUMENT_BYTES:
        return ToolAnswer(text="", problem="There was too much to look up at once.")
    if url_problem(url, allowed_private=allowed):
        return ToolAnswer(text="", problem=NO_ADDRESS)
    try:
        secret = signing.secret_of(tool)
    except signing.SecretMissing as missing:
        log.error("A tool was not called", extra={"tool": tool.get("name"), "problem": str(missing)})
        return ToolAnswer(text="", problem="This tool is not set up yet, so it was not used.")
    headers = signing.headers(body=body, secret=secret, tool_call_id=tool_call_id, at=now())
    sent = {"to": urlsplit(url).hostname, "bytes": len(body), "signed": bool(secret)}
    within = min(timeout, float(tool.get("timeout_s") or timeout))
    started = time.monotonic()
    said = _carry(url, body, headers, within, _Resolver(allowed, look_up), sent)
    ms = round((time.monotonic() - started) * 1000)
    log.info("tool run", extra={"tool": tool.get("name"), "ms": ms, "worked": not said.problem})
    return said


def one_line(text: str, longest: int = MAX_TEXT_CHARS) -> str:
    """The text without line ends and without what steers a terminal; cut to `longest` characters."""
    words = " ".join(text.split())
    return "".join(sign for sign in words if unicodedata.category(sign) not in ("Cc", "Cs"))[:longest]


class _Resolver:
    """Looks a name up once and hands out an address only when every one of them may be called."""

    def __init__(self, allowed: frozenset[str], look_up: LookUp) -> None:
        self._allowed = allowed
        self._look_up = look_up

    def __call__(self, host: str, port: int) -> str:
        addresses = self._look_up(host.strip("[]"), port)
        if not addresses:
            raise Forbidden("The name has no address.")
        if f"{host}:{port}" not in self._allowed and not (port in PORTS and all(is_public(address) for address in addresses)):
            raise Forbidden("The address is not a public one.")
        return addresses[0]


def _carry(url: str, body: bytes, headers: Mapping[str, str], within: float, resolve: _Resolver, sent: Mapping[str, Any]) -> ToolAnswer:
    courier = Courier(resolve=resolve)
    try:
        answer = courier.post(url, body=body, headers=headers, within=within, max_bytes=MAX_ANSWER_BYTES)
    except Forbidden:
        return ToolAnswer(text="", problem=NO_ADDRESS)
    except NoAnswer as nothing:
        problem = "The tool did not answer in time." if nothing.late else "The tool cannot be reached."
        return ToolAnswer(text="", problem=problem, sent=sent if nothing.sent else {})
    finally:
        courier.close()
    text, problem = _said(answer)
    return ToolAnswer(text=text, problem=problem, sent={**sent, "status": answer.status})


def _said(answer: Answer) -> tuple[str, str]:
    """The line and the problem in an answer; one of them is empty."""
    readable = answer.whole
    value: Any = ""
    try:
        value = parse_untrusted(answer.body, max_bytes=MAX_ANSWER_BYTES) if answer.whole and answer.body.strip() else ""
    except BadMessage:
        readable = False
    if 400 <= answer.status < 500:  # "no such account" is what the agent needs to hear
        return "", one_line(f"The tool refused this ({answer.status}). {_reason(value)}", MAX_PROBLEM_CHARS)
    if not 200 <= answer.status < 300:
        return "", f"The tool failed ({answer.status})."
    if not readable:
        return "", "The tool answered with something unreadable." if answer.whole else "The tool answered with too much."
    return one_line(value if isinstance(value, str) else orjson.dumps(value).decode()) or "done", ""


def _reason(value: Any) -> str:
    """Why a tool refused, in its own words: a text, or the usual place of one in an object."""
    if isinstance(value, dict):
        told = next((value[key] for key in ("error", "message", "detail") if isinstance(value.get(key), str)), None)
        return told if told is not None else orjson.dumps(value).decode()
    return value if isinstance(value, str) else ""
