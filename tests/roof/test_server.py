"""A parent and its children as real processes: who serves, who waits for whom, and that nobody is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from supportvoice import collecting, server
from supportvoice.duty import Duty
from supportvoice.laboratory.ground import children, connected_to, descriptors
from supportvoice.memory import HURRIES_AT, LEAVES_AT, LOOK_S, MIB, use_of
from supportvoice.parent import RESCUED_FIRST_S, Parent
from supportvoice.presence import ASK_S, ENDED_AFTER_S
from supportvoice.spare import LONGEST_S
from supportvoice.watchdog import STUCK_S, TICK_S
from tests.roof import toy_child
from tests.roof.raw_sockets import WHATEVER_FRAMES_IT

HOME = Path(__file__).resolve().parents[2]
LISTENING = "0A"
ROOM = 1024 * MIB
ROOMY = f"limit-{ROOM // MIB}"


@dataclass
class Serving:
    parent: asyncio.subprocess.Process
    port: int
    children: list[int]

    def live(self, path: str = "/live") -> connect:
        return connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None)

    async def get(self, path: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path.encode())
        try:
            return await asyncio.wait_for(reader.read(), 40)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serve(workers: int, *more: str, stderr: int | None = None) -> AsyncIterator[Serving]:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.roof.toy_parent", str(workers), *more),
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        cwd=HOME,
    )
    assert parent.stdout is not None
    try:
        port, *children = map(int, (await asyncio.wait_for(parent.stdout.readline(), 60)).split())
        yield Serving(parent, port, children)
    finally:
        with contextlib.suppress(ProcessLookupError):
            parent.kill()
        await parent.wait()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except FileNotFoundError:
        return False


def listening_on(port: int) -> set[str]:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{line[9]}]" for line in lines if line[1].endswith(f":{port:04X}") and line[3] == LISTENING}


def listens(pid: int, port: int) -> bool:
    return bool(listening_on(port) & set(descriptors(pid)))


def accepts(pid: int, port: int) -> bool:
    """Its loop watches for somebody who comes."""
    process, polls = Path(f"/proc/{pid}"), []
    if not (process / "fdinfo").exists():  # it is dead, and was listed a moment ago
        return False
    for poll in (process / "fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile: a process that starts opens and closes a good deal
            polls.append(poll.read_text().splitlines())
    watched = [process / "fd" / line.split()[1] for poll in polls for line in poll if line.startswith("tfd:")]
    return any(os.readlink(each) in listening_on(port) for each in watched if each.is_symlink())


async def until(condition: object, *, within: float = 30.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def grow(socket: ClientConnection, pid: int, *, to: float = LEAVES_AT) -> None:
    """The process at the other end, to this part of what it may use."""
    async with asyncio.timeout(30):
        while (use := use_of(pid, resident_limit=ROOM)) is not None and use.part < to:
            await says(socket, "more")


async def says(socket: ClientConnection, text: str) -> str | bytes:
    await socket.send(text)
    return await asyncio.wait_for(socket.recv(), 30)


async def test_two_children_serve_one_port_and_stop_without_a_trace() -> None:
    async with serve(2) as serving:
        assert len(serving.children) == 2
        assert (await serving.get("/hello")).endswith(b"/hello 0")
        serving.parent.terminate()
        assert await asyncio.wait_for(serving.parent.wait(), 30) == 0
        assert not any(alive(pid) for pid in serving.children)


@WHATEVER_FRAMES_IT
async def test_a_stop_waits_for_the_live_stream_and_its_webhooks_but_takes_no_new_one(under: str) -> None:
    async with serve(1) as serving, serving.live(f"{under}/live") as call:
        assert await says(call, "hello") == "5"
        serving.parent.terminate()
        while b" 503 " not in await serving.get("/readyz"):
            await asyncio.sleep(0.02)
        assert await says(call, "still here") == "10"
        assert (await serving.get("/tool")).endswith(b"/tool 0")
        with pytest.raises(InvalidStatus):
            await serving.live(f"{under}/live")
        await call.close()
        assert await asyncio.wait_for(serving.parent.wait(), 30) == 0


@WHATEVER_FRAMES_IT
async def test_a_second_signal_ends_the_wait(under: str) -> None:
    async with serve(1) as serving, serving.live(f"{under}/live") as call:
        assert await says(call, "hello") == "5"
        serving.parent.terminate()
        while b" 503 " not in await serving.get("/readyz"):
            await asyncio.sleep(0.02)
        serving.parent.send_signal(signal.SIGINT)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(call.recv(), 30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert await asyncio.wait_for(serving.parent.wait(), 30) == 0


@WHATEVER_FRAMES_IT
async def test_when_the_wait_is_over_streams_are_handed_on_and_not_cut(under: str) -> None:
    async with serve(1) as serving, serving.live(f"{under}/leaves") as first, serving.live(f"{under}/leaves") as second:
        serving.parent.terminate()
        while b" 503 " not in await serving.get("/readyz"):
            await asyncio.sleep(0.02)
        serving.parent.send_signal(signal.SIGINT)
        for call in (first, second):
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(call.recv(), 30)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4000
        assert await asyncio.wait_for(serving.parent.wait(), 30) == 0


@pytest.mark.parametrize("workers", [1, 2])
@WHATEVER_FRAMES_IT
async def test_a_child_that_is_told_to_leave_keeps_its_streams_while_others_serve_whoever_is_new(workers: int, under: str) -> None:
    async with serve(workers) as serving, serving.live(f"{under}/live") as call:
        assert await says(call, "hello") == "5"
        (carrier,) = connected_to(call.local_address[1], serving.children)
        os.kill(carrier, signal.SIGTERM)
        await until(lambda: len(children(serving.parent.pid)) == workers + 1)
        await until(lambda: not listens(carrier, serving.port))
        for _ in range(6):
            async with serving.live(f"{under}/live") as another:
                assert await says(another, "new") == "3"
        assert await says(call, "still here") == "10"
        await call.close()
        await until(lambda: not alive(carrier))
        serving.parent.terminate()
        assert await asyncio.wait_for(serving.parent.wait(), 30) == 0


@WHATEVER_FRAMES_IT
async def test_a_child_that_leaves_already_keeps_its_streams_when_all_are_told_to_stop(under: str) -> None:
    async with serve(1) as serving, serving.live(f"{under}/live") as call:
        assert await says(call, "hello") == "5"
        os.kill(serving.children[0], signal.SIGTERM)
        await until(lambda: not listens(serving.children[0], serving.port))
        serving.parent.terminate()
        await until(lambda: children(serving.parent.pid) == serving.children)  # the one that came for it has gone
        assert await says(call, "still here") == "10"
        await call.close()
        assert await asyncio.wait_for(serving.parent.wait(), 30) == 0


async def test_a_child_that_nears_its_memory_limit_keeps_its_streams_while_another_takes_its_place() -> None:
    async with serve(1, ROOMY) as serving, serving.live("/grows") as call:
        (grown,) = serving.children
        await grow(call, grown)
        await until(lambda: not listens(grown, serving.port))
        async with serving.live() as another:
            assert await says(another, "new") == "3"
            assert connected_to(another.local_address[1], [grown]) == []
        assert await says(call, "still here") == "10"
        await call.close()
        await until(lambda: not alive(grown))
        serving.parent.terminate()
        assert await asyncio.wait_for(serving.parent.wait(), 30) == 0


async def test_a_child_that_leaves_for_another_reason_is_not_told_again_when_it_nears_its_limit() -> None:
    async with serve(1, ROOMY) as serving, serving.live("/grows") as call:
        (leaving,) = serving.children
        os.kill(leaving, signal.SIGTERM)
        await until(lambda: not listens(leaving, serving.port))
        await grow(call, leaving)
        await asyncio.sleep(3 * LOOK_S)  # who is told within one would cut its stream
        assert await says(call, "still here") == "10"


async def test_streams_of_a_child_that_grows_on_while_it_leaves_are_handed_on_before_its_wait_is_over() -> None:
    async with serve(1, ROOMY) as serving, serving.live("/grows") as growing, serving.live("/leaves") as call:
        (grown,) = serving.children
        await grow(growing, grown)
        began = asyncio.get_running_loop().time()
        await grow(growing, grown, to=HURRIES_AT)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(call.recv(), 30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4000
        assert asyncio.get_running_loop().time() - began < toy_child.DRAIN_S / 2


async def test_a_child_that_grows_as_fast_as_the_one_before_it_is_not_replaced_at_once() -> None:
    async with serve(1, ROOMY) as serving:
        async with serving.live("/grows") as call:
            await grow(call, serving.children[0])
        await until(lambda: serving.children[0] not in children(serving.parent.pid))
        async with serving.live("/grows") as call:
            (next_one,) = children(serving.parent.pid)
            await grow(call, next_one)
            await asyncio.sleep(3 * LOOK_S)  # who may go is gone within one
            assert children(serving.parent.pid) == [next_one]
            assert listens(next_one, serving.port)


async def test_a_limit_that_a_child_begins_beyond_is_told_and_nobody_leaves_for_it() -> None:
    async with serve(1, "limit-1", stderr=asyncio.subprocess.PIPE) as serving:
        assert serving.parent.stderr is not None
        assert b"begins with as much memory as it may have" in await asyncio.wait_for(serving.parent.stderr.readline(), 30)
        await asyncio.sleep(3 * LOOK_S)
        assert children(serving.parent.pid) == serving.children
        assert (await serving.get("/hello")).endswith(b"/hello 0")


async def test_a_killed_child_is_replaced() -> None:
    async with serve(1) as serving:
        os.kill(serving.children[0], signal.SIGKILL)
        assert (await serving.get("/again")).endswith(b"/again 0")  # waits in the backlog for the new child
        assert not alive(serving.children[0])


async def test_where_others_serve_a_killed_child_is_replaced_when_its_callers_had_their_turn() -> None:
    async with serve(2) as serving:
        began = asyncio.get_running_loop().time()
        os.kill(serving.children[0], signal.SIGKILL)
        await until(lambda: set(children(serving.parent.pid)) - set(serving.children))
        assert asyncio.get_running_loop().time() - began >= RESCUED_FIRST_S
        await until(lambda: len(children(serving.parent.pid)) == 2)


async def test_a_child_whose_event_loop_is_stuck_ends_by_itself_and_is_replaced() -> None:
    async with serve(1) as serving:
        began = asyncio.get_running_loop().time()
        assert await serving.get("/stuck") == b""
        assert STUCK_S <= asyncio.get_running_loop().time() - began + TICK_S <= 2 * STUCK_S
        assert (await serving.get("/again")).endswith(b"/again 0")
        assert not alive(serving.children[0])


async def test_whoever_comes_while_a_child_is_late_waits_a_moment_and_is_taken() -> None:
    async with serve(1) as serving:
        reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
        writer.write(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        async with serving.live() as call:
            assert await says(call, "hello") == "5"
            assert b" 503 " in await serving.get("/readyz")  # a balancer sends others elsewhere for some time
        writer.close()


async def test_the_calls_of_a_child_that_stands_still_are_given_away_and_it_may_go_on() -> None:
    async with serve(2) as serving:
        os.kill(serving.children[0], signal.SIGSTOP)
        assert serving.parent.stdout is not None
        assert await asyncio.wait_for(serving.parent.stdout.readline(), 30) == b"given away\n"
        await asyncio.sleep(2 * ASK_S)  # whoever ends it does so in the moment after
        assert alive(serving.children[0])
        assert (await serving.get("/others")).endswith(b"/others 0")


@pytest.mark.parametrize(("then", "more"), [(signal.SIGCONT, []), (None, ["nobody-is-told"])], ids=["goes on", "is ended"])
async def test_that_a_child_stands_still_is_marked_for_who_cannot_ask_the_database_and_unmarked_when_it(
    then: signal.Signals | None, more: list[str]
) -> None:
    async with serve(2, "marks", *more) as serving:
        stopped = serving.children[0]
        assert serving.parent.stdout is not None
        os.kill(stopped, signal.SIGSTOP)
        said = [await asyncio.wait_for(serving.parent.stdout.readline(), 30)]
        if then is not None:
            said.append(await asyncio.wait_for(serving.parent.stdout.readline(), 30))
            os.kill(stopped, then)
        said.append(await asyncio.wait_for(serving.parent.stdout.readline(), 30))
        told = [] if more else [b"given away\n"]
        assert said == [b"stands still %d\n" % stopped, *told, b"goes on %d\n" % stopped]
        assert alive(stopped) == (then is not None)


async def test_a_child_that_stands_still_for_longer_is_ended_so_that_nobody_waits_for_its_answer() -> None:
    async with serve(2) as serving, contextlib.AsyncExitStack() as calls:
        sockets = [await calls.enter_async_context(serving.live()) for _ in range(8)]
        stopped = next(pid for pid in serving.children if connected_to(sockets[0].local_address[1], [pid]))
        os.kill(stopped, signal.SIGSTOP)
        began = asyncio.get_running_loop().time()
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(sockets[0].recv(), 30)
        assert asyncio.get_running_loop().time() - began >= ENDED_AFTER_S - ASK_S
        assert serving.parent.stdout is not None
        assert await asyncio.wait_for(serving.parent.stdout.readline(), 30) == b"given away\n"
        await until(lambda: not alive(stopped) and len(children(serving.parent.pid)) == 2)


@pytest.mark.parametrize(("workers", "more"), [(2, ["nobody-is-told"]), (1, [])], ids=["nobody can be told", "there is no other"])
async def test_a_child_that_stands_still_is_ended_and_replaced_where_nobody_can_take_its_calls(workers: int, more: list[str]) -> None:
    async with serve(workers, *more) as serving, contextlib.AsyncExitStack() as calls:
        sockets = [await calls.enter_async_context(serving.live()) for _ in range(8)]
        stopped = next(pid for pid in serving.children if connected_to(sockets[0].local_address[1], [pid]))
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(sockets[0].recv(), 30)
        await until(lambda: not alive(stopped) and len(children(serving.parent.pid)) == workers)
        assert (await serving.get("/again")).endswith(b"/again 0")


@WHATEVER_FRAMES_IT
async def test_kill_9_of_the_parent_leaves_no_child(under: str) -> None:
    async with serve(2) as serving, serving.live(f"{under}/live") as call:
        assert await says(call, "hello") == "5"
        serving.parent.kill()
        await serving.parent.wait()
        await until(lambda: not any(alive(pid) for pid in serving.children))
        with pytest.raises(ConnectionClosed):
            await call.recv()


@contextlib.contextmanager
def no_descriptor_more(pid: int) -> Iterator[None]:
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(list(descriptors(pid))), before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_a_child_that_could_open_no_file_leaves_what_is_new_to_the_others_until_it_can() -> None:
    async with serve(2) as serving:
        short, other = serving.children
        with no_descriptor_more(short):
            await until(lambda: not accepts(short, serving.port))
            assert accepts(other, serving.port)
            for _ in range(20):
                assert await serving.get("/plain") != b""
        await until(lambda: accepts(short, serving.port))
        serving.parent.terminate()
        assert await asyncio.wait_for(serving.parent.wait(), 20) == 0


async def test_where_nobody_else_can_serve_a_caller_is_refused_and_not_kept_waiting() -> None:
    async with serve(1) as serving:
        with no_descriptor_more(serving.children[0]):
            await until(lambda: not accepts(serving.children[0], serving.port))
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(serving.get("/plain"), LONGEST_S + 2) == b""
        await until(lambda: accepts(serving.children[0], serving.port))
        assert await serving.get("/plain") != b""


async def test_children_that_never_start_end_the_parent_with_a_sentence() -> None:
    code = "import asyncio, sys; from pathlib import Path; from supportvoice.parent import Parent, listen\n"
    code += "sys.exit(asyncio.run(Parent(listen('127.0.0.1', 0), 1, 'all', Path('.'), program='tests.no_such_program').run()))"
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=asyncio.subprocess.PIPE, cwd=HOME)
    _, said = await asyncio.wait_for(parent.communicate(), 100)
    assert parent.returncode == 1
    assert b"The serving processes do not start" in said


async def logged(serving: Serving, sentence: bytes, times: int) -> None:
    assert serving.parent.stderr is not None
    while times:
        line = await asyncio.wait_for(serving.parent.stderr.readline(), 30)
        assert line, "the parent is gone"
        times -= sentence in line


async def test_a_child_that_does_not_come_up_again_ends_no_call_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    monkeypatch.setenv("TOY_BROKEN", str(broken))
    async with serve(2, stderr=asyncio.subprocess.PIPE) as serving, serving.live() as call:
        assert await says(call, "hello") == "5"
        (carrier,) = connected_to(call.local_address[1], serving.children)
        broken.touch()
        os.kill(next(child for child in serving.children if child != carrier), signal.SIGKILL)
        await logged(serving, b"died and is started again", Parent.GIVE_UP_AFTER + 1)
        assert await says(call, "still here") == "10"
        broken.unlink()
        await until(lambda: sum(accepts(child, serving.port) for child in children(serving.parent.pid)) == 2)


async def test_a_child_that_comes_to_nothing_is_ended_and_another_one_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = tmp_path / "hangs"
    monkeypatch.setenv("TOY_HANGS", str(hangs))
    async with serve(2, "serves-within-8", stderr=asyncio.subprocess.PIPE) as serving:
        hangs.touch()
        os.kill(serving.children[0], signal.SIGKILL)
        await logged(serving, b"does not come up", 1)
        hangs.unlink()
        await until(lambda: sum(accepts(child, serving.port) for child in children(serving.parent.pid)) == 2)


async def test_a_child_that_cannot_be_started_for_want_of_a_descriptor_is_started_later() -> None:
    async with serve(2, stderr=asyncio.subprocess.PIPE) as serving:
        with no_descriptor_more(serving.parent.pid):
            os.kill(serving.children[0], signal.SIGKILL)
            await logged(serving, b"could not be started", 1)
            assert accepts(serving.children[1], serving.port)
        await until(lambda: sum(accepts(child, serving.port) for child in children(serving.parent.pid)) == 2)


async def test_what_the_first_call_loads_is_set_aside_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    times = 0

    def count() -> None:
        nonlocal times
        times += 1

    monkeypatch.setattr(collecting, "set_aside_what_stays", count)
    duty = Duty()
    carrying = server.CallServer(server.configured(print), duty=duty, drain_s=1.0)
    seen = []
    for duty.streams in (0, 1, 2, 0, 0, 1, 0):
        assert not await carrying.on_tick(1)
        seen.append(times)
    assert seen == [0, 0, 0, 1, 1, 1, 2]


async def test_when_the_last_call_is_over_the_process_rests_and_goes_on_serving_if_it_cannot() -> None:
    rested = []

    async def rest() -> None:
        rested.append(duty.streams)
        raise ConnectionError

    duty = Duty()
    carrying = server.CallServer(server.configured(print), duty=duty, drain_s=1.0, at_rest=rest)
    for duty.streams in (0, 2, 1, 0, 0, 1, 0):
        assert not await carrying.on_tick(1)
    assert rested == [0, 0]
