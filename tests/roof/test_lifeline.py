"""A machine knows which of its processes are gone, and says nothing of those of others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from supportvoice.lifeline import is_gone, place

SAYS_WHERE = "from supportvoice.lifeline import place; import sys; print(place(), flush=True); sys.stdin.read()"


@pytest.fixture
def another() -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", SAYS_WHERE], stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        process.kill()


def place_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_who_is_here_or_stands_still_is_not_gone(another: subprocess.Popen[str]) -> None:
    theirs = place_of(another)
    assert not is_gone(place())
    assert place(another.pid) == theirs
    assert not is_gone(theirs)
    another.send_signal(signal.SIGSTOP)
    assert not is_gone(theirs)


def test_who_was_killed_is_gone_buried_or_not(another: subprocess.Popen[str]) -> None:
    theirs = place_of(another)
    another.kill()
    os.waitid(os.P_PID, another.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(theirs)
    another.wait()
    assert is_gone(theirs)


def test_a_later_process_of_the_same_id_is_another_one() -> None:
    assert is_gone(f"{place().rpartition(' ')[0]} 1")


@pytest.mark.parametrize("elsewhere", ["", "words", "another-boot pid:[1] 1 1"])
def test_of_other_places_nobody_knows(elsewhere: str) -> None:
    assert not is_gone(elsewhere)
