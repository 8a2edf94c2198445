"""Nothing Vapi would refuse gets past the table."""

from __future__ import annotations

from typing import Any

import pytest

from agents import addresses, limits, services
from agents.models import AssistantTemplate, Tool
from agents.seed import TEMPLATE, TOOL
from tests.agents.words import EMAIL_TOOL, PLAIN


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        ("temperature", [0, 2], [-0.1, 2.1]),
        ("max_tokens", [50, 10_000], [49, 10_001]),
        ("endpointing_ms", [10, 500, None], [9, 501]),
        ("wait_seconds", [0, 5], [-1, 5.1]),
        ("stop_words", [0, 10], [11]),
        ("stop_voice_seconds", [0, 0.5], [0.51]),
        ("backoff_seconds", [0, 10], [10.5]),
        ("silence_timeout_s", [10, 3600, None], [9, 3601]),
        ("max_duration_s", [10, 43_200], [9, 43_201]),
        ("voice_speed", [0.7, 1.2, None], [0.69, 1.21]),
        ("name", ["x" * 40], ["x" * 41, "", "  "]),
        ("end_call_message", ["", "x" * 1000], ["x" * 1001]),
        ("keyterms", [[], ["SSO"]], [[""], "SSO", [1], ["x"] * 51, ["x" * 141]]),
    ],
)
def test_the_vendors_range_ends_where_it_says(field: str, inside: list[Any], outside: list[Any]) -> None:
    for value in inside:
        assert limits.word_problems(PLAIN | {field: value}) == {}
    for value in outside:
        assert list(limits.word_problems(PLAIN | {field: value})) == [field]


@pytest.mark.parametrize("value", [None, "0.5", True, float("nan"), float("inf")])
def test_only_numbers_are_numbers(value: Any) -> None:
    assert limits.word_problems({"temperature": value}) == {"temperature": "Enter a number."}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"voice_provider": "elevenlabs"}, "voice_provider"),
        ({"model_provider": "open-ai"}, "model_provider"),
        ({"model_name": "gpt-9"}, "model_name"),
        ({"transcriber_provider": "whisper"}, "transcriber_provider"),
        ({"language": "klingon"}, "language"),
        ({"first_message": " "}, "first_message"),
        ({"voice_provider": "cartesia", "voice_speed": 1.0}, "voice_speed"),
        ({"voice_provider": "vapi", "voice_model": "v1"}, "voice_model"),
        ({"voice_provider": "sesame"}, "voice_model"),
        ({"transcriber_provider": "openai", "transcriber_model": "gpt-4o-transcribe", "keyterms": ["SSO"]}, "keyterms"),
        ({"transcriber_provider": "openai", "transcriber_model": "gpt-4o-transcribe", "endpointing_ms": 100}, "endpointing_ms"),
        ({"transcriber_model": limits.FLUX, "turn_end": "vapi"}, "turn_end"),
        ({"transcriber_model": limits.FLUX, "language": "de"}, "language"),
        ({"model_provider": "openrouter", "model_name": ""}, "model_name"),
    ],
)
def test_names_that_do_not_belong_together_are_found(change: dict[str, Any], field: str) -> None:
    assert list(limits.word_problems(PLAIN | change)) == [field]


def test_a_caller_first_agent_needs_no_greeting() -> None:
    assert limits.word_problems(PLAIN | {"first_message": "", "first_message_mode": "assistant-waits-for-user"}) == {}


@pytest.mark.parametrize("number", ["+15550100100", "+4930123456", "+8612345678901"])
def test_a_number_has_plus_and_country_code(number: str) -> None:
    assert limits.number_problem(number) is None


@pytest.mark.parametrize(
    "number",
    ["", "15550100100", "+0555010010", "+1555", "+1555010010012345", "+1555010O100", "+1 555 010 0100", "sip:x@y", "+15550100100\n"],
)
def test_anything_else_is_no_number(number: str) -> None:
    assert limits.number_problem(number) is not None


BAD_ADDRESSES = [
    *("http://crm.example/x", "ftp://crm.example/", "https://user@crm.example/", "https://crm.example:22/", "https:///x", "javascript:1"),
    *("https://crm.example\\@evil/", "https://[::1", "https://münchen.example/", "https://crm.example/a b", "https://crm.example:99999/"),
]


@pytest.mark.parametrize("url", BAD_ADDRESSES)
def test_a_tools_address_is_https_and_plain(url: str) -> None:
    assert addresses.url_problem(url) is not None


def test_a_private_address_is_plain_http_only_when_it_is_listed() -> None:
    assert addresses.url_problem("http://127.0.0.1:9000/crm", allowed_private=["127.0.0.1:9000"]) is None
    assert addresses.url_problem("http://127.0.0.1:9001/crm", allowed_private=["127.0.0.1:9000"]) is not None


@pytest.mark.parametrize("name", ["", "has space", "x" * 65, "ümlaut", "transfer_to_human", "end_call"])
def test_a_tool_has_a_name_the_vendor_takes_and_we_do_not_use(name: str) -> None:
    assert list(limits.tool_problems(EMAIL_TOOL | {"name": name})) == ["name"]


@pytest.mark.parametrize(
    "schema",
    [
        [],
        "x",
        {"type": "array"},
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": {"type": "text"}}},
        {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}},
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}},
        {"type": "object", "properties": {"a": {"type": "string", "enum": [1]}}},
        {"type": "object", "properties": {"a": {"type": "string", "description": 1}}},
        {"type": "object", "properties": {}, "required": ["a"]},
        {"type": "object", "properties": {}, "additionalProperties": False},
        {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "nothing"}}}},
    ],
)
def test_a_schema_the_vendor_would_refuse_is_found(schema: Any) -> None:
    assert limits.schema_problem(schema) is not None


def test_a_deep_schema_is_refused_without_deep_recursion() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(5000):
        schema = {"type": "object", "properties": {"a": schema}}
    assert limits.schema_problem(schema) == "Nest at most 5 levels."


def test_the_agent_we_ship_can_be_published() -> None:
    draft = AssistantTemplate(**TEMPLATE)
    assert limits.word_problems({**services.words_of(draft), "name": draft.name}) == {}
    assert limits.tool_problems(services.tool_words(Tool(**TOOL, url="https://crm.example/"))) == {}
