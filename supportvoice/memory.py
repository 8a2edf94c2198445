"""How much memory a serving process may use, and who leaves before the system refuses it more, or ends it: at four fifths of its limit.

What is resident is limited by the setting and by a process's share of what its control group may use: that is a container's limit.
Address space is limited by RLIMIT_AS, which `ulimit -v` sets. The limit a process is nearest to counts. All in bytes.

One leaves at a time, the fullest, and the next one when that has gone. Who leaves hurries when it comes near the limit all the same,
or when another has to wait for it. Where leaving does not help, because whoever follows leaks as fast, it is done less and less
often; and never by a process that began with too much, for whoever followed would have that too.

Pure but for `use_of` and `group_limit`: `now` is monotonic seconds.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 1.0
LEAVES_AT, HURRIES_AT = 0.8, 0.9
APART_S, LONGEST_APART_S = 30.0, 600.0

MIB = 1024 * 1024
PAGE = resource.getpagesize()
NO_LIMIT = 2**60  # version 1 writes one no machine has where there is none


@dataclass(frozen=True, slots=True)
class Use:
    used: int
    limit: int

    @property
    def part(self) -> float:
        return self.used / self.limit


@dataclass(slots=True, eq=False)
class Memory:
    """Of one process, look by look since it serves."""

    use: Use | None = None  # None without a limit
    since: float | None = None  # the first look
    began_full: bool = False
    leaves: bool = False  # because of it

    def looked(self, use: Use | None, now: float) -> None:
        self.use = use
        if self.since is None:
            self.since, self.began_full = now, self.part >= LEAVES_AT

    def served_s(self, now: float) -> float:
        return now - self.since if self.since is not None else 0.0

    @property
    def part(self) -> float:
        return self.use.part if self.use is not None else 0.0

    @property
    def is_full(self) -> bool:
        return self.part >= LEAVES_AT and not self.began_full


class Turns:
    """To be asked again and again, while every place is served: nobody leaves one empty."""

    def __init__(self) -> None:
        self._next_at, self._apart_s = float("-inf"), APART_S

    def who_leaves(self, everybody: Iterable[Memory], now: float) -> Memory | None:
        """Whoever it is has `leaves` from now on."""
        everybody = list(everybody)
        full = [each for each in everybody if each.is_full]
        if not full or now < self._next_at or any(each.leaves for each in everybody):
            return None
        fullest = max(full, key=lambda each: each.part)
        has_lasted = fullest.served_s(now) >= LONGEST_APART_S
        self._apart_s = APART_S if has_lasted else min(2 * self._apart_s, LONGEST_APART_S)
        self._next_at = now + self._apart_s
        fullest.leaves = True
        return fullest


def who_hurries(everybody: Iterable[Memory]) -> list[Memory]:
    """Of those who leave because of it."""
    everybody = list(everybody)
    another_waits = any(each.is_full and not each.leaves for each in everybody)
    return [each for each in everybody if each.leaves and (another_waits or each.part >= HURRIES_AT)]


def resident_limit(*, each: int, group: int | None, processes: int) -> int | None:
    """Of one of so many serving processes: `each` by the setting, 0 for none, or its share of the `group`'s limit."""
    return min(filter(None, (each, group // processes if group else 0)), default=None)


def use_of(pid: int, *, resident_limit: int | None) -> Use | None:
    """None when it has no limit, is gone, or cannot be looked at here: only Linux shows it."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()
        space_limit, _ = resource.prlimit(pid, resource.RLIMIT_AS)
    except OSError:
        return None
    uses = []
    if resident_limit is not None:
        uses.append(Use(int(pages[1]) * PAGE, resident_limit))
    if space_limit != resource.RLIM_INFINITY:
        uses.append(Use(int(pages[0]) * PAGE, space_limit))
    return max(uses, key=lambda use: use.part, default=None)


def group_limit(*, membership: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The least that this process's control group, or one above it, may use. None without a limit, or without groups."""
    return min((limit for file in _limit_files(membership, mounted) for limit in _limits(file)), default=None)


def _limit_files(membership: Path, mounted: Path) -> Iterator[Path]:
    """Of version 2, whose line names no controllers, and of version 1."""
    with suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if not controllers:
                yield from _upwards(mounted, place, "memory.max")
            elif "memory" in controllers.split(","):
                yield from _upwards(mounted / "memory", place, "memory.limit_in_bytes")


def _upwards(root: Path, place: str, name: str) -> Iterator[Path]:
    """In a container the place is often the host's name of it, which is not there: then the root is the container's own."""
    here = root / place.strip("/")
    yield here / name
    while here != root:
        here = here.parent
        yield here / name


def _limits(file: Path) -> Iterator[int]:
    with suppress(OSError, ValueError):  # it is not there, or says `max`
        limit = int(file.read_text())
        if 0 < limit < NO_LIMIT:
            yield limit
