"""When people are at work: what is written as people say it, on a wall's clock that is put forward and back."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import hours
from agents.hours import ALWAYS, DAYS, Hours, NotUnderstood, after, is_open, next_opening, read

ZONES = ["", "Europe/Berlin", "America/New_York", "Asia/Beirut", "Australia/Lord_Howe", "America/Santiago", "Pacific/Apia"]
JUMPS = [datetime(2026, month, day, tzinfo=UTC) for month, day in ((3, 8), (3, 29), (4, 5), (9, 6), (10, 4), (10, 25), (11, 1))]

minutes = st.integers(0, 1440)
spans = st.tuples(minutes, minutes).filter(lambda span: span[0] < span[1])
weeks = st.lists(st.lists(spans, max_size=2).map(tuple), min_size=7, max_size=7).map(tuple)
moments = st.tuples(st.sampled_from(JUMPS), st.integers(-3 * 1440, 3 * 1440)).map(lambda at: at[0] + timedelta(minutes=at[1]))
some_hours = st.builds(
    Hours,
    week=weeks,
    holidays=st.frozensets(st.sampled_from([(0, 3, 29), (0, 10, 25), (2026, 11, 1), (2026, 4, 5)])),
    zone=st.sampled_from(ZONES).map(hours.zone_of),
)


def at(text: str, zone: str = "Europe/Berlin") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def office(*holidays: str) -> Hours:
    return read(["Mon-Fri 9:00-17:00", "Sat 10-14"], holidays, "Europe/Berlin")


@pytest.mark.parametrize(
    ("written", "days", "span"),
    [
        ("Mon-Fri 9:00-17:00", [0, 1, 2, 3, 4], (540, 1020)),
        ("monday \u2013 friday 9\u201317", [0, 1, 2, 3, 4], (540, 1020)),
        ("Sat 10:30 - 14:00", [5], (630, 840)),
        ("Sun, Wed 0:00-24:00", [2, 6], (0, 1440)),
        ("Fri-Mon 8-12", [0, 4, 5, 6], (480, 720)),
    ],
)
def test_hours_are_read_as_people_write_them(written: str, days: list[int], span: tuple[int, int]) -> None:
    week = read([written], [], "").week
    assert [day for day in range(7) if week[day]] == days
    assert {each for day in week for each in day} == {span}


def test_an_entry_past_midnight_goes_on_into_the_next_day_and_one_entry_may_have_several_times() -> None:
    assert read(["Sun 22:00-2:00"], [], "").week[6] == ((1320, 1440),)
    assert read(["Sun 22:00-2:00"], [], "").week[0] == ((0, 120),)
    assert read(["Tue 9-12, 13-17"], [], "").week[1] == ((540, 720), (780, 1020))


@pytest.mark.parametrize(
    "wrong", ["", "Mon", "9-17", "Mo 9-17", "Mon 25-26", "Mon 9-9", "Mon 9:60-10", "Mon-Tue-Wed 9-17", "Mon 9", "Mon 9-17;", "Frost 9-17"]
)
def test_hours_that_cannot_be_read_are_said_so(wrong: str) -> None:
    with pytest.raises(NotUnderstood):
        read([wrong], [], "")


@pytest.mark.parametrize("written", ["2026-12-24", "12-24", "24 December", "24. dec 2026", "2026-12-24 Christmas Eve"])
def test_nobody_works_on_a_holiday_however_it_is_written(written: str) -> None:
    assert not is_open(office(written), at("2026-12-24 12:00"))
    assert is_open(office(written), at("2026-12-23 12:00"))
    assert is_open(office(written), at("2027-12-24 12:00")) == ("2026" in written)


@pytest.mark.parametrize("wrong", ["", "tomorrow", "31 June", "2026-13-01", "24 Frost", "2026-02-29"])
def test_a_holiday_that_is_no_day_is_said_so(wrong: str) -> None:
    with pytest.raises(NotUnderstood):
        read([], [wrong], "")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "berlin"])
def test_a_zone_nobody_knows_is_said_so(zone: str) -> None:
    with pytest.raises(NotUnderstood):
        read([], [], zone)


def test_the_clock_is_that_of_the_lines_own_zone() -> None:
    assert is_open(office(), datetime(2026, 7, 1, 7, 0, tzinfo=UTC))  # nine in Berlin, in summer
    assert not is_open(office(), datetime(2026, 12, 1, 7, 30, tzinfo=UTC))  # half past eight, in winter


def test_an_office_closes_at_the_minute_and_opens_on_its_next_day() -> None:
    assert is_open(office(), at("2026-11-27 16:59:59"))
    assert not is_open(office(), at("2026-11-27 17:00"))
    assert next_opening(office(), at("2026-11-27 17:00")) == at("2026-11-28 10:00")
    assert next_opening(office("2026-11-30"), at("2026-11-28 14:00")) == at("2026-12-01 09:00")


def test_only_hours_of_work_count_towards_a_promise() -> None:
    four = timedelta(hours=4)
    assert after(office(), at("2026-11-27 10:00"), four) == at("2026-11-27 14:00")
    assert after(office(), at("2026-11-27 16:00"), four) == at("2026-11-28 13:00")
    assert after(office(), at("2026-11-28 20:00"), four) == at("2026-11-30 13:00")


def test_the_clock_put_forward_and_back_neither_loses_nor_adds_an_hour_of_work() -> None:
    night = read(["Sun 0-6"], [], "Europe/Berlin")
    assert after(night, at("2026-03-29 00:00"), timedelta(hours=5)) == at("2026-03-29 06:00")
    assert after(night, at("2026-10-25 00:00"), timedelta(hours=7)) == at("2026-10-25 06:00")
    assert next_opening(read(["Sun 2:30-4"], [], "Europe/Berlin"), at("2026-03-29 01:00")) == at("2026-03-29 03:00")


def test_without_hours_somebody_is_always_at_work_but_for_holidays() -> None:
    now = at("2026-12-25 12:00")
    assert is_open(ALWAYS, now)
    assert after(ALWAYS, now, timedelta(hours=4)) == now + timedelta(hours=4)
    closed = read([], ["25 December"], "Europe/Berlin")
    assert not is_open(closed, now)
    assert next_opening(closed, now) == at("2026-12-26 00:00")


def test_where_nobody_ever_works_there_is_no_opening_and_a_promise_is_what_the_line_says() -> None:
    never = read(["Mon 9-17"], [f"{day.day} {day:%B}" for day in (date(2028, 1, 1) + timedelta(days=n) for n in range(366))], "")
    now = at("2026-11-29 12:00")
    assert next_opening(never, now) is None
    assert after(never, now, timedelta(hours=4)) == now + timedelta(hours=4)


@given(some_hours, moments)
def test_the_next_opening_is_the_first_minute_at_which_it_is_open(given_hours: Hours, moment: datetime) -> None:
    found = next_opening(given_hours, moment)
    looked = (moment + timedelta(minutes=n) for n in range(3 * 1440))
    assert next((minute for minute in looked if is_open(given_hours, minute)), None) == (
        found if found is not None and found < moment + timedelta(days=3) else None
    )


@given(some_hours, moments, st.integers(1, 600))
def test_a_promise_is_as_many_minutes_of_work_away_as_it_says(given_hours: Hours, moment: datetime, within: int) -> None:
    due = after(given_hours, moment, timedelta(minutes=within))
    if not given_hours.always and next_opening(given_hours, moment) and due - moment < timedelta(days=3):
        between = [moment + timedelta(minutes=n) for n in range((due - moment) // timedelta(minutes=1))]
        assert sum(is_open(given_hours, minute) for minute in between) == within
        assert is_open(given_hours, due - timedelta(seconds=1))


def test_names_of_days_are_whole_words_or_begin_like_them() -> None:
    assert [name for name in DAYS if read([f"{name} 9-10"], [], "").week == read([f"{name[:3]} 9-10"], [], "").week] == list(DAYS)
