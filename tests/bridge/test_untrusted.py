"""What a stranger's bytes may become, and what they may not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BadMessage
from bridge.untrusted import parse_untrusted

LIMIT = 4096

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(-1e18, 1e18)
    | st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


def refusal(body: bytes | str, *, max_bytes: int) -> str | None:
    try:
        parse_untrusted(body, max_bytes=max_bytes)
    except BadMessage as refused:
        return str(refused)
    return None


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@given(plain)
def test_ordinary_json_comes_back_as_it_was_sent(value: Any) -> None:
    assert parse_untrusted(json.dumps(value), max_bytes=10**6) == value


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_whatever_arrives_is_a_value_or_one_plain_sentence(body: bytes | str) -> None:
    sentence = refusal(body, max_bytes=100)
    assert sentence is None or (sentence.startswith("The message ") and sentence.endswith("."))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e400",
        b"\xff\xfe",
        b'"\\ud800"',
        b'"a\\u0000b"',
        b'{"a\\u0000": 1}',
        b'[{"deep": ["\\u0000"]}]',
        b"9223372036854775808",
        b"-123456789012345678901234567890",
        b"1e300",
        "\ud800",
        b"[1] [2]",
    ],
)
def test_values_that_break_databases_and_parsers_are_refused(body: bytes | str) -> None:
    with pytest.raises(BadMessage):
        parse_untrusted(body, max_bytes=LIMIT)


def test_a_refusal_repeats_nothing_of_the_body() -> None:
    with pytest.raises(BadMessage) as refused:
        parse_untrusted(b'{"secret": "canary"', max_bytes=LIMIT)
    assert "canary" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_the_size_limit_is_exact_and_counts_bytes() -> None:
    assert parse_untrusted('"é"', max_bytes=4) == "é"
    with pytest.raises(BadMessage):
        parse_untrusted('"é"', max_bytes=3)


def test_the_depth_limit_is_exact() -> None:
    assert parse_untrusted(nested(64), max_bytes=LIMIT)
    with pytest.raises(BadMessage):
        parse_untrusted(nested(65), max_bytes=LIMIT)
    with pytest.raises(BadMessage):
        parse_untrusted(nested(100_000), max_bytes=10**6)


def test_the_node_limit_counts_keys_and_values() -> None:
    assert parse_untrusted(b'{"a": [1, 2]}', max_bytes=LIMIT, max_nodes=5)
    with pytest.raises(BadMessage):
        parse_untrusted(b'{"a": [1, 2]}', max_bytes=LIMIT, max_nodes=4)
