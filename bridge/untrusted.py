"""The one way from a stranger's JSON bytes to Python values.

What comes out is safe to walk with recursion, to store in any database and to put in a log-free row: bounded in size,
depth and count, no NaN or infinity, no number beyond 64 bits, no lone surrogate, no NUL (PostgreSQL keeps neither).
"""

from __future__ import annotations

from typing import Any

import orjson

from bridge.errors import BadMessage

BIGGEST_NUMBER = 2**63 - 1


def parse_untrusted(body: bytes | str, *, max_bytes: int, max_depth: int = 64, max_nodes: int = 10_000) -> Any:
    """The value in `body`, UTF-8 JSON of at most `max_bytes` bytes.

    `max_depth` counts nested arrays and objects (a bare number has depth 0), `max_nodes` every value and every key.
    Raises BadMessage with one plain sentence that repeats nothing of the body.
    """
    try:
        raw = body.encode() if isinstance(body, str) else body
    except UnicodeEncodeError:
        raise BadMessage("The message is not valid Unicode.") from None
    if len(raw) > max_bytes:
        raise BadMessage(f"The message is longer than {max_bytes} bytes.")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BadMessage("The message is not JSON.") from None
    _check(value, max_depth, max_nodes)
    return value


def _check(value: Any, max_depth: int, max_nodes: int) -> None:
    """Level by level and not by recursion: the depth is the stranger's choice."""
    level, depth, nodes = [value], 0, 0
    while level:
        nodes += len(level)
        if nodes > max_nodes:
            raise BadMessage(f"The message holds more than {max_nodes} values.")
        below: list[Any] = []
        containers = False
        for node in level:
            if isinstance(node, str):
                if "\0" in node:
                    raise BadMessage("The message holds a NUL character.")
            elif isinstance(node, int | float):
                if not -BIGGEST_NUMBER <= node <= BIGGEST_NUMBER:
                    raise BadMessage("The message holds a number beyond 64 bits.")
            elif isinstance(node, dict):
                containers = True
                below.extend(node)
                below.extend(node.values())
            elif isinstance(node, list):
                containers = True
                below.extend(node)
        depth += containers
        if depth > max_depth:
            raise BadMessage(f"The message is nested deeper than {max_depth}.")
        level = below
