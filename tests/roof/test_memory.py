"""What a process may use is read where the system says it, and who leaves for it is one at a time, and not again and again."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from supportvoice.memory import (
    APART_S,
    HURRIES_AT,
    LEAVES_AT,
    LONGEST_APART_S,
    MIB,
    Memory,
    Turns,
    Use,
    group_limit,
    resident_limit,
    use_of,
    who_hurries,
)

HOME = Path(__file__).resolve().parents[2]
LONG_AGO = -2 * LONGEST_APART_S


def served(part: float, *, began: float = 0.1, since: float = LONG_AGO, leaves: bool = False) -> Memory:
    memory = Memory(leaves=leaves)
    for each, at in ((began, since), (part, 0.0)):
        memory.looked(Use(int(each * 1000), 1000), at)
    return memory


# -- who leaves ----------------------------------------------------------------------------------------------------------


def test_who_has_used_four_fifths_leaves_and_nobody_before() -> None:
    nearly, full = served(LEAVES_AT - 0.001), served(LEAVES_AT)
    assert Turns().who_leaves([nearly], 0.0) is None
    assert Turns().who_leaves([nearly, full], 0.0) is full


def test_without_a_limit_nobody_ever_leaves() -> None:
    memory = Memory()
    for at in range(5):
        memory.looked(None, at)
        assert Turns().who_leaves([memory], at) is None


def test_the_fullest_leaves_and_the_next_one_when_that_has_gone() -> None:
    turns, less, most = Turns(), served(0.85), served(0.89)
    assert turns.who_leaves([less, most], 0.0) is most
    assert turns.who_leaves([less, most], APART_S) is None
    assert turns.who_leaves([less], APART_S) is less


def test_who_leaves_hurries_when_it_comes_nearer_or_when_another_waits_for_it() -> None:
    leaves, comes_nearer = served(0.85, leaves=True), served(HURRIES_AT, leaves=True)
    assert who_hurries([leaves, served(0.5)]) == []
    assert who_hurries([leaves, comes_nearer]) == [comes_nearer]
    assert who_hurries([leaves, served(0.85)]) == [leaves]


def test_nobody_leaves_who_began_with_too_much_for_whoever_followed_would_too() -> None:
    too_big = served(0.99, began=LEAVES_AT)
    assert Turns().who_leaves([too_big], 0.0) is None
    assert who_hurries([served(0.85, leaves=True), too_big]) == []


def test_a_limit_that_is_set_later_is_heeded() -> None:
    memory = Memory()
    memory.looked(None, 0.0)
    memory.looked(Use(9, 10), 1.0)
    assert Turns().who_leaves([memory], 1.0) is memory


def test_where_those_who_follow_leak_at_once_fewer_and_fewer_leave() -> None:
    turns, left_at = Turns(), list[int]()
    for second in range(2 * int(LONGEST_APART_S)):
        leaks = served(0.9, since=second - 5.0)
        if turns.who_leaves([leaks], second) is not None:
            left_at.append(second)
    assert [later - sooner for sooner, later in pairwise(left_at)] == [60, 120, 240, 480]


def test_after_one_that_lasted_the_next_leaves_soon() -> None:
    turns = Turns()
    assert turns.who_leaves([served(0.9, since=-5.0)], 0.0) is not None
    assert turns.who_leaves([served(0.9)], 2 * APART_S) is not None
    assert turns.who_leaves([served(0.9)], 3 * APART_S - 1.0) is None
    assert turns.who_leaves([served(0.9)], 3 * APART_S) is not None


# -- what it may use -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("each", "group", "limit"),
    [(0, None, None), (500, None, 500), (0, 900, 300), (500, 900, 300), (200, 900, 200)],
)
def test_of_the_setting_and_an_equal_share_of_the_group_the_smaller_counts(each: int, group: int | None, limit: int | None) -> None:
    assert resident_limit(each=each, group=group, processes=3) == limit


class Groups:
    """A machine's control groups, as files."""

    def __init__(self, directory: Path) -> None:
        self.membership, self.mounted = directory / "cgroup", directory / "mounted"

    def limit(self, membership: str, files: Mapping[str, str]) -> int | None:
        self.membership.write_text(membership)
        for name, text in files.items():
            file = self.mounted / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        return group_limit(membership=self.membership, mounted=self.mounted)


@pytest.fixture
def groups(tmp_path: Path) -> Groups:
    return Groups(tmp_path)


