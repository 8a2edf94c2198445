"""`{{ name }}` in an assistant's texts, as far as LiquidJS is played here: paths, quoted words and the filters below. No `{% %}`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

TAG = re.compile(r"\{\{-?(.*?)-?\}\}", re.DOTALL)
QUOTED = re.compile(r"""(?P<quote>["'])(?P<words>.*?)(?P=quote)""")
BUILT_IN = {
    "now": "%b %d, %Y, %I:%M %p",
    "date": "%b %d, %Y",
    "time": "%I:%M %p",
    "month": "%B",
    "day": "%d",
    "year": "%Y",
}


def render(text: str, values: Mapping[str, Any], wall: float) -> str:
    """The text with every tag replaced; a name nobody gave becomes "". `wall` is seconds since 1970, times are UTC."""
    now = datetime.fromtimestamp(wall, UTC)
    return TAG.sub(lambda tag: _evaluated(tag[1], values, now), text)


def _evaluated(expression: str, values: Mapping[str, Any], now: datetime) -> str:
    first, *filters = expression.split("|")
    quoted = QUOTED.fullmatch(first.strip())
    value = quoted["words"] if quoted else _looked_up(first.strip(), values, now)
    for each in filters:
        name, _, arguments = each.strip().partition(":")
        use = FILTERS.get(name)
        value = use(value, [match["words"] for match in QUOTED.finditer(arguments)], now) if use else value
    return value


def _looked_up(path: str, values: Mapping[str, Any], now: datetime) -> str:
    found: Any = values
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    if found is None and path in BUILT_IN:
        return now.strftime(BUILT_IN[path])
    return str(found).lower() if isinstance(found, bool) else "" if found is None else str(found)


def _date(value: str, arguments: list[str], now: datetime) -> str:
    """`"now" | date: "%H:%M", "Europe/London"`. Another day than now is not played."""
    form, *zone = arguments or [BUILT_IN["now"]]
    try:
        there = now.astimezone(ZoneInfo(zone[0])) if zone else now
    except (ZoneInfoNotFoundError, ValueError):
        there = now
    return there.strftime(form) if value == "now" else value


FILTERS: Mapping[str, Callable[[str, list[str], datetime], str]] = {
    "date": _date,
    "default": lambda value, arguments, _: value or "".join(arguments[:1]),
    "upcase": lambda value, *_: value.upper(),
    "downcase": lambda value, *_: value.lower(),
    "capitalize": lambda value, *_: value.capitalize(),
    "strip": lambda value, *_: value.strip(),
}
