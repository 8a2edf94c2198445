"""Is this JSON what Vapi's own published types describe? Stricter than those types, which let two kinds of error through:
a key no model declares (every model allows extras) and an enum value outside its list (every enum is `Literal | Any`).

The first look takes some six seconds, for Vapi's package brings a model in when it is named: whoever only collects tests pays nothing.
"""

from __future__ import annotations

import copy
import types
import typing
from collections.abc import Iterator
from typing import Any

import pydantic
import vapi.types as published

Assistant = "CreateAssistantDto"
Call = "CreateOutboundCallDto"  # the one exported twin of what `POST /call` takes

# The published schema calls these scalars objects; they are documented and sent as scalars.
WRONG_TYPES: dict[str, dict[str, Any]] = {"backoffPlan": {"type": {}, "excludedStatusCodes": []}}


def findings(model: str, body: dict[str, Any]) -> list[str]:
    """Everything wrong with `body` as the model of this name, each as `path: what`; empty when Vapi should take it."""
    try:
        read = getattr(published, model).model_validate(_with_published_mistakes(copy.deepcopy(body)))
    except pydantic.ValidationError as refused:
        return [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in refused.errors()]
    snake_case = [f"{path}: not the wire's spelling" for path in _keys(body) if "_" in path.rpartition(".")[2] and not _free(path)]
    return [*_beyond(read, ""), *snake_case]


def _free(path: str) -> bool:
    """Places where names are ours: metadata, variables, a tool's parameters, header names."""
    return any(part in path for part in (".metadata.", ".variableValues.", ".properties.", ".headers."))


def _with_published_mistakes(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: ({**part, **WRONG_TYPES[key]} if key in WRONG_TYPES else _with_published_mistakes(part)) for key, part in value.items()
        }
    return [_with_published_mistakes(part) for part in value] if isinstance(value, list) else value


def _keys(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"{path}.{key}"
            yield from _keys(part, f"{path}.{key}")
    elif isinstance(value, list):
        for part in value:
            yield from _keys(part, path)


def _beyond(read: Any, path: str) -> Iterator[str]:
    """What validation let through."""
    if isinstance(read, list):
        for index, part in enumerate(read):
            yield from _beyond(part, f"{path}[{index}]")
    elif isinstance(read, dict):
        for key, part in read.items():
            yield from _beyond(part, f"{path}.{key}")
    elif isinstance(read, pydantic.BaseModel):
        for key in read.model_extra or {}:
            yield f"{path}.{key}: no such key"
        for name, declared in type(read).model_fields.items():
            value = getattr(read, name)
            if value is not None:
                yield from _outside(value, declared.annotation, f"{path}.{declared.alias or name}")
                yield from _beyond(value, f"{path}.{declared.alias or name}")


def _outside(value: Any, annotation: Any, path: str) -> Iterator[str]:
    names, closed = _names(annotation)
    for each in value if isinstance(value, list) else [value]:
        if names and closed and isinstance(each, str) and each not in names:
            yield f"{path}: {each!r} is none of {len(names)} known values"


def _names(annotation: Any) -> tuple[set[Any], bool]:
    """The literals of an annotation, looking through lists, and whether nothing but them (and Any) is meant."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return set(inside), True
    if origin is typing.Annotated:
        return _names(inside[0])
    if origin in (typing.Union, types.UnionType, list):
        found: set[Any] = set()
        closed = True
        for part in inside:
            if part not in (type(None), Any):
                names, only = _names(part)
                found |= names
                closed = closed and only
        return found, closed
    return set(), False