FIRST = "5:cpu,cpuacct:/elsewhere\n4:memory:/a/b\n0::/\n"
SECOND = "0::/a/b\n"
UNLIMITED = "9223372036854771712"


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        (SECOND, {"a/b/memory.max": "700"}, 700),
        (SECOND, {"a/b/memory.max": "max", "a/memory.max": "600"}, 600),
        (SECOND, {"a/b/memory.max": "700", "a/memory.max": "600"}, 600),
        (SECOND, {"a/b/memory.max": "max"}, None),
        (SECOND, {"memory.max": "500"}, 500),
        ("0::/\n", {"memory.max": "500"}, 500),
        ("0::/../c\n", {"memory.max": "500"}, 500),
        (FIRST, {"memory/a/b/memory.limit_in_bytes": "700", "memory/memory.limit_in_bytes": UNLIMITED}, 700),
        (FIRST, {"memory/a/b/memory.limit_in_bytes": UNLIMITED, "memory/a/memory.limit_in_bytes": "600"}, 600),
        (FIRST, {"memory/memory.limit_in_bytes": "500"}, 500),
        (FIRST, {"memory/a/b/memory.limit_in_bytes": UNLIMITED, "memory/memory.limit_in_bytes": UNLIMITED}, None),
        ("", {}, None),
    ],
)
def test_the_least_limit_of_a_group_and_those_above_it_is_read(
    groups: Groups, membership: str, files: Mapping[str, str], limit: int | None
) -> None:
    assert groups.limit(membership, files) == limit


def test_a_machine_without_groups_has_no_limit(tmp_path: Path) -> None:
    assert group_limit(membership=tmp_path / "cgroup", mounted=tmp_path / "mounted") is None


# -- what it uses --------------------------------------------------------------------------------------------------------


@pytest.fixture
def another() -> Iterator[subprocess.Popen[str]]:
    """A process that has 64 MiB in use, and as much again reserved."""
    code = f"import mmap, sys; used, reserved = b'x' * {64 * MIB}, mmap.mmap(-1, {64 * MIB}); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_what_is_resident_is_held_against_its_limit_and_address_space_against_that_of_ulimit(another: subprocess.Popen[str]) -> None:
    assert use_of(another.pid, resident_limit=None) is None
    resident = use_of(another.pid, resident_limit=100 * MIB)
    assert resident is not None
    assert 64 * MIB <= resident.used < 100 * MIB
    resource.prlimit(another.pid, resource.RLIMIT_AS, (200 * MIB, resource.RLIM_INFINITY))
    space = use_of(another.pid, resident_limit=None)
    assert space is not None
    assert (space.used >= 128 * MIB, space.limit) == (True, 200 * MIB)


def test_the_limit_that_is_nearest_counts(another: subprocess.Popen[str]) -> None:
    resource.prlimit(another.pid, resource.RLIMIT_AS, (10_000 * MIB, resource.RLIM_INFINITY))
    near = use_of(another.pid, resident_limit=100 * MIB)
    far = use_of(another.pid, resident_limit=100_000 * MIB)
    assert near is not None
    assert far is not None
    assert (near.limit, far.limit) == (100 * MIB, 10_000 * MIB)


def test_of_a_process_that_is_gone_nothing_is_said(another: subprocess.Popen[str]) -> None:
    another.kill()
    another.wait()
    assert use_of(another.pid, resident_limit=MIB) is None
    assert use_of(os.getpid(), resident_limit=MIB) is not None


async def test_serve_holds_each_of_its_processes_to_the_setting(tmp_path: Path) -> None:
    """To a figure that none can keep to, which it says as soon as one serves."""
    env = {"MEMORY_LIMIT_MIB": "1", "DATABASE_URL": f"sqlite:///{tmp_path / 'empty.sqlite3'}", "REDIS_URL": f"unix://{tmp_path / 'nobody'}"}
    serve = await asyncio.create_subprocess_exec(
        *(sys.executable, "manage.py", "serve", "--port", "0", "--workers", "1"),
        env=os.environ | {"DEBUG": "1"} | env,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=HOME,
    )
    assert serve.stderr is not None
    try:
        async with asyncio.timeout(60):
            while b"begins with as much memory as it may have" not in (line := await serve.stderr.readline()):
                assert line
        assert line.rstrip().endswith(b"limit_mib=1")
    finally:
        serve.terminate()
        await serve.communicate()
    assert serve.returncode == 0
