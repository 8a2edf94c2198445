"""What must not be stored. Every text that people spoke passes here on its way to a row, and nowhere else. Pure.

A card number is left out whatever its grouping and however it is said (`calls.spoken_numbers`, `calls.cards`), also when its
parts stand in several texts: the lines of one speaker, whoever spoke between them, or the entries of one message. In the
place of what was left out stands a mark (`calls.marks`). Redacting twice is redacting once. A key of the telephone that was
pressed is told by nobody, whatever the rules are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from agents import discretion
from calls import cards, spoken_emails, spoken_numbers
from calls.marks import CARD, EMAIL, LEFT_OUT, MARK, PHONE
from calls.spoken_numbers import Number, Run
from calls.words import words

LOOK_BACK_MS = 60_000  # of one speaker's digits to the next ones
SAME_TURN_MS = 20_000  # a transcriber may tell a turn again from its beginning
SHORTEST_PHONE = 7
MOST_GROWING = 4  # digits of a number that is still being said
ROUNDS = 4  # what one rule leaves out may uncover something to another
YEARS = re.compile(r"(?:19|20)\d\d")
DATE = re.compile(r"\d{4}-\d\d-\d\d|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}")
CODE_IS_NEXT = re.compile(
    r"(?:\b(?:cvv2?|cvc2?|csc|c ?v ?v|c ?v ?c)|\bsecurity code)\b[^\w\[]*(?:(?:number|code|is|it'?s|the|of|my|on the back)\b\W*){0,4}$",
    re.I,
)
CODE_BEGINS_WITHIN = 60  # characters
KEY_OF = re.compile(r"dtmf\w*|digits?|keypad\w*|key_?press\w*|keys_?pressed", re.IGNORECASE)
KEYS_TOLD = re.compile(
    r"\b((?:keypad|dtmf|touch-?tones?)(?: (?:entry|input|digits?|keys?))?\s{0,2}[:=]\s{0,2}|keypad (?:entry|input) )"
    r"[0-9*#]++(?:[ ,-][0-9*#]++)*+",
    re.IGNORECASE,
)
MAY_TELL_KEYS = re.compile(r"keypad|dtmf|touch-?tone", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is left out of the texts of a call; `patterns` are such as `agents.discretion` allows."""

    cards: bool = True
    emails: bool = False
    phones: bool = False
    patterns: tuple[str, ...] = ()


USUAL = Rules()


class Said(NamedTuple):
    """A line as it was said, at `ms` of any clock."""

    role: str
    ms: int
    text: str


class Place(NamedTuple):
    """From where to where of a text something else is to stand."""

    start: int
    end: int
    mark: str


# -- one text ----------------------------------------------------------------------------------------------------------


def redact(text: str, rules: Rules = USUAL) -> str:
    """The text as it may be stored."""
    for _ in range(ROUNDS):
        before = text
        if MAY_TELL_KEYS.search(text):
            text = KEYS_TOLD.sub(rf"\g<1>{LEFT_OUT}", text)
        if rules.emails and spoken_emails.tells_any(text):
            text = _with_marks(text, (Place(start, end, EMAIL) for start, end in spoken_emails.addresses(text)))
        if (rules.cards or rules.phones) and spoken_numbers.tells_any(text):
            text = _with_marks(text, _numbers(text, rules, alone=True))
        for pattern in rules.patterns:
            text = _with_marks(text, _matches(text, pattern))
        if text == before:
            break
    return text


def redact_growing(text: str, rules: Rules = USUAL) -> str:
    """A text whose end is still to come, as it may be stored: a number that may become a card's is left out from its fifth digit on."""
    text = redact(text, rules)
    if not (rules.cards or rules.phones) or not spoken_numbers.tells_any(text):
        return text
    growing = (run for run in spoken_numbers.runs(text) if len(run.digits) > MOST_GROWING)
    return _with_marks(text, (Place(run.start, run.end, LEFT_OUT) for run in growing))


