"""What a model makes up is checked before it is sent: it hears what is missing, and nothing it sends can cost us time."""

from __future__ import annotations

import json
import random
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.patterns import LONGEST_TEXT, pattern_problem
from agents.schema import argument_problem, only_named, schema_problem
from tests.bridge.http_server import Server, reply

ADDRESS = {"type": "object", "required": ["zip"], "properties": {"zip": {"type": "string", "pattern": "^[0-9]{5}$"}}}
ACCOUNT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "email": {"type": "string", "format": "email"},
        "plan": {"type": "string", "enum": ["pro", "free"]},
        "seats": {"type": "integer", "minimum": 1, "maximum": 9},
        "addresses": {"type": "array", "maxItems": 2, "items": ADDRESS},
        "since": {"type": "string", "format": "date"},
    },
    "required": ["email", "plan"],
    "additionalProperties": False,
}
FINE = {"email": "alex@example.com", "plan": "pro"}
THEN = ". Ask the caller if you do not know, then try again."


def said(arguments: Any) -> str:
    sentence = argument_problem(ACCOUNT, arguments)
    return sentence.removeprefix("Nothing was done: ").removesuffix(THEN)


def test_arguments_that_fit_are_no_problem() -> None:
    assert schema_problem(ACCOUNT) == ""
    full = FINE | {"seats": 3, "addresses": [{"zip": "12345"}], "since": "2026-03-01"}
    assert argument_problem(ACCOUNT, FINE) == argument_problem(ACCOUNT, full) == argument_problem({}, {"any": "thing"}) == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "email and plan are missing"),
        ({"plan": "pro"}, "email is missing"),
        (FINE | {"email": 7}, "email must be text"),
        (FINE | {"email": None, "plan": None}, "email must be text; plan must be text"),
        (FINE | {"email": "alex"}, "email is not a valid email"),
        (FINE | {"plan": "gold"}, "plan must be one of pro, free"),
        (FINE | {"seats": "three"}, "seats must be a whole number"),
        (FINE | {"seats": True}, "seats must be a whole number"),
        (FINE | {"seats": 0}, "seats must be at least 1"),
        (FINE | {"seats": 10}, "seats must be at most 9"),
        (FINE | {"addresses": {}}, "addresses must be a list"),
        (FINE | {"addresses": [{}]}, "addresses 1.zip is missing"),
        (FINE | {"addresses": [{"zip": "12345"}, {"zip": "1"}]}, "addresses 2.zip does not have the right form"),
        (FINE | {"addresses": [{"zip": "1" * 5000}]}, "addresses 1.zip does not have the right form"),
        (FINE | {"addresses": [{"zip": "12345"}] * 3}, "addresses is too long"),
        (FINE | {"since": "tomorrow"}, "since is not a valid date"),
        (FINE | {"customer_id": "42"}, "what you sent holds something this tool does not know"),
        ({"seats": 0}, "email and plan are missing; seats must be at least 1"),
    ],
)
def test_the_model_hears_in_one_sentence_what_is_missing_or_wrong(arguments: dict[str, Any], sentence: str) -> None:
    assert argument_problem(ACCOUNT, arguments) == f"Nothing was done: {sentence}{THEN}"


def test_many_wrongs_make_a_short_sentence_and_no_word_of_the_caller_is_in_it() -> None:
    wide = {"type": "object", "properties": {f"p{n}": {"type": "integer"} for n in range(50)}, "required": [f"r{n}" for n in range(50)]}
    assert len(argument_problem(wide, {f"p{n}": "canary" for n in range(50)})) < 200
    for value in ("canary", ["canary"], {"canary": "canary"}):
        assert "canary" not in argument_problem(ACCOUNT, {"email": value, "plan": value, "seats": value, "addresses": [value], "canary": 1})


@pytest.mark.parametrize(
    "schema",
    [
        *([], "text", None, 7, True),
        *({"type": "array"}, {"type": "strin"}, {"properties": {}}, {"type": "object", "properties": []}),
        *(
            {"type": "object", "required": "email"},
            {"type": "object", "properties": {"a": 1}},
            {"type": "object", "properties": {"a": {"type": 7}}},
        ),
        *(
            {"$ref": "#"},
            {"type": "object", "$ref": "http://127.0.0.1/x"},
            {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}},
        ),
        *(
            {"type": "object", "$id": "http://127.0.0.1/"},
            {"$schema": "http://127.0.0.1/", "type": "object"},
            {"type": "object", "$dynamicRef": "#a"},
        ),
        *(
            {"type": "object", "properties": {"a": {"allOf": []}}},
            {"type": "object", "patternProperties": {"(a+)+$": {}}},
            {"type": "object", "not": {}},
        ),
        *(
            {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}},
            {"type": "object", "properties": {"a": {"pattern": "(a+)+$"}}},
        ),
        *(
            {"type": "object", "properties": {"a": {"type": "array", "items": {"pattern": "(a|a)*$"}}}},
            {"type": "object", "additionalProperties": {"pattern": "(a*)*"}},
        ),
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(500)}},
    ],
)
def test_a_schema_nobody_can_check_against_is_refused_in_one_sentence(schema: Any) -> None:
    sentence = schema_problem(schema)
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_a_schema_nested_for_ever_is_refused_at_once() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(5000):
        deep = {"type": "object", "properties": {"a": deep}}
    assert "nested" in schema_problem(deep)


