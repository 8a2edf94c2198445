"""What is kept while the database is away, on a disk that is really full: the kernel decides what it still takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from agents import lines
from calls import by_heart, spool
from calls.spool import Spool
from tests.builders import CALLER, a_line
from tests.calls.doors import NUMBER
from tests.small_disk import PAGE, filled, small_disk

pytestmark = pytest.mark.small_disk

SAYS = [{"n": n, "text": f"Grüße {n}"} for n in range(200)]
SID = "CA" + "5" * 32


@pytest.fixture(autouse=True)
def disk(_a_spool_of_its_own: Any) -> Iterator[Path]:
    at = Path(settings.SPOOL_DIR)
    with small_disk(at):
        yield at


@pytest.mark.parametrize("left", [0, PAGE], ids=["not a byte", "half of what comes"])
def test_lines_wait_in_memory_and_go_to_the_disk_in_their_order_once_it_takes_them(disk: Path, left: int) -> None:
    kept = Spool(disk)
    with filled(disk, but=left):
        assert kept.append(SAYS[:150]) == 150
        assert [file.stat().st_size for file in spool.files(disk)] == [0]
        assert kept.waits
    assert kept.append(SAYS[150:]) == 50
    (file,) = spool.files(disk)
    assert file.read_bytes().count(b"\n") == 200
    assert [line.told for line in kept.unread(at_most=1000)] == SAYS
    kept.was_read(kept.unread(at_most=1000))
    assert spool.files(disk) == []


def test_a_spool_that_has_its_place_on_a_full_disk_is_overwritten_and_gone_once_it_is_read(disk: Path) -> None:
    kept = Spool(disk)
    assert kept.append(SAYS) == 200
    with filled(disk):
        kept.was_read(kept.unread(at_most=1000))
        assert (kept.waits, spool.files(disk)) == (False, [])


def test_short_marks_of_a_call_are_kept_and_read_as_ever(disk: Path) -> None:
    now = time.time()
    with filled(disk):
        assert by_heart.first(SID, "stream-0")
        assert not by_heart.first(SID, "stream-0")
        by_heart.closed(SID, 0, "agent-ended")
        assert by_heart.leg_over(SID, status="completed", at=timezone.now())
        assert by_heart.lost(SID, "0", at=now)
        assert by_heart.wish(SID, "hand-over", at=now)
        assert by_heart.why_closed(SID, 0) == "agent-ended"
        assert by_heart.losses(SID, at=timezone.now(), counts=False) == 1
        assert (by_heart.granted(SID, now=now) or {})["verb"] == "hand-over"


@pytest.mark.django_db
def test_a_call_of_which_the_disk_does_not_take_enough_is_not_answered_by_heart_and_leaves_no_half_of_a_mark(disk: Path) -> None:
    a_line(number=NUMBER)
    lines.warm()
    call: dict[str, Any] = {"sid": SID, "account_sid": "AC" + "1" * 32, "from_number": CALLER, "to_number": NUMBER, "at": timezone.now()}
    with filled(disk):
        assert by_heart.opened(**call) is None
        assert {path.name for path in disk.rglob("*")} == {"rest", "calls"}
    assert by_heart.opened(**call) is not None
    assert by_heart.known(SID) is not None
