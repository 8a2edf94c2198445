"""What a tool's owner must expect at its address, shown before the first call is made. Pure; `agents.tools` sends the real ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agents.signing import SIGNATURE, TIMESTAMP, TOOL_CALL

CALL = {"call_sid": "CA0123456789abcdef0123456789abcdef", "from": "+15550100199", "to": "+15550100100"}
EXAMPLES: Mapping[str, Any] = {"number": 1.5, "integer": 1, "boolean": True, "string": "…"}
FORMATS = {
    "date-time": "2026-08-03T14:47:00Z",
    "time": "14:47:00Z",
    "date": "2026-08-03",
    "duration": "PT30M",
    "email": "name@example.com",
    "hostname": "www.example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
}


def example(schema: Mapping[str, Any]) -> Any:
    """A value as the schema describes it; of a text with a pattern only that it is a text."""
    match schema.get("type"):
        case "object":
            return {name: example(part) for name, part in schema.get("properties", {}).items()}
        case "array":
            return [example(schema["items"])] if "items" in schema else []
        case "string" if schema.get("enum"):
            return schema["enum"][0]
        case "string":
            return FORMATS.get(schema.get("format", ""), EXAMPLES["string"])
    return EXAMPLES.get(str(schema.get("type")))


def text(tool: Mapping[str, Any], *, signed: bool) -> str:
    """The request as it stands on the wire, with values made up. `signed`: there is a secret to sign it with."""
    proof = [f"{TIMESTAMP}: 1785768420", f"{SIGNATURE}: sha256=…"] if signed else []
    body = {**(example(tool["parameters"]) if tool["parameters"] else {}), "call": CALL}
    head = [f"POST {tool['url']}", "Content-Type: application/json", f"{TOOL_CALL}: call_0123456789", *proof]
    return "\n".join([*head, "", json.dumps(body, indent=2, ensure_ascii=False)])