def _numbers(text: str, rules: Rules, *, alone: bool) -> Iterator[Place]:
    """Cards and telephone numbers. `alone`: the text is one thing that was told, and no several ones put together."""
    for run in spoken_numbers.runs(text):
        taken = list(cards.of(run, alone=alone)) if rules.cards else []
        yield from (Place(run.numbers[first].start, run.numbers[last - 1].end, CARD) for first, last in taken)
        if rules.cards and not taken and _is_code(text, run):
            yield Place(run.start, run.end, CARD)
        if rules.phones:
            yield from _phones(text, run, taken)


def _is_code(text: str, run: Run) -> bool:
    """The three or four digits on a card's back, where the text says so."""
    if len(run.numbers) > 4 or len(run.digits) not in (3, 4):
        return False
    return CODE_IS_NEXT.search(text[max(0, run.start - CODE_BEGINS_WITHIN) : run.start]) is not None


def _phones(text: str, run: Run, taken: Sequence[tuple[int, int]]) -> Iterator[Place]:
    """What the cards leave of a run, where it is long enough to be somebody's number."""
    edges = [0, *(edge for both in taken for edge in both), len(run.numbers)]
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        groups = run.numbers[first:last]
        if sum(len(number.digits) for number in groups) >= SHORTEST_PHONE and not _is_something_else(text, groups):
            start = groups[0].start
            yield Place(start - 1 if text[start - 1 : start] == "+" else start, groups[-1].end, PHONE)


def _is_something_else(text: str, groups: Sequence[Number]) -> bool:
    """Years, a date, a time, or somebody who counts."""
    if cards.counts(groups) or all(YEARS.fullmatch(number.digits) for number in groups):
        return True
    written = text[groups[0].start : groups[-1].end]
    return ":" in written or DATE.fullmatch(written) is not None


def _matches(text: str, pattern: str) -> Iterator[Place]:
    """What a pattern matches, but for the marks: what stands in one was never said."""
    marks = [found.span() for found in MARK.finditer(text)]
    for start, end in discretion.found(pattern, text):
        if not any(start < mark_end and mark_start < end for mark_start, mark_end in marks):
            yield Place(start, end, LEFT_OUT)


def _with_marks(text: str, places: Iterable[Place]) -> str:
    parts, at = [], 0
    for place in places:
        parts += [text[at : place.start], place.mark]
        at = place.end
    return "".join((*parts, text[at:])) if parts else text


# -- several texts -----------------------------------------------------------------------------------------------------


def redact_talk(lines: Sequence[Said], rules: Rules = USUAL, *, alone: Callable[[str, Rules], str] = redact) -> list[str]:
    """The texts of a conversation's lines, in their order, as they may be stored: also what one speaker told in several of them.

    `alone` is `redact`, for who asks of the same lines again and again one that remembers.
    """
    texts = [alone(line.text, rules) for line in lines]
    if not (rules.cards or rules.phones):
        return texts
    for chain in _chains(lines, texts):
        for place, text in zip(chain, _together([texts[place] for place in chain], rules), strict=True):
            texts[place] = text
    if rules.cards:
        for place in range(len(lines) - 1):
            texts[place] = _without_what_grew(lines[place], texts[place], lines[place + 1], texts[place + 1])
    return texts


def goes_on(text: str, rules: Rules = USUAL) -> bool:
    """True when this redacted line may be a part of something that its speaker's lines before or after tell too."""
    if CARD in text and rules.cards:
        return True
    return (rules.cards or rules.phones) and spoken_numbers.tells_any(text) and any(spoken_numbers.edges(text))


def _chains(lines: Sequence[Said], texts: Sequence[str]) -> Iterator[list[int]]:
    """The lines of each speaker that tell numbers, by their places, parted where too long a time lies between."""
    for role in dict.fromkeys(line.role for line in lines):
        chain: list[int] = []
        for place, line in enumerate(lines):
            if line.role != role or not spoken_numbers.tells_any(texts[place]):
                continue
            if chain and abs(line.ms - lines[chain[-1]].ms) > LOOK_BACK_MS:
                yield chain
                chain = []
            chain.append(place)
        yield chain