def test_nothing_is_ever_fetched_for_a_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(reply(200, {"type": "string"})) as canary:
        remote = {"type": "object", "properties": {"a": {"$ref": f"{canary.url}/schema.json"}}}
        assert schema_problem(remote)
        with pytest.raises(Exception, match=r"schema\.json"):
            argument_problem(remote, {"a": 1})
        assert canary.connections == 0


def test_what_the_schema_does_not_name_is_not_sent() -> None:
    nested = {"type": "object", "properties": {"email": {"type": "string"}, "to": ADDRESS, "all": {"type": "array", "items": ADDRESS}}}
    zips = {"zip": "12345", "customer_id": 42}
    asked = {"email": "a@b", "customer_id": 42, "call": {"from": "x"}, "to": zips, "all": [zips, 7]}
    assert only_named(nested, asked) == {"email": "a@b", "to": {"zip": "12345"}, "all": [{"zip": "12345"}, 7]}
    assert only_named({}, asked) == asked
    assert only_named({"type": "object", "properties": {}}, asked) == {}
    assert only_named({"type": "object", "properties": {}, "additionalProperties": True}, asked) == asked


HANGING = [
    *("(a+)+$", "(a*)*b", "(a|a)+$", "(a|aa)+$", "(.*a){20}", "([a-z]+)*$", "(?:a+)+$", "((a+))+$", "(a+){2,}b", "^(a?){30}a{30}"),
    *(
        "^" + "a?" * 30 + "a" * 30,
        "a*a*a*b",
        "^a*a*a*a*b",
        "^" + "[ab]*" * 8 + "c",
        "(a)\\1+",
        "(?=a+)b",
        "(?!a+)b",
        "(?<=a)b",
        "(?P<n>a+)+",
    ),
    *("(?i:a+)+", "(?>a+)+", "^(a{0,99}){0,99}$", "^a{0,99}a{0,99}a{0,99}a{0,99}b$", "x" * 1000, "(a{1,}){1,}", "a{,}a{,}a{,}b"),
]


@pytest.mark.parametrize("pattern", HANGING)
def test_a_pattern_that_could_take_for_ever_is_refused(pattern: str) -> None:
    assert pattern_problem(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        *("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", "^[0-9]{5}(-[0-9]{4})?$", "^ACME-[A-Z0-9]{4,12}$", "^\\+[1-9][0-9]{6,14}$", "^(yes|no|maybe)$"),
        *("[a-z]+", "^\\d{4}-\\d{2}-\\d{2}$", "^[\\]()*+]{1,9}$", "^$", "", "a{", "^.{1,100}$", "^x*?y$"),
    ],
)
def test_an_ordinary_pattern_is_run(pattern: str) -> None:
    assert pattern_problem(pattern) == ""


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(
            ["a", "b", ".", "[ab]", "\\w", "a*", "a+", ".*", "a?", "a{0,9}", "(a|b)", "(a", ")", "?", "*", "+", "|", "^", "{2,}", "$"]
        ),
        max_size=12,
    )
)
def test_whatever_pattern_is_run_is_over_in_a_moment(parts: list[str]) -> None:
    pattern = "".join(parts)
    if pattern_problem(pattern):
        return
    for text in ("a" * LONGEST_TEXT, "ab" * (LONGEST_TEXT // 2), "a" * (LONGEST_TEXT - 1) + "!"):
        started = time.thread_time()
        re.search(pattern, text)
        assert time.thread_time() - started < 0.5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*ACCOUNT["properties"], "zip", "x"]), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=25)
@given(st.dictionaries(st.sampled_from([*ACCOUNT["properties"], "x"]), json_values, max_size=6))
def test_whatever_a_model_sends_is_a_fit_or_one_line(arguments: dict[str, Any]) -> None:
    sentence = argument_problem(ACCOUNT, arguments)
    assert sentence == "" or (sentence.startswith("Nothing was done: ") and sentence.splitlines() == [sentence] and len(sentence) < 500)


def test_as_much_as_can_be_sent_is_checked_in_a_moment() -> None:
    strings = {"type": "object", "properties": {"l": {"type": "array", "items": {"type": "string", "pattern": "^\\w*\\w*\\w*!$"}}}}
    assert schema_problem(strings) == ""
    words = ["a" * 40 for _ in range(64 * 1024 // 43)]
    assert len(json.dumps(words)) < 70_000
    random.Random(1).shuffle(words)
    started = time.thread_time()
    assert argument_problem(strings, {"l": words})
    assert time.thread_time() - started < 2
