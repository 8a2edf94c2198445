"""The spool: what was kept is read in order, whatever died, tore or was full; and nothing of it stays on the disk afterwards."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from calls import spool
from calls.spool import Spool

SAYS = [{"kind": "told", "n": n, "at": n / 7, "text": f"Grüße {n}"} for n in range(500)]


def numbers(found: list[spool.Line]) -> list[int]:
    return [line.told["n"] for line in found]


def all_of(kept: Spool) -> list[int]:
    told: list[int] = []
    while lines := kept.unread():
        told += numbers(lines)
        kept.was_read(lines)
    return told


def test_what_was_kept_is_read_in_its_order_and_then_the_file_is_gone(tmp_path: Path) -> None:
    kept = Spool(tmp_path)
    assert not kept.waits
    assert kept.append(SAYS[:300]) == 300
    assert kept.append(SAYS[300:]) == 200
    (file,) = spool.files(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert all_of(kept) == list(range(500))
    assert (kept.waits, spool.files(tmp_path)) == (False, [])
    kept.append(SAYS[:1])
    assert all_of(kept) == [0]


def test_many_threads_keep_whole_lines_while_another_reads(tmp_path: Path) -> None:
    kept, told = Spool(tmp_path), []
    writers = [threading.Thread(target=lambda part=part: [kept.append([one]) for one in SAYS[part::4]]) for part in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers) or kept.waits:
        told += all_of(kept)
    assert sorted(told) == list(range(500))
    assert all([n for n in told if n % 4 == part] == list(range(part, 500, 4)) for part in range(4))


@pytest.mark.parametrize("torn", [1, 7, 40])
def test_a_line_that_was_torn_or_changed_ends_a_file_and_those_before_it_stand(tmp_path: Path, torn: int) -> None:
    Spool(tmp_path).append(SAYS[:10])
    (file,) = spool.files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:-torn])
    assert numbers(_lines(file)) == list(range(9))
    file.write_bytes(whole.replace(b'"n":4,"at"', b'"n":5,"at"'))
    assert numbers(_lines(file)) == list(range(4))


def _lines(file: Path) -> list[spool.Line]:
    opened = os.open(file, os.O_RDONLY)
    try:
        return spool.lines_of(opened, 0, 1000)
    finally:
        os.close(opened)


def test_a_file_is_its_process_own_until_that_is_killed(tmp_path: Path) -> None:
    script = "import sys, time; from pathlib import Path; from calls.spool import Spool\n"
    script += "Spool(Path(sys.argv[1])).append([{'n': 1}, {'n': 2}]); print('kept', flush=True); time.sleep(60)"
    keeping = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert keeping.stdout is not None
    assert keeping.stdout.readline() == b"kept\n"
    (file,) = spool.files(tmp_path)
    with spool.adopted(file) as mine:
        assert mine is None
    keeping.kill()
    keeping.communicate()
    with spool.adopted(file) as mine, spool.adopted(file) as another:
        assert mine is not None
        assert another is None
        assert numbers(spool.lines_of(mine, 0, 10)) == [1, 2]
        spool.end(file, os.dup(mine))
    assert spool.files(tmp_path) == []


def test_a_full_spool_drops_what_is_new_and_counts_it(tmp_path: Path) -> None:
    kept = Spool(tmp_path, longest=5_000)
    room = kept.append(SAYS)
    assert 0 < room < 500
    assert kept.counts == {"kept": room, "dropped": 500 - room}
    assert kept.append(SAYS) == 0
    assert all_of(kept) == list(range(room))


def test_while_the_disk_is_full_lines_wait_in_memory_and_go_to_it_in_their_order(tmp_path: Path) -> None:
    full = True

    def write(file: int, raw: bytes) -> int:
        if full:
            os.write(file, raw[: len(raw) // 2])
            raise OSError(28, "No space left on device")
        return os.write(file, raw)

    kept = Spool(tmp_path, memory=20_000, write=write)
    assert kept.append(SAYS[:100]) == 100
    later = kept.append(SAYS[100:])
    assert 0 < later < 400, "memory is bounded too"
    assert kept.counts["dropped"] == 400 - later
    (file,) = spool.files(tmp_path)
    assert file.stat().st_size == 0, "half a line was left in the file"
    full = False
    assert kept.append(SAYS[:1]) == 1
    assert numbers(_lines(file)) == [*range(100 + later), 0]
    assert all_of(kept) == [*range(100 + later), 0]


def test_a_disk_that_takes_no_more_costs_no_line_and_no_exception(tmp_path: Path) -> None:
    """A real limit of the kernel, in a process of its own."""
    script = "import sys; from pathlib import Path; from calls.spool import Spool\n"
    script += "kept = Spool(Path(sys.argv[1])); [kept.append([{'n': n}]) for n in range(400)]\n"
    script += "told = []\nwhile lines := kept.unread():\n    told += [line.told['n'] for line in lines]; kept.was_read(lines)\n"
    script += "print(told == list(range(400)), kept.waits)"
    limit = (8_192, resource.RLIM_INFINITY)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "True False", done.stderr
    assert done.stderr.count("The spool cannot be written") == 1
