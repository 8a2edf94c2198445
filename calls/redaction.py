"""What must not be stored. Every text that people spoke passes here on its way to a row, and nowhere else.

Today all but the keys that callers press may be stored: `redact` is the one place that will change when that does.
"""

from __future__ import annotations

from typing import Any

from bridge import vapi_messages


def redact(text: str) -> str:
    """The text as it may be stored. What a caller typed is told to Vapi, which repeats it in its messages: it stays there."""
    return vapi_messages.without_keys(text)


def redact_body(body: Any) -> Any:
    """A parsed JSON value with every text in it as it may be stored; keys are the vendor's and stay."""
    match body:
        case str():
            return redact(body)
        case list():
            return [redact_body(item) for item in body]
        case dict():
            return {key: redact_body(value) for key, value in body.items()}
    return body
