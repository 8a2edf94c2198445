"""When a line's people are at work: their hours by the week and their holidays, on the clock of the line's own zone. Pure.

Hours are written as people say them, one entry each: `Mon-Fri 9:00-17:00`, `Sat 10-14`, `Mon, Wed 9-12, 13-17`. An entry past
midnight (`Fri 22:00-2:00`) goes on into the next day. Holidays are days nobody works: `2026-12-24` or `24 December 2026` is
one, `12-25` or `25 December` comes back every year; what follows the date is a remark. No hours at all: always at work.

Whether it is open is what the clock on the wall says, so a clock that is put back opens twice, and one that is put forward opens
when it jumps. `spans` finds those moments by looking at every one at which the answer can change.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from itertools import pairwise
from typing import Protocol
from zoneinfo import ZoneInfo

log = logging.getLogger(__name__)

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
SHORTEST_NAME = 3  # letters
MIDNIGHT = 24 * 60
LOOKED_AHEAD = 400  # days: longer than a year, so that yearly holidays all but one day still open
ENTRY = re.compile(r"(?P<days>[a-z ,\-]+?)\s+(?P<times>\d.*)", re.ASCII)
TIMES = re.compile(r"(\d{1,2})(?::(\d{2}))?-(\d{1,2})(?::(\d{2}))?", re.ASCII)
HOLIDAYS = (
    re.compile(r"(?:(?P<year>\d{4})-)?(?P<month>\d{1,2})-(?P<day>\d{1,2})(?:\s.*)?", re.ASCII),
    re.compile(r"(?P<day>\d{1,2})\.? (?P<month>[a-z]{3,9})(?: (?P<year>\d{4}))?(?:\s.*)?"),
)
DASHES = str.maketrans("\u2010\u2011\u2012\u2013\u2014\u2212\u00a0", "------ ")
HOURS_HELP = "Write days and times, like Mon-Fri 9:00-17:00."
HOLIDAY_HELP = "Write a date, like 2026-12-24, or 25 December for every year."


class NotUnderstood(ValueError):
    """An entry is wrong; the text says how to write it."""


@dataclass(frozen=True, slots=True)
class Hours:
    """Minutes of the day by weekday, from Monday on, and the holidays as (year or 0, month, day); `zone` is that of the wall's clock."""

    week: tuple[tuple[tuple[int, int], ...], ...] = ()
    holidays: frozenset[tuple[int, int, int]] = frozenset()
    zone: ZoneInfo | None = None

    @property
    def always(self) -> bool:
        return not any(self.week) and not self.holidays

    def on(self, day: date) -> tuple[tuple[int, int], ...]:
        """The minutes of that day at which somebody works."""
        if self.holidays & {(0, day.month, day.day), (day.year, day.month, day.day)}:
            return ()
        return self.week[day.weekday()] if any(self.week) else ((0, MIDNIGHT),)


ALWAYS = Hours()


def read(hours: Sequence[str], holidays: Sequence[str], zone: str) -> Hours:
    """What the entries of a line say. Raises NotUnderstood for the first one that cannot be read."""
    return _read(tuple(hours), tuple(holidays), zone)


@lru_cache(maxsize=256)
def _read(hours: tuple[str, ...], holidays: tuple[str, ...], zone: str) -> Hours:
    week: list[list[tuple[int, int]]] = [[] for _ in DAYS]
    for entry in hours:
        for day, begin, end in _entry(entry):
            if end > MIDNIGHT:
                week[(day + 1) % 7].append((0, end - MIDNIGHT))
            week[day].append((begin, min(end, MIDNIGHT)))
    return Hours(tuple(tuple(sorted(day)) for day in week), frozenset(map(_holiday, holidays)), zone_of(zone))


class Line(Protocol):
    """What a phone line says of its people."""

    hours: list[str]
    holidays: list[str]
    time_zone: str


def of(line: Line | None) -> Hours:
    """When somebody is at work for a line. An entry that came past the desk and cannot be read keeps nobody from being rung."""
    if line is None:
        return ALWAYS
    try:
        return read(line.hours, line.holidays, line.time_zone)
    except (NotUnderstood, TypeError, AttributeError):
        log.error("The hours of a line cannot be read, so somebody counts as being at work")
        return ALWAYS


def zone_of(name: str) -> ZoneInfo | None:
    """Raises NotUnderstood unless it is empty or a name of the time zone database."""
    try:
        return ZoneInfo(name) if name else None
    except (ValueError, OSError, LookupError):
        raise NotUnderstood("Write a time zone by its city, like Europe/Berlin.") from None


def _entry(written: str) -> Iterator[tuple[int, int, int]]:
    found = ENTRY.fullmatch(" ".join(written.translate(DASHES).lower().split()))
    if found is None:
        raise NotUnderstood(HOURS_HELP)
    times = [_times(part.strip()) for part in found["times"].replace(" -", "-").replace("- ", "-").split(",")]
    for day in _days(found["days"]):
        yield from ((day, begin, end) for begin, end in times)


def _days(written: str) -> Iterator[int]:
    for part in written.split(","):
        names = [name.strip() for name in part.split("-")]
        if len(names) > 2:
            raise NotUnderstood(HOURS_HELP)
        first, last = _named(names[0], DAYS), _named(names[-1], DAYS)
        yield from ((first + step) % 7 for step in range((last - first) % 7 + 1))