def _together(texts: Sequence[str], rules: Rules) -> list[str]:
    """Texts that follow each other, without the numbers that they tell together."""
    if len(texts) < 2:
        return list(texts)
    whole = "\n".join(texts)
    places = [place for place in _numbers(whole, rules, alone=False) if "\n" in whole[place.start : place.end]]
    found, at, next_place = [], 0, 0
    for text in texts:
        end = at + len(text)
        while next_place < len(places) and places[next_place].end <= at:
            next_place += 1
        here = []
        for place in places[next_place:]:
            if place.start >= end:
                break
            here.append(_within(text, place.start - at, place.end - at, place.mark))
        found.append(_with_marks(text, here))
        at = end + 1
    return found


def _within(text: str, start: int, end: int, mark: str) -> Place:
    """The part of a place that is in one text, without the signs at its edge."""
    start, end = max(start, 0), min(end, len(text))
    while end > start and not text[end - 1].isalnum():
        end -= 1
    while start < end and not text[start].isalnum():
        start += 1
    return Place(start, end, mark)


def _without_what_grew(line: Said, text: str, then: Said, grown: str) -> str:
    """A transcriber may tell the beginning of a number, and then all of the turn again: the beginning goes as well."""
    mark = grown.find(CARD)
    if mark < 0 or line.role != then.role or not 0 <= then.ms - line.ms <= SAME_TURN_MS:
        return text
    run = spoken_numbers.edges(text)[1]
    if run is None or len(run.digits) < MOST_GROWING or words(text[: run.start]) != words(grown[:mark]):
        return text
    return _with_marks(text, [Place(run.start, run.end, CARD)])


def redact_body(body: Any, rules: Rules = USUAL) -> Any:
    """A parsed JSON value with every text in it as it may be stored, also what several of them tell together."""
    texts = _Texts(rules)
    texts.collect(body)
    return texts.replaced(body)


class _Texts:
    """The texts of a JSON value in their order. Those that tell numbers and follow each other are looked at together."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._found: list[str] = []
        self._chain: list[int] = []
        self._given = iter(())  # type: Iterator[str]

    def collect(self, value: Any) -> None:
        self._collect(value)
        self._close()
        self._given = iter(self._found)

    def replaced(self, value: Any, *, is_key_press: bool = False) -> Any:
        match value:
            case str():
                text = next(self._given)
                return LEFT_OUT if is_key_press and text else text
            case dict():
                return {self._key(key): self.replaced(entry, is_key_press=_tells_keys(key)) for key, entry in value.items()}
            case list():
                return [self.replaced(entry, is_key_press=is_key_press) for entry in value]
            case int() if not isinstance(value, bool):
                return LEFT_OUT if is_key_press else CARD if self._rules.cards and cards.is_card(str(abs(value))) else value
        return value

    def _key(self, key: Any) -> Any:
        """Keys are the vendor's and stay; but a model makes some up."""
        return redact(key, self._rules) if isinstance(key, str) and len(key) >= cards.SHORTEST else key

    def _collect(self, value: Any) -> None:
        match value:
            case str():
                text = redact(value, self._rules)
                if (self._rules.cards or self._rules.phones) and spoken_numbers.tells_any(text):
                    self._chain.append(len(self._found))
                else:
                    self._close()
                self._found.append(text)
            case dict():
                for entry in value.values():
                    self._collect(entry)
            case list():
                for entry in value:
                    self._collect(entry)
            case _:
                self._close()

    def _close(self) -> None:
        for place, text in zip(self._chain, _together([self._found[place] for place in self._chain], self._rules), strict=True):
            self._found[place] = text
        self._chain = []


def _tells_keys(key: Any) -> bool:
    return isinstance(key, str) and KEY_OF.fullmatch(key) is not None


def same_number_once(texts: Sequence[str]) -> list[str]:
    """One speaker's redacted lines with one mark for each number, however many lines it was told in.

    Two tellings of one conversation part it otherwise, and are compared word by word.
    """
    found = list(texts)
    for place, (text, then) in enumerate(pairwise(texts), start=1):
        begins = MARK.match(then)
        if begins and begins[0] in (CARD, PHONE) and text.rstrip(" .,!?").endswith(begins[0]):
            found[place] = then[begins.end() :].lstrip(" .,!?")
    return found
