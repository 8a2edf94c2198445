"""Where a text tells a number: written in any script, said in words, or both in turn. Pure, and linear in the text's length.

People read a number out in groups of their own ("forty-one eleven", "double one", "four thousand one hundred eleven"), with
pauses and small words between ("uh", "and then", "dash", "the last four are"). Each group is a `Number`; those that follow
each other with nothing else between are a `Run`. Nothing is guessed inside a group: a card number begins and ends with one.

Digits are understood in English, German, French, Spanish, Italian, Portuguese, Dutch, Chinese and Japanese; tens and
hundreds in English.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

ENGLISH = "zero one two three four five six seven eight nine"
DIGITS = {word: digit for digit, word in enumerate(ENGLISH.split())}
DIGITS |= dict.fromkeys(("oh", "o", "ohs", "nought", "naught", "aught", "ought", "nil", "null", "zip"), 0) | {
    "niner": 9,
    "fife": 5,
    "tree": 3,
}
for others in (
    "null eins zwei drei vier fünf sechs sieben acht neun",
    "zéro un deux trois quatre cinq six sept huit neuf",
    "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "zero uno due tre quattro cinque sei sette otto nove",
    "zero uma dois três quatro cinco seis sete oito nove",
    "nul één twee drie vier vijf zes zeven acht negen",
):
    DIGITS |= {word: digit for digit, word in enumerate(others.split()) if word not in DIGITS}
DIGITS |= {"zwo": 2, "duas": 2, "een": 1, "zero's": 0} | {sign: digit for digit, sign in enumerate("零一二三四五六七八九")} | {"〇": 0}
TEEN = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
UP_FROM_TEN = {word: 10 + place for place, word in enumerate(TEEN.split())}
UP_FROM_TEN |= {word: 20 + 10 * place for place, word in enumerate(TENS.split())} | {"fourty": 40}
VALUES = {**DIGITS, **UP_FROM_TEN}
SIZES = {"hundred": 100, "thousand": 1000}
TIMES = {"double": 2, "twice": 2, "triple": 3, "treble": 3, "thrice": 3, "quadruple": 4, "quintuple": 5}
PLURALS = {
    plural: digit
    for digit, plurals in enumerate(
        ("zeros zeroes noughts", "ones", "twos", "threes", "fours", "fives", "sixes", "sevens", "eights", "nines")
    )
    for plural in plurals.split()
}
# Said between the groups of one number.
SMALL_WORDS = (
    "uh uhh uhm um umm er erm ah eh hm hmm mm mhm and then dash hyphen minus space blank dot point period comma slash stroke next "
    "followed by okay ok so that that's thats that'll it it's its is are the a yes yeah yep right well like just let me see now after "
    "again finally first last half part group block set digit digits number numbers sorry wait hold on please go here comes rest "
    "und dann äh ähm strich y luego guion et puis tiret euh e poi trattino en dan streepje"
)
FILLERS = frozenset(SMALL_WORDS.split())
MOST_FILLERS = 8  # in a row
# Signs that part groups of one number, and those that are seen there but part other things more often: times, fractions, columns.
PLAIN = "() \t\r\n\v\f\u00a0\u2007\u2009\u202f\u3000\u2028\u2029.,-\u2010\u2011\u2012\u2013\u2014\u2015\u2212·•…"
UNSEEN = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad\ufe0f\u20e3"
ODD = ":;/\\|*_[]{}#&~'\"`“”‘’«»<>=?!"
_plain, _any = re.escape(PLAIN + UNSEEN), re.escape(PLAIN + UNSEEN + ODD)
LONGEST_GAP = 80
PLAIN_GAP = re.compile(rf"[{_plain}]{{0,{LONGEST_GAP}}}")
GAP = re.compile(rf"[{_any}]{{0,{LONGEST_GAP}}}\+?[{_any}]{{0,3}}")
USUAL_GAPS = frozenset(("", " ", "-", ", ", ". ", ".", "\n", "  "))
SIGNS = "".join(
    chr(code) for code in (0xB2, 0xB3, 0xB9, *range(0x2070, 0x208A), *range(0x2460, 0x2500), *range(0x2776, 0x2794)) if chr(code).isdigit()
)
CHINESE = "〇零一二三四五六七八九"
LEXEME = re.compile(
    r"(?P<name>[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}(?![0-9A-Za-z])"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?(?![0-9A-Za-z])"
    r"|[^\W\d_]*+\d++[^\W\d_]++\d[^\W_]*+)"  # letters between digits: an id or a moment, and no number
    rf"|(?P<digits>\d+(?:[ -]\d++(?![^\W_]))*+|[{SIGNS}])"
    r"|(?P<counted>\b(?:first|last|next|final|other|remaining)\s+(?:two|three|four|five|six|eight|\d)\s+(?:digits?|numbers?|are|is)\b)"
    rf"|(?P<word>[{CHINESE}]|(?:(?![{SIGNS}{CHINESE}])[^\W\d_])++(?:['’][^\W\d_]+)*)",
    re.IGNORECASE,
)
WRITTEN = re.compile(rf"\d+|[{SIGNS}]")
MAY_TELL = frozenset((*VALUES, *PLURALS)) - {"o", "a"}
WORDS = re.compile(r"[^\W\d_]+")
ANY_DIGIT = re.compile(rf"[\d{SIGNS}{CHINESE}]")


class Number(NamedTuple):
    """One group as it was told: its digits, and where it stands."""

    digits: str
    start: int
    end: int


@dataclass(slots=True)
class Run:
    """Groups told one after the other. `plain`: parted by nothing but spaces, dashes, dots, commas and small words; `plus`: after a +."""

    plus: bool = False
    plain: bool = True
    numbers: list[Number] = field(default_factory=list)

    @property
    def start(self) -> int:
        return self.numbers[0].start

    @property
    def end(self) -> int:
        return self.numbers[-1].end

    @property
    def digits(self) -> str:
        return "".join(number.digits for number in self.numbers)


def tells_any(text: str) -> bool:
    """False when a text tells no number at all, in a tenth of the time `runs` takes."""
    return ANY_DIGIT.search(text) is not None or not MAY_TELL.isdisjoint(WORDS.findall(text.casefold()))


def runs(text: str) -> Iterator[Run]:
    """The numbers of a text, in their order."""
    reader = _Reader(text)
    for found in LEXEME.finditer(text):
        done = reader.read(found)
        if done is not None:
            yield done
    last = reader.leave()
    if last is not None:
        yield last


def edges(text: str) -> tuple[Run | None, Run | None]:
    """The run a text begins with and the one it ends with, small words aside: they may go on in the text before and after."""
    found = list(runs(text))
    if not found:
        return None, None
    first, last = found[0], found[-1]
    return (first if _is_nothing(text[: first.start]) else None), (last if _is_nothing(text[last.end :]) else None)


def _is_nothing(text: str) -> bool:
    rest = LEXEME.sub(lambda lexeme: "" if lexeme["counted"] or lexeme[0].casefold() in FILLERS else "x", text)
    return "x" not in rest


class _Reader:
    """Reads lexemes one by one; `read` returns the run that one of them ended."""

    __slots__ = ("_end", "_fillers", "_run", "_said", "_text", "_times", "_times_at")

    def __init__(self, text: str) -> None:
        self._text = text
        self._run: Run | None = None
        self._end = 0  # of the last lexeme
        self._fillers = 0
        self._times = self._times_at = 0
        self._said: _Said | None = None  # the last group, while words may still add to it

    def read(self, found: re.Match[str]) -> Run | None:
        start, end = found.span()
        gap, self._end = self._text[self._end : start], end
        done = None if gap in USUAL_GAPS else self._gap(gap)
        kind, word = found.lastgroup, found[0]
        if kind == "digits":
            for group in WRITTEN.finditer(word):
                digits = group[0]
                self._add(digits if digits.isascii() else _plain_digits(digits), start + group.start(), start + group.end())
            return done
        if kind == "word" and self._understood(word := word.casefold(), start, end):
            return done
        if kind == "counted" or (word in FILLERS and self._fillers < MOST_FILLERS):
            self._fillers += 1
            return done
        ended = self.leave()
        done = done or ended
        if word == "plus":
            self._run = Run(plus=True)
        return done

    def leave(self) -> Run | None:
        """The run so far, if there is one; the next group begins another."""
        self._settle()
        done, self._run, self._times, self._fillers = self._run, None, 0, 0
        return done if done is not None and done.numbers else None

    def _gap(self, gap: str) -> Run | None:
        """What stands between the last lexeme and this one may end the run, or say what kind of run this is."""
        plus = "+" in gap
        done = self.leave() if plus or not GAP.fullmatch(gap) else None
        if plus:
            self._run = Run(plus=True)
        elif self._run is not None and self._run.plain and not PLAIN_GAP.fullmatch(gap):
            self._run.plain = False
        return done

    def _understood(self, word: str, start: int, end: int) -> bool:
        value = VALUES.get(word)
        if value is not None:
            if self._said is None or not self._said.add(value, end, self._fillers):
                self._say(value, start, end)
            self._fillers = 0
            return True
        if word in SIZES:
            return self._said is not None and self._said.multiply(SIZES[word], end)
        if word in PLURALS:
            return self._repeat(PLURALS[word], end)
        if word in TIMES:
            self._settle()
            self._times, self._times_at, self._fillers = TIMES[word], start, 0
            return True
        return False

    def _add(self, digits: str, start: int, end: int) -> None:
        """A group that is written, or repeated, and takes no more words."""
        if self._said is not None:
            self._settle()
        if self._run is None:
            self._run = Run()
        if self._times and len(digits) == 1:
            digits, start = digits * self._times, self._times_at
        self._times = self._fillers = 0
        self._run.numbers.append(Number(digits, start, end))

    def _say(self, value: int, start: int, end: int) -> None:
        if self._times and value < 10:
            return self._add(str(value), start, end)
        if self._said is not None:
            self._settle()
        if self._run is None:
            self._run = Run()
        self._times = self._fillers = 0
        self._said = _Said(value, start, end)
        return None

    def _repeat(self, digit: int, end: int) -> bool:
        """ "four ones": the last group says how many."""
        self._settle()
        last = self._run.numbers.pop() if self._run is not None and self._run.numbers else None
        if last is None or self._run is None:
            return False
        many = len(last.digits) <= 2 and 2 <= int(last.digits) <= 19
        self._run.numbers.append(Number(str(digit) * int(last.digits), last.start, end) if many else last)
        return many

    def _settle(self) -> None:
        said, self._said = self._said, None
        if said is not None and self._run is not None:
            self._run.numbers.append(Number(str(said.base + said.rest), said.start, said.end))


class _Said:
    """A group that words may still add to: "forty" + "one", "four" + "thousand" + "one" + "hundred" + "eleven"."""

    __slots__ = ("base", "end", "rest", "room", "start")

    def __init__(self, value: int, start: int, end: int) -> None:
        self.base, self.rest, self.room = 0, value, 0
        self.start, self.end = start, end

    def add(self, value: int, end: int, fillers: int) -> bool:
        """True when these words belong to the same number."""
        fits_tens = value < 10 and self.rest >= 20 and self.rest % 10 == 0 and not fillers
        fits_size = self.room > 0 and self.rest == 0
        if value == 0 or not (fits_tens or fits_size):
            return False
        self.rest += value
        self.end = end
        return True

    def multiply(self, size: int, end: int) -> bool:
        """True for "hundred" or "thousand" where it can be meant."""
        if size == 100 and 0 < self.rest < 100 and self.room != 100:
            self.base, self.rest = self.base + self.rest * 100, 0
        elif size == 1000 and 0 < self.base + self.rest < 1000:
            self.base, self.rest = (self.base + self.rest) * 1000, 0
        else:
            return False
        self.room, self.end = size, end
        return True


def _plain_digits(written: str) -> str:
    return "".join(str(unicodedata.digit(sign)) for sign in written)
