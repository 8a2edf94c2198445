"""What of a tool's arguments and answers may stand in a call's log: everything but secrets and card numbers. Pure.

A secret is known by its name (`password`, `apiKey`, `card_number`) or by its looks (a bearer token, a signed token); a card
number by its check digit, in any grouping. Both become a mark, so that a reader sees that something was there.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

MASK, CARD = "•••", "[card]"
WORDS = frozenset(
    (
        *("authorization", "auth", "token", "jwt", "bearer", "secret", "password", "passwd", "pwd", "passcode", "passphrase", "pin", "otp"),
        *("credential", "credentials", "signature", "cookie", "apikey", "accesskey", "privatekey", "secretkey"),
        *("pan", "cvv", "cvv2", "cvc", "cardnumber", "securitycode", "ssn"),
    )
)
PAIRS = re.compile(r"(?:api|access|private|secret|signing) key|card (?:number|no)|credit card|debit card|security code|session id")
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
NAMED = re.compile(
    r"(?P<name>[A-Za-z][A-Za-z0-9_ -]{1,40}?)(?P<between>\"?\s{0,3}[:=]\s{0,3})"
    r"(?P<value>\"(?:\\.|[^\"\\])*\"?|[^\s,;&}\]\"]+)"
)
BEARER = re.compile(r"\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
# Three parts with a dot between them, the first one from an `eyJ` on. A run of letters is only looked through where it
# begins and when the dots are there: tried from every `eyJ` in it, a long one of a stranger's making would take hours.
SIGNED = re.compile(
    r"(?<![A-Za-z0-9_-])(?=[A-Za-z0-9_-]++\.[A-Za-z0-9_-]{5,}+\.)"
    r"(?P<before>(?:[A-Za-z0-9_-]*?-)??)\beyJ[A-Za-z0-9_-]{5,}+\.[A-Za-z0-9_-]{5,}+\.[A-Za-z0-9_-]*+",
    re.IGNORECASE,
)
KEY = re.compile(r"\bsk[-_][A-Za-z0-9_-]{12,}", re.IGNORECASE)
DIGITS = re.compile(r"(?<![0-9])[0-9]+(?:[ -][0-9]+)*(?![0-9])")
DIGITS_AT_ALL = re.compile(r"[0-9]+(?:[ .-][0-9]+)*")
ARGUMENTS = frozenset(("arguments", "parameters"))
SHORTEST_CARD, LONGEST_CARD = 13, 19
DOUBLED = dict(zip("0123456789", (0, 2, 4, 6, 8, 1, 3, 5, 7, 9), strict=True))  # the sum of the digits of twice a digit


def masked(value: Any) -> Any:
    """A JSON value without its secrets; the shape and the names stay."""
    match value:
        case dict():
            return {key: MASK if is_secret(str(key)) and inner not in (None, "") else masked(inner) for key, inner in value.items()}
        case list():
            return [masked(inner) for inner in value]
        case str():
            return masked_text(value)
        case int() if not isinstance(value, bool) and _holds_a_card(str(abs(value))):
            return CARD
    return value


def masked_text(text: str) -> str:
    """A line without its secrets; a line that is JSON is masked by its names."""
    if text[:1] in ("{", "["):
        try:
            return orjson.dumps(masked(orjson.loads(text))).decode()
        except (orjson.JSONDecodeError, TypeError, RecursionError):  # cut, or no JSON after all, or deeper than anybody means it
            pass
    text = NAMED.sub(_without_value, without_looks(text))
    return DIGITS.sub(_without_cards, text)


def without_looks(text: str) -> str:
    """A text without what looks like a secret wherever it stands; the one look that is quick for a text of any length."""
    return KEY.sub(MASK, SIGNED.sub(rf"\g<before>{MASK}", BEARER.sub(MASK, text)))


def without_digits(value: Any) -> Any:
    """A JSON value without any digit, names apart: for what may hold a number that the caller typed."""
    match value:
        case dict():
            return {key: without_digits(inner) for key, inner in value.items()}
        case list():
            return [without_digits(inner) for inner in value]
        case str():
            return DIGITS_AT_ALL.sub(MASK, value)
        case int() | float() if not isinstance(value, bool):
            return MASK
    return value


def without_digits_in_arguments(value: Any) -> Any:
    """A message of Vapi's whose tool calls have no digit in their arguments; their ids have."""
    match value:
        case dict():
            return {key: (without_digits if key in ARGUMENTS else without_digits_in_arguments)(part) for key, part in value.items()}
        case list():
            return [without_digits_in_arguments(part) for part in value]
    return value


def is_secret(name: str) -> bool:
    """True for the name of something nobody may read in a log: `api_key`, `apiKey`, `X-Auth-Token`."""
    words = [word.lower() for word in WORD.findall(name)]
    return not WORDS.isdisjoint(words) or bool(PAIRS.search(" ".join(words)))


def _without_value(found: re.Match[str]) -> str:
    return f"{found['name']}{found['between']}{MASK}" if is_secret(found["name"]) else found[0]


def _without_cards(found: re.Match[str]) -> str:
    """A card may stand between other groups of digits: every run of whole groups is looked at, the longest first."""
    groups = re.findall(r"[0-9]+|[ -]", found[0])  # digits, separator, digits, …
    kept, at = [], 0
    while at < len(groups):
        end = _end_of_card(groups, at) if groups[at].isdigit() else 0
        kept.append(CARD if end else groups[at])
        at = end or at + 1
    return "".join(kept)


def _end_of_card(groups: list[str], start: int) -> int:
    """Where the longest card number that begins at a group ends; 0 when none does."""
    digits, end = "", 0
    for at in range(start, min(start + 2 * LONGEST_CARD, len(groups)), 2):
        digits += groups[at]
        if len(digits) > LONGEST_CARD:
            break
        end = at + 1 if _holds_a_card(digits) else end
    return end


def _holds_a_card(digits: str) -> bool:
    """Luhn's check of 13 to 19 digits."""
    if not SHORTEST_CARD <= len(digits) <= LONGEST_CARD or not digits.isascii() or not digits.isdigit():
        return False
    return (sum(map(int, digits[-1::-2])) + sum(map(DOUBLED.__getitem__, digits[-2::-2]))) % 10 == 0
