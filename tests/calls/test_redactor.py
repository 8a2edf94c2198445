"""What is left out of a text, and what is not: the function that every door uses."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls import spoken_numbers
from calls.marks import CARD, EMAIL, LEFT_OUT, PHONE
from calls.redaction import (
    LOOK_BACK_MS,
    USUAL,
    Rules,
    Said,
    goes_on,
    redact,
    redact_body,
    redact_growing,
    redact_talk,
    same_number_once,
)
from calls.words import words
from tests.calls.card_forms import FORMS, HALVES, INNOCENT

ALL = Rules(emails=True, phones=True, patterns=(r"CUST-[0-9]{6}", r"(?i)password is \S+"))
NOTHING = Rules(cards=False)
A_MEGABYTE = 2**20
A_QUARTER = A_MEGABYTE // 4
NUMBER_WORDS = [*spoken_numbers.VALUES, "hundred", "thousand", "double", "triple", "ones", "and", "uh", "plus", "last four are"]
TOLD = st.lists(st.sampled_from([*NUMBER_WORDS, "4111", "1", "11", "378282246310005", "x", CARD, "at", "dot", "com", "cvv"]), max_size=40)


def talk(*said: tuple[str, int, str], rules: Rules = USUAL) -> list[str]:
    return redact_talk([Said(*each) for each in said], rules)


# -- cards -----------------------------------------------------------------------------------------------------------------


def test_there_are_forty_forms_and_forty_texts_that_only_look_like_one() -> None:
    assert len(set(FORMS)) >= 40
    assert len(set(INNOCENT)) >= 40


@pytest.mark.parametrize("form", FORMS)
def test_a_card_number_is_left_out_however_it_is_told(form: str) -> None:
    left = redact(f"Sure, it is {form} and I live in Rome.")
    assert CARD in left
    assert not re.search(r"\d", left)
    assert set(words(left)) <= {"sure", "it", "is", "visa", CARD, "and", "i", "live", "in", "rome"}


@pytest.mark.parametrize("text", INNOCENT)
def test_what_only_looks_like_a_card_number_stays_whole(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("parts", HALVES)
def test_a_card_number_told_in_several_lines_is_left_out_of_each(parts: tuple[str, ...]) -> None:
    told = [each for place, part in enumerate(parts) for each in (("user", place * 5000, part), ("assistant", place * 5000 + 9, "Go on."))]
    left = talk(*told)
    assert all(CARD in line for line in left[::2])
    assert all(line == "Go on." for line in left[1::2])
    assert not any(re.search(r"\d|four|nine", line) for line in left)


@pytest.mark.parametrize("parts", HALVES)
def test_each_part_is_known_for_one_whichever_comes_last(parts: tuple[str, ...]) -> None:
    assert all(goes_on(part) for part in parts)
    assert not goes_on("I have two questions about room 12 upstairs.")


def test_an_agent_who_reads_the_number_back_is_not_stored_either() -> None:
    assert talk(
        ("user", 0, "4539 1488 0343 6467"), ("assistant", 1, "I have 4539 1488,"), ("user", 2, "yes"), ("assistant", 3, "0343 6467.")
    ) == [
        CARD,
        f"I have {CARD},",
        "yes",
        f"{CARD}.",
    ]


def test_two_speakers_do_not_make_one_number() -> None:
    told = ("user", 0, "4539 1488"), ("assistant", 1, "0343 6467")
    assert talk(*told) == ["4539 1488", "0343 6467"]


def test_parts_are_of_one_number_only_while_they_are_near() -> None:
    assert talk(("user", 0, "4539 1488"), ("user", LOOK_BACK_MS, "0343 6467")) == [CARD, CARD]
    assert talk(("user", 0, "4539 1488"), ("user", LOOK_BACK_MS + 1, "0343 6467")) == ["4539 1488", "0343 6467"]


def test_numbers_with_words_between_them_are_not_put_together() -> None:
    told = [("user", 0, "The door is 4539 1488 today"), ("user", 9, "and the gate has 0343 6467")]
    assert talk(*told) == [text for _, _, text in told]


def test_a_turn_told_again_and_longer_takes_its_own_beginning_along() -> None:
    assert talk(("user", 0, "my card is 4539 1488"), ("user", 900, "my card is 4539 1488 0343 6467")) == [f"my card is {CARD}"] * 2


def test_the_code_on_its_back_goes_with_it() -> None:
    assert redact("4539 1488 0343 6467, and the CVV is 123") == f"{CARD}, and the CVV is {CARD}"
    assert redact("My security code is one two three.") == f"My security code is {CARD}."


@pytest.mark.parametrize("form", FORMS)
def test_no_partial_of_a_number_that_is_being_said_holds_more_than_four_digits(form: str) -> None:
    said = f"Sure, it is {form}"
    for end in range(len(said) + 1):
        shown = redact_growing(said[:end])
        assert sum(len(run.digits) for run in spoken_numbers.runs(shown)) <= 4, shown


def test_cards_stay_when_the_rules_say_so() -> None:
    assert [redact(form, NOTHING) for form in FORMS] == list(FORMS)
    assert redact_growing("4539 1488 0343", NOTHING) == "4539 1488 0343"


# -- the other rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Write to alex.smith+1@mail.example.co.uk, please", f"Write to {EMAIL}, please"),
        ("it's alex at example dot com", f"it's {EMAIL}"),
        ("alex dot smith at my company dot co dot uk thanks", f"{EMAIL} thanks"),
        ("a l e x 4 2 at gmail.com", EMAIL),
        ("alex underscore smith at sign example dot com", EMAIL),
        ("I am at home", "I am at home"),
        ("look at the dot", "look at the dot"),
    ],
)
def test_e_mail_addresses_are_left_out_written_and_said(said: str, left: str) -> None:
    assert redact(said, ALL) == left
    assert redact(said) == said


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Call +1 (415) 555-0100.", f"Call {PHONE}."),
        ("five five five oh one double oh", PHONE),
        ("it is 0151 2345 6789 now", f"it is {PHONE} now"),
        ("on 2026-11-29 at 12:30:45, in 2019, 2020", "on 2026-11-29 at 12:30:45, in 2019, 2020"),
        ("one two three four five six seven eight", "one two three four five six seven eight"),
        ("case 123456", "case 123456"),
    ],
)
def test_phone_numbers_are_left_out_written_and_said(said: str, left: str) -> None:
    assert redact(said, ALL) == left
    assert redact(said) == said


def test_whatever_matches_a_pattern_is_left_out() -> None:
    assert redact("I am CUST-123456, my password is hunter2.", ALL) == f"I am {LEFT_OUT}, my {LEFT_OUT}"


def test_a_pattern_finds_nothing_in_a_mark_and_bears_half_characters() -> None:
    assert redact(f"{CARD} \ud83d card", Rules(patterns=("card",))) == f"{CARD} \ud83d {LEFT_OUT}"


@pytest.mark.parametrize("said", ["User's Keypad Entry: 4711#", "DTMF: 4 7 1 1", "keypad digits = 4711"])
@pytest.mark.parametrize("rules", [USUAL, NOTHING])
def test_no_key_that_was_pressed_is_told_whatever_the_rules_are(said: str, rules: Rules) -> None:
    assert not re.search(r"\d", redact(said, rules))
    assert not re.search(r"\d", str(redact_body({"dtmf": {"digit": "4"}, "Digits": "4711", "keypadEntry": ["4", 7]}, rules)))


# -- bodies ----------------------------------------------------------------------------------------------------------------


def test_entries_of_a_message_are_looked_at_together() -> None:
    body = {"first": "4539 1488", "rest": ["0343", "6467"], "number": 4539148803436467, "time": 1795342807000, "4539148803436467": True}
    assert redact_body(body) == {"first": CARD, "rest": [CARD, CARD], "number": CARD, "time": 1795342807000, CARD: True}


def test_entries_with_something_else_between_them_are_not() -> None:
    body = {"order": "4539 1488", "note": "for the gate", "room": "0343 6467"}
    assert redact_body(body) == body


def test_a_number_has_one_mark_however_many_lines_tell_it() -> None:
    assert same_number_once([f"it is {CARD}", f"{CARD}, yes", f"{CARD} too", "no", CARD]) == [
        f"it is {CARD}",
        "yes",
        f"{CARD} too",
        "no",
        CARD,
    ]


# -- what holds for every text ---------------------------------------------------------------------------------------------


@given(TOLD, st.sampled_from([" ", "-", ", ", "\n"]), st.sampled_from([USUAL, ALL, NOTHING]))
def test_redacting_twice_is_redacting_once(told: list[str], between: str, rules: Rules) -> None:
    once = redact(between.join(told), rules)
    assert redact(once, rules) == once


@given(st.lists(st.sampled_from(FORMS), min_size=1, max_size=3), st.sampled_from([" ", "\n", " and "]))
def test_several_cards_are_all_left_out(forms: list[str], between: str) -> None:
    left = redact(between.join(forms))
    assert not re.search(r"\d{3}", left)


@given(st.text())
def test_a_text_without_digits_and_number_words_is_never_touched(text: str) -> None:
    if not spoken_numbers.tells_any(text):
        assert redact(text) == text
        assert not goes_on(text)


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_what_is_not_left_out_is_left_as_it_was(text: str) -> None:
    left = redact(text, ALL)
    at = 0
    for part in re.split(r"\[(?:card|e-mail|phone|left out)\]", left):
        at = text.index(part, at) + len(part)


@pytest.mark.parametrize(
    "text",
    [
        "4",
        "4 ",
        "4 1",
        "4111-1111 ",
        "four ",
        "forty one ",
        "double ",
        "one hundred ",
        "1a",
        "at ",
        "a.",
        "@",
        "cvv 1",
        "- ",
        "4" + " " * 500,
    ],
)
@pytest.mark.parametrize("rules", [USUAL, ALL], ids=["usual", "all"])
@pytest.mark.parametrize("size", [A_QUARTER, pytest.param(A_MEGABYTE, marks=pytest.mark.long)], ids=["a quarter of one", "a megabyte"])
def test_a_megabyte_takes_about_as_long_as_its_pieces_together(text: str, rules: Rules, size: int) -> None:
    long = (text * (size // len(text) + 1))[:size]
    piece = min(_seconds(long[: size // 32], rules) for _ in range(3))
    most = min(150 * max(piece, 0.002), 6.0)
    took = (_seconds(long, rules) for _ in range(2))
    assert any(each < most for each in took), "32 times is its share, more with cold caches; 1024, if all of it were looked at for each"


def _seconds(text: str, rules: Rules) -> float:
    begun = time.thread_time()
    redact(text, rules)
    return time.thread_time() - begun


def test_the_time_grows_with_the_length_and_no_faster() -> None:
    took = [_seconds("4539 1488 0343 6467 four five " * many, USUAL) for many in (2_000, 20_000)]
    assert took[1] < 30 * max(took[0], 0.01)


def test_runs_are_in_order_and_do_not_overlap() -> None:
    for text in (*FORMS, *INNOCENT):
        numbers = [number for run in spoken_numbers.runs(text) for number in run.numbers]
        assert all(one.end <= other.start for one, other in pairwise(numbers))
