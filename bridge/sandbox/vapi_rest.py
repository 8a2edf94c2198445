"""What every route of the sandbox Vapi shares: reading a body against the schema, refusing in Vapi's words, listing by filters."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from bridge.sandbox.checking import Check, problems
from bridge.sandbox.evidence import Message

INVALID_KEY = "Invalid Key. Hot tip, you may be using the private key instead of the public key, or vice versa."
REASONS = {400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found", 503: "Service Unavailable"}
WORDS = {
    401: INVALID_KEY,
    402: "Wallet balance is too low to start a call.",
    403: "Forbidden resource",
    429: "Rate limit exceeded",
    500: "Internal server error",
}
MOST = 1000
COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {"Gt": operator.gt, "Ge": operator.ge, "Lt": operator.lt, "Le": operator.le}
EQUAL = ("id", "assistantId", "phoneNumberId")


class BadQuery(Exception):
    """A query Vapi would not take; `why` in its words."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Rest:
    """The bookkeeping of refusals: what a correct client never causes."""

    def __init__(self) -> None:
        self.refused: list[tuple[str, int, list[str]]] = []  # (path, status, why)

    def refuse(
        self, request: web.Request, status: int, why: str | list[str] = "", headers: Mapping[str, str] | None = None
    ) -> web.Response:
        """The vendor's error body; `why` is a list for what validation found, one sentence for everything else."""
        why = why or WORDS.get(status, "The sandbox was told to refuse.")
        self.refused.append((request.path, status, why if isinstance(why, list) else [why]))
        body: Message = {"message": why, "statusCode": status}
        if status in REASONS:
            body["error"] = REASONS[status]
        return web.json_response(body, status=status, headers=headers)

    async def body(self, request: web.Request, check: Check) -> Message | web.Response:
        """The request's JSON if Vapi would take it, else the refusal to answer with."""
        try:
            body = await request.json()
        except (ValueError, RecursionError):
            return self.refuse(request, 400, "body is not JSON")
        wrong = problems(check, body)
        if wrong:
            return self.refuse(request, 400, wrong)
        checked: Message = body
        return checked


def listed(rows: Iterable[Message], query: Mapping[str, str]) -> list[Message]:
    """The rows that a list's query asks for, newest first as they are given. Raises BadQuery."""
    wanted = dict(query)
    limit = wanted.pop("limit", "100")
    if not limit.isascii() or not limit.isdigit() or int(limit) > MOST:
        raise BadQuery(f"limit must not be greater than {MOST}")
    found = list(rows)
    for name, value in wanted.items():
        keeps = _filter(name, value)
        found = [row for row in found if keeps(row)]
    return found[: int(limit)]


def _filter(name: str, value: str) -> Callable[[Message], bool]:
    if name in EQUAL:
        return lambda row: row.get(name) == value
    key, how = name[:-2], COMPARED.get(name[-2:])
    if key not in ("createdAt", "updatedAt") or how is None:
        raise BadQuery(f"property {name} should not exist")
    moment = _moment(value)
    if moment is None:
        raise BadQuery(f"{name} must be a valid ISO 8601 date string")
    return lambda row: how(_moment(row[key]), moment)


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
