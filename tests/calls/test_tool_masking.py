"""What of a tool's words may be read in a log: no secret, no card number, and everything else."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls.masking import CARD, MASK, is_secret, masked, masked_text

CARDS = [
    "4111111111111111",
    "5555555555554444",
    "378282246310005",
    "6011111111111117",
    "30569309025904",
    "4222222222222",
    "6304000000000000000",
]
SECRET = "hunter2-canary"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "password",
            "Password",
            "user_password",
            "userPassword",
            "PASSWD",
            "pwd",
            "token",
            "accessToken",
            "access_token",
            "ACCESS_TOKEN",
            "x-auth-token",
        ),
        *(
            "authorization",
            "Authorization",
            "secret",
            "client_secret",
            "api_key",
            "apiKey",
            "APIKey",
            "api key",
            "apikey",
            "private_key",
            "cookie",
        ),
        *(
            "pin",
            "PIN",
            "otp",
            "cvv",
            "CVC",
            "card_number",
            "cardNumber",
            "credit card",
            "pan",
            "ssn",
            "security_code",
            "credentials",
            "signature",
        ),
    ],
)
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert is_secret(name)
    assert masked({name: SECRET, "n": [{name: {"a": SECRET}}]}) == {name: MASK, "n": [{name: MASK}]}
    assert SECRET not in masked_text(f'{{"{name}":"{SECRET}"}}')
    assert SECRET not in masked_text(f'{{"ok":1,"{name}":"{SECRET}')  # cut in the middle


@pytest.mark.parametrize(
    "name", ["shipping", "spinning", "pinned", "author", "secretary", "tokens", "company", "key", "card", "email", "plan", "panel"]
)
def test_an_ordinary_name_hides_nothing(name: str) -> None:
    assert not is_secret(name)
    assert masked({name: "value", "deep": [{name: 7}]}) == {name: "value", "deep": [{name: 7}]}


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"password={SECRET}",
            f"Password: {SECRET}, then",
            f"token = {SECRET}; user=alex",
            f'the "api_key": "{SECRET}" is',
            f"Authorization: Bearer {SECRET}",
        ),
        *(f"bearer {SECRET}", f"Basic {SECRET}=", f"sk-live-{SECRET}", f"eyJhbGciOi.{SECRET}.x"),
    ],
)
def test_a_secret_in_a_sentence_is_masked(text: str) -> None:
    assert "hunter2" not in masked_text(text)
    assert MASK in masked_text(text)


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize(
    "form", ["{}", "my card is {}.", "{} 12/27 123", "12 {} 99", "a{}b", '{{"n":"{}"}}', '{{"n":{}}}', "{0}, {0}", "x,{}"]
)
def test_a_card_number_is_masked_in_any_company(card: str, form: str) -> None:
    for digits in (card, "-".join(card[at : at + 4] for at in range(0, len(card), 4)), " ".join(card)):
        if '"n":{}' in form and not digits.isdigit():
            continue
        found = masked_text(form.format(digits))
        assert digits not in found
        assert CARD in found


@pytest.mark.parametrize(
    "text", ["4111111111111112", "+15550100199", "order 12345678", "1795342809001", "2026-03-01 14:47:03", "call 0800 123 456"]
)
def test_other_digits_stay(text: str) -> None:
    assert masked_text(text) == text


def test_the_shape_and_what_is_harmless_stay() -> None:
    told = {"email": "alex@example.com", "n": 3, "ok": True, "none": None, "pin": None, "token": "", "list": [1.5, {"plan": "pro"}]}
    assert masked(told) == told
    assert masked_text('{"name":"Alex","plan":"pro","n":2}') == '{"name":"Alex","plan":"pro","n":2}'
    assert masked_text("Alex is on plan pro: 3 seats") == "Alex is on plan pro: 3 seats"


def test_a_card_number_that_came_as_a_number_is_masked() -> None:
    assert masked([4111111111111111, -4111111111111111, 42, True]) == [CARD, CARD, 42, True]


@given(st.text(max_size=200))
def test_any_text_can_be_masked_and_masking_twice_changes_nothing(text: str) -> None:
    once = masked_text(text)
    assert masked_text(once) == once


@pytest.mark.parametrize(
    "text",
    [f"x-eyJhbGciOi.{SECRET}.x", f"x-sk-live-{SECRET}-eyJhbGciOi.{SECRET}.x", f"eyJhbGciOi-eyJhbGciOi-eyJ.{SECRET}.x, then"],
)
def test_a_signed_token_is_masked_wherever_in_a_run_of_letters_it_begins(text: str) -> None:
    assert "hunter2" not in masked_text(text)
    assert "eyJ" not in masked_text(text)


@pytest.mark.parametrize("text", ["eyJ", "eyJ.eyJ.eyJ", "an eyJ-eyJ-eyJ-", "eyJhbGciOi.abc.x", "eyJhbGciOi. abcdef.x", "heyJoe.about.this"])
def test_what_only_begins_like_a_signed_token_stays(text: str) -> None:
    assert masked_text(text) == text


PARTS = ["1 ", "1", "a", "a ", "a_", 'a:"', "a: ", "bearer ", "eyJ", "1-", "token:", '"', "{", "[", "pin ", " "]
RUNS = ["eyJ-", "eyJaaaaa-", "eyJaaaaa.", "eyJaaaaa.b.", "eyJaaaaa.bbbbb-", "sk-", "a-"]


@pytest.mark.parametrize("part", [*PARTS, *RUNS])
def test_no_text_takes_time_by_the_square_of_its_length(part: str) -> None:
    text = part * (2**17 // len(part))  # a second or less; where the square of the length counts, most of a minute
    started = time.thread_time()
    masked_text(text)
    assert time.thread_time() - started < 8


def test_a_text_of_the_longest_kept_is_masked_in_a_value_too() -> None:
    started = time.thread_time()
    masked({"a": "eyJ-" * 2048, "b": ["1-" * 4096]})
    assert time.thread_time() - started < 2


def test_a_deep_value_is_no_trouble() -> None:
    deep: Any = SECRET
    for _ in range(64):
        deep = {"a": [deep]}
    assert masked(deep) == deep


def test_json_deeper_than_we_can_walk_is_a_text_like_any_other() -> None:
    deep = "[" * 900 + "]" * 900
    assert masked_text(deep) == deep