def _named(word: str, names: Sequence[str]) -> int:
    """The place of a name, however long it is written out."""
    fits = (place for place, name in enumerate(names) if len(word) >= SHORTEST_NAME and name.startswith(word))
    place = next(fits, None)
    if place is None:
        raise NotUnderstood(HOURS_HELP if names is DAYS else HOLIDAY_HELP)
    return place


def _times(written: str) -> tuple[int, int]:
    """(begin, end) in minutes; the end may be of the next day."""
    found = TIMES.fullmatch(written)
    if found is None:
        raise NotUnderstood(HOURS_HELP)
    begin, end = (60 * int(found[hour]) + int(found[hour + 1] or 0) for hour in (1, 3))
    if int(found[2] or 0) > 59 or int(found[4] or 0) > 59 or begin >= MIDNIGHT or end > MIDNIGHT or begin == end:
        raise NotUnderstood("Write times of a day, from 0:00 to 24:00, that do not begin when they end.")
    return begin, end if end > begin else end + MIDNIGHT


def _holiday(written: str) -> tuple[int, int, int]:
    words = " ".join(written.translate(DASHES).lower().split())
    found = next((match for pattern in HOLIDAYS if (match := pattern.fullmatch(words))), None)
    if found is None:
        raise NotUnderstood(HOLIDAY_HELP)
    month = int(found["month"]) if found["month"].isdigit() else _named(found["month"], MONTHS) + 1
    year, day = int(found["year"] or 0), int(found["day"])
    try:
        date(year or 2000, month, day)  # a leap year: 29 February comes back, if seldom
    except ValueError:
        raise NotUnderstood("There is no such day.") from None
    return year, month, day


# -- moments -----------------------------------------------------------------------------------------------------------


def is_open(hours: Hours, at: datetime) -> bool:
    """Whether somebody is at work at this moment, by the clock on the line's wall."""
    if hours.always:
        return True
    there = at.astimezone(hours.zone or UTC)
    minute = 60 * there.hour + there.minute
    return any(begin <= minute < end for begin, end in hours.on(there.date()))


def next_opening(hours: Hours, at: datetime) -> datetime | None:
    """The first moment from `at` on at which somebody is at work; None when there is none within a year."""
    return at if is_open(hours, at) else next((begin for begin, _ in spans(hours, at)), None)


def after(hours: Hours, at: datetime, within: timedelta) -> datetime:
    """The moment at which somebody will have been at work for so long since `at`.

    Where nobody ever works it is simply so much later.
    """
    if hours.always:
        return at + within
    left = within
    for begin, end in spans(hours, at):
        if end - begin >= left:
            return begin + left
        left -= end - begin
    return at + within


def said(moment: datetime, now: datetime, zone: tzinfo | None) -> str:
    """A moment as people say it on the line's clock: `3 pm today`, `9:30 am tomorrow`, `9 am on Monday`, `9 am on 28 December`."""
    there, today = moment.astimezone(zone or UTC), now.astimezone(zone or UTC).date()
    days = (there.date() - today).days
    minutes = f":{there.minute:02}" if there.minute else ""
    clock = f"{there.hour % 12 or 12}{minutes} {'am' if there.hour < 12 else 'pm'}"
    if days in (0, 1):
        return f"{clock} {('today', 'tomorrow')[days]}"
    return f"{clock} on {there:%A}" if 0 < days < 7 else f"{clock} on {there.day} {there:%B}"


def spans(hours: Hours, at: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The stretches from `at` on in which somebody is at work, day by day, in UTC."""
    zone, since = hours.zone or UTC, at.astimezone(UTC)
    first = since.astimezone(zone).date() - timedelta(days=1)
    for day in (first + timedelta(days=step) for step in range(LOOKED_AHEAD)):
        for begin, end in pairwise(_moments(hours, day, zone)):
            if end > since and is_open(hours, begin):
                yield max(begin, since), end


def _moments(hours: Hours, day: date, zone: tzinfo) -> list[datetime]:
    """All moments of a day at which the answer can change, the day's own two ends among them."""
    begin, end = _moment(day, 0, zone, 0), _moment(day, MIDNIGHT, zone, 0)
    minutes = {0, MIDNIGHT} | {minute for span in hours.on(day) for minute in span}
    found = {_moment(day, minute, zone, fold) for minute in minutes for fold in (0, 1)} | {begin, end, *_jumps(begin, end, zone)}
    return sorted(moment for moment in found if begin <= moment <= end)


def _moment(day: date, minute: int, zone: tzinfo, fold: int) -> datetime:
    wall = datetime.combine(day, time.min) + timedelta(minutes=minute)
    return wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)


def _jumps(begin: datetime, end: datetime, zone: tzinfo) -> Iterator[datetime]:
    """The moment within a day at which its clock is put forward or back."""

    def offset(at: datetime) -> timedelta | None:
        return at.astimezone(zone).utcoffset()

    if offset(begin) == offset(end):
        return
    before, later = begin, end
    while later - before > timedelta(seconds=1):
        middle = before + (later - before) / 2
        middle = middle.replace(microsecond=0)
        before, later = (middle, later) if offset(middle) == offset(before) else (before, middle)
    yield later
