"""A vendor's message as it may be shown: without prompts, and without anything that opens a door to whoever reads it. Pure.

What is stored is already the message's own part; this is the second look, by the names of the keys and by the texts.
"""

from __future__ import annotations

import json
import re
from typing import Any

from calls import masking

ADDRESS = re.compile(r"\b(?P<scheme>https?|wss?)://(?:[^\s\"'<>/@]*@)?(?P<host>[^\s\"'<>/?#@]+)[^\s\"'<>]*", re.IGNORECASE)
OPENS = ("url", "uri", "header")  # parts of names; those of secrets are in `calls.masking`
PROMPTS = {"assistant", "assistants", "assistantoverrides", "systemprompt", "prompt", "instructions"}
SPEAKS_PROMPTS = ("system", "developer")
SPEECH_OF_PROMPT = {"message", "content"}
DEEPEST = 64
LONGEST_SEARCHED = 2000
NAME_OR_CARD = re.compile(r"[:=]|[0-9](?:[ -]?[0-9]){12}")  # without these there is no need to look closely


def masked(value: Any, depth: int = 0) -> Any:
    """A parsed JSON value with every secret, address and prompt replaced by a few words that say so."""
    if depth > DEEPEST:
        return "… deeper than is shown"
    match value:
        case dict():
            role = value.get("role")
            prompt = SPEECH_OF_PROMPT if isinstance(role, str) and role in SPEAKS_PROMPTS else set()
            return {key: hidden(entry) if _opens(key) or key in prompt else masked(entry, depth + 1) for key, entry in value.items()}
        case list():
            return [masked(entry, depth + 1) for entry in value]
        case str():
            return ADDRESS.sub(r"\g<scheme>://\g<host>/•••", _text(value))
    return value


def _text(text: str) -> str:
    """A text without secrets. A long one is prose, and only searched for what has the looks of a secret: all else takes too long."""
    if text[:1] in ("{", "[") or (len(text) <= LONGEST_SEARCHED and NAME_OR_CARD.search(text)):
        return masking.masked_text(text)
    return masking.without_looks(text)


def hidden(value: Any) -> Any:
    """The mark of something left out; nothing at all needs no hiding."""
    if value is None or isinstance(value, bool) or value in ("", [], {}):
        return value
    size = len(value) if isinstance(value, str) else len(json.dumps(value))
    return f"••• hidden ({size:,} characters)"


def _opens(key: str) -> bool:
    """Whether what stands under this key opens a door, or is a prompt."""
    plain = re.sub(r"[^a-z0-9]", "", key.lower())
    return plain in PROMPTS or any(part in plain for part in OPENS) or masking.is_secret(key)


def pretty(value: Any) -> str:
    """Indented JSON. Half characters become question marks, so that any of it can be sent."""
    return json.dumps(value, ensure_ascii=False, indent=2).encode(errors="replace").decode()
