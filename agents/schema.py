"""Checks what a model wants to tell a tool against the tool's JSON Schema, before anything is sent.

Whatever is wrong becomes one sentence that names it, so that the agent can ask the caller. Neither a schema nor the
arguments may cost us time: no reference is followed, so nothing is ever fetched; only keywords whose cost grows with the
size of the arguments are known, and both sizes are bounded; patterns run only when `agents.patterns` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, cast

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry

from agents.patterns import LONGEST_TEXT, pattern_problem

KEYWORDS = frozenset(
    (
        *("type", "properties", "required", "items", "enum", "const", "pattern", "format", "additionalProperties"),
        *("title", "description", "default", "examples", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    )
)
DEEPEST = 8
MOST_PARTS = 200
MOST_ERRORS = 10
MOST_NAMED = 3  # problems in one sentence: a caller is asked one thing after the other
LONGEST_NAME = 60
TYPES = {"string": "text", "number": "a number", "integer": "a whole number", "boolean": "true or false", "array": "a list"}
FORMATS = FormatChecker(formats=("date", "email", "ipv4", "ipv6", "uuid"))


def schema_problem(schema: Any) -> str:
    """Why tools cannot be checked against this schema, as one sentence; empty when they can. {} takes anything."""
    if not isinstance(schema, dict):
        return "The parameters are not a JSON object."
    if problem := _bounds_problem(schema):
        return problem
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as wrong:
        place = ".".join(str(step) for step in wrong.absolute_path)[:LONGEST_NAME] or "the outermost part"
        return f"This is not JSON Schema: look at {place}."
    if schema and schema.get("type") != "object":
        return 'The outermost part needs "type": "object".'
    return ""


def argument_problem(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """What is missing from, or wrong with, the arguments, as one sentence for the model; empty when nothing is.

    The sentence repeats nothing of what the caller said. `schema` has passed `schema_problem`.
    """
    errors = _Checker(schema, registry=Registry(), format_checker=FORMATS).iter_errors(arguments)
    missing: dict[str, str] = {}
    wrong: dict[str, str] = {}  # by place: one thing that is wrong with it is enough
    for error in islice(errors, MOST_ERRORS):
        if error.validator == "required":
            missing |= {_place(error, name): "" for name in error.validator_value if name not in error.instance}
        else:
            wrong.setdefault(_place(error), _said(error))
    named = list(missing)[:MOST_NAMED]
    clauses = ([f"{' and '.join(named)} {'is' if len(named) == 1 else 'are'} missing"] if named else []) + list(wrong.values())
    return f"Nothing was done: {'; '.join(clauses[:MOST_NAMED])}. Ask the caller if you do not know, then try again." if clauses else ""


def only_named(schema: Mapping[str, Any], value: Any) -> Any:
    """The arguments without what the schema does not name: a model may be talked into adding somebody else's customer number."""
    if isinstance(value, list):
        inner = schema.get("items")
        return [only_named(inner, each) for each in value] if isinstance(inner, dict) else value
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, dict) or schema.get("additionalProperties"):
        return value
    return {
        name: only_named(properties[name], each) if isinstance(properties[name], dict) else each
        for name, each in value.items()
        if name in properties
    }


def _bounds_problem(schema: dict[str, Any]) -> str:
    level, depth, parts = [schema], 0, 0
    while level:
        depth, parts = depth + 1, parts + len(level)
        if depth > DEEPEST or parts > MOST_PARTS:
            return f"Describe at most {MOST_PARTS} parameters, nested at most {DEEPEST} deep."
        for part in level:
            if unknown := {str(key) for key in part} - KEYWORDS:
                return f"“{min(unknown)[:LONGEST_NAME]}” cannot be used here."
            if isinstance(part.get("pattern"), str) and (problem := pattern_problem(part["pattern"])):
                return problem
        level = [below for part in level for below in _below(part)]
    return ""


def _below(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    properties = part.get("properties")
    inner = [*(properties.values() if isinstance(properties, dict) else ()), part.get("items"), part.get("additionalProperties")]
    return (each for each in inner if isinstance(each, dict))


def _pattern(checker: Any, pattern: str, instance: Any, part: Mapping[str, Any]) -> Iterator[ValidationError]:
    if isinstance(instance, str) and len(instance) > LONGEST_TEXT:
        yield ValidationError("too long to be looked at")
    else:
        yield from Draft202012Validator.VALIDATORS["pattern"](checker, pattern, instance, part)


_Checker: Any = extend(Draft202012Validator, {"pattern": _pattern})  # type: ignore[no-untyped-call]


def _place(error: ValidationError, name: str = "") -> str:
    """Where in the arguments, as `address.zip` or `items 2`."""
    steps = [f"{step + 1}" if isinstance(step, int) else str(step) for step in (*error.absolute_path, *([name] if name else []))]
    place = "".join(f" {step}" if step.isdigit() else f".{step}" for step in steps).lstrip(".")
    return " ".join(place.split())[:LONGEST_NAME] or "what you sent"


def _said(error: ValidationError) -> str:
    place, wanted = _place(error), cast(Any, error.validator_value)
    match error.validator:
        case "type":
            named = [TYPES.get(kind, "an object") for kind in ([wanted] if isinstance(wanted, str) else wanted)]
            return f"{place} must be {' or '.join(named)}"
        case "enum":
            return f"{place} must be one of {', '.join(str(choice) for choice in wanted)[: LONGEST_NAME * 2]}"
        case "format":
            return f"{place} is not a valid {wanted}"
        case "minimum" | "exclusiveMinimum":
            return f"{place} must be {'more than' if error.validator == 'exclusiveMinimum' else 'at least'} {wanted}"
        case "maximum" | "exclusiveMaximum":
            return f"{place} must be {'less than' if error.validator == 'exclusiveMaximum' else 'at most'} {wanted}"
        case "minLength" | "minItems" | "minProperties":
            return f"{place} is too short"
        case "maxLength" | "maxItems" | "maxProperties":
            return f"{place} is too long"
        case "additionalProperties":
            return f"{place} holds something this tool does not know"
    return f"{place} does not have the right form"
