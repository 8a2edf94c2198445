"""Checks on JSON: each looks at a value and says what is wrong with it, in the words of Vapi's own answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

Check = Callable[[object, str], Iterator[str]]


def anything(_value: object, _path: str) -> Iterator[str]:
    yield from ()


def flag(value: object, path: str) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"{path} must be a boolean value"


def text(longest: int = 1_000_000, *, shortest: int = 0, pattern: str = "") -> Check:
    def check(value: object, path: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield f"{path} must be a string"
        elif len(value) > longest:
            yield f"{path} must be shorter than or equal to {longest} characters"
        elif len(value) < shortest:
            yield f"{path} must be longer than or equal to {shortest} characters"
        elif pattern and not re.fullmatch(pattern, value):
            yield f"{path} must match {pattern} regular expression"

    return check


def one_of(*values: str) -> Check:
    def check(value: object, path: str) -> Iterator[str]:
        if value not in values:
            yield f"{path} must be one of the following values: {', '.join(values)}"

    return check


def number(least: float, most: float) -> Check:
    def check(value: object, path: str) -> Iterator[str]:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{path} must be a number conforming to the specified constraints"
        elif value < least:
            yield f"{path} must not be less than {least:g}"
        elif value > most:
            yield f"{path} must not be greater than {most:g}"

    return check


def items(each: Check) -> Check:
    def check(value: object, path: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{path} must be an array"
            return
        for place, item in enumerate(value):
            yield from each(item, f"{path}.{place}")

    return check


def shape(fields: Mapping[str, Check], *, required: tuple[str, ...] = ()) -> Check:
    def check(value: object, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path} must be an object" if path else "body must be an object"
            return
        inside = f"{path}." if path else ""
        for key in required:
            if key not in value:
                yield f"{inside}{key} should not be empty"
        for key, item in value.items():
            if key not in fields:
                yield f"{inside}property {key} should not exist"
            else:
                yield from fields[key](item, f"{inside}{key}")

    return check


def by_key(key: str, shapes: Mapping[str, Check], otherwise: Check) -> Check:
    """The shape that the value's own `key` asks for."""

    def check(value: object, path: str) -> Iterator[str]:
        kind = value.get(key) if isinstance(value, dict) else None
        yield from (shapes.get(kind, otherwise) if isinstance(kind, str) else otherwise)(value, path)

    return check


def either(first: Check, second: Check) -> Check:
    def check(value: object, path: str) -> Iterator[str]:
        wrong = list(first(value, path))
        if wrong and list(second(value, path)):
            yield from wrong

    return check


URL = text(pattern=r"(https?|wss?)://\S+")


def mapping(value: object, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path} must be an object"


def problems(check: Check, body: object) -> list[str]:
    """Everything wrong with a request body, in Vapi's words; empty when Vapi would take it."""
    return list(check(body, ""))
