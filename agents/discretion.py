"""Which patterns an agent may have left out of what is stored, and how they are run. Pure.

A pattern is run against whatever callers say and vendors send, so it must not matter what that is: RE2 looks at a text once,
in time that grows with its length and nothing else, and takes no pattern for which that cannot be (no look-around, no
back-reference). A pattern whose machine would be large is refused as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import re2

PATTERNS, PATTERN_CHARS = 20, 200
MOST_MEMORY = 256 * 1024  # bytes of one pattern's machine


def rule_problems(rules: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with what an agent leaves out, as {field: sentence}; a field that is missing is not looked at."""
    problem = patterns_problem(rules.get("redact_patterns", []))
    return {"redact_patterns": problem} if problem else {}


def patterns_problem(patterns: Any) -> str:
    """One sentence; empty when every pattern can be run."""
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) and pattern.strip() for pattern in patterns):
        return "Write one pattern a line."
    if len(patterns) > PATTERNS:
        return f"Use at most {PATTERNS} patterns."
    for place, pattern in enumerate(patterns, start=1):
        if problem := pattern_problem(pattern):
            return f"Pattern {place}: {problem}"
    return ""


def pattern_problem(pattern: str) -> str:
    """Why this pattern is not run, as one sentence; empty when it is."""
    if len(pattern) > PATTERN_CHARS:
        return f"Keep a pattern within {PATTERN_CHARS} characters."
    try:
        machine = _machine(pattern)
    except (re2.error, UnicodeError):
        return (
            "It is no regular expression that can be run against any text in a short time: "
            "look neither ahead nor back, refer to no group, and repeat nothing hundreds of times."
        )
    return "It would match where nothing is; say at least one character that must be there." if machine.search("") else ""


def found(pattern: str, text: str) -> Iterator[tuple[int, int]]:
    """Where a pattern that is allowed matches at least one character of a text."""
    whole = text.encode("utf-8", errors="replace").decode()  # half characters are one question mark each
    return ((match.start(), match.end()) for match in _machine(pattern).finditer(whole) if match.end() > match.start())


@lru_cache(maxsize=1000)
def _machine(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MOST_MEMORY
    return re2.compile(pattern, options)
