"""One run of the bench: every subject in every round, one after the other, so that a slow minute is everybody's."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

from supportvoice.bench import processes
from supportvoice.bench.figures import beside
from supportvoice.bench.load import Order
from supportvoice.bench.subjects import Ground, Running, Subject, asked, missing, run_rows
from supportvoice.stack import HOME, StackFailed

WARM_CALLS, WARM_S = 3, 1.0  # once a process: what it loads and allocates for its first calls
SOAK_WARM_CALLS = 500
SOAK_LOOK_CALLS = 1000  # at most, between two looks at what they left
SOAK_AT_ONCE = 30
SOAK_CALL_S = 1.0
SOAK_SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Plan:
    calls: int = 30
    seconds: float = 10.0
    rounds: int = 3


@dataclass(slots=True)
class Idle:
    """The loop beside it that has nothing to do."""

    asking: asyncio.StreamWriter
    answers: asyncio.StreamReader

    async def take(self) -> dict[str, Any]:
        self.asking.write(b"\n")
        told: dict[str, Any] = json.loads(await self.answers.readline())
        return told


@asynccontextmanager
async def idle_loop() -> AsyncIterator[Idle]:
    command, pipe = [sys.executable, "-m", "supportvoice.bench.idle"], asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=HOME)
    idle = Idle(cast(asyncio.StreamWriter, process.stdin), cast(asyncio.StreamReader, process.stdout))
    try:
        yield idle
    finally:
        idle.asking.close()
        await process.wait()


async def generate(ground: Ground, running: Running, **order: Any) -> dict[str, Any]:
    """One order to a generator of its own. Raises StackFailed when it does not come back with figures."""
    account = ground.account
    ours: dict[str, Any] = {"auth_token": account.token, "account_sid": account.sid, "vapi_secret": account.vapi_secret}
    whole = Order(url=running.url, pid=running.pid, wide=ground.wide, **ours, **order)
    command = [sys.executable, "-m", "supportvoice.bench.load", "--vapi", str(ground.vapi.fileno())]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=HOME, pass_fds=(ground.vapi.fileno(),)
    )
    try:
        told, complaints = await process.communicate(json.dumps(asdict(whole)).encode())
    except BaseException:
        process.kill()
        raise
    if process.returncode:
        raise StackFailed(f"The load generator failed against {running.name}:\n{complaints.decode(errors='replace')}")
    figures: dict[str, Any] = json.loads(told)
    return figures


async def measure(
    ground: Ground, plan: Plan, subjects: Mapping[str, Subject]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, dict[str, Any]]]:
    """All runs by subject, in the order of the rounds, and the stalls of our loop and of the idle one beside it.

    Beside a reference that cannot carry them all ours is measured once more, with as many calls as that one.
    """
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in subjects}
    stalls: dict[str, dict[str, Any]] = {}
    async with AsyncExitStack() as open_now:
        idle = await open_now.enter_async_context(idle_loop())
        started: dict[str, Running] = {}
        for name, subject in subjects.items():
            ground.say(f"starting {name}")
            running = await open_now.enter_async_context(subject(ground))
            started[name] = running
            await generate(ground, running, calls=running.rows(WARM_CALLS), seconds=WARM_S, warm_s=0.5)
        for number in range(1, plan.rounds + 1):
            for name, running, calls in _turns(plan, started):
                ground.say(f"round {number} of {plan.rounds}: {name}, {calls} calls for {plan.seconds:g} s")
                run = await generate(ground, running, calls=running.rows(calls), seconds=plan.seconds)
                runs.setdefault(name, []).append(run)
                _complain(ground, running, run)
        if "ours" in started:
            stalls = await _watched(ground, started["ours"], idle, plan)
    return runs, stalls


def _turns(plan: Plan, started: Mapping[str, Running]) -> Iterator[tuple[str, Running, int]]:
    """What is measured in a round, one after the other: under which name, who, and with how many calls."""
    for name, running in started.items():
        calls = min(plan.calls, running.most_calls)
        yield name, running, calls
        if calls < plan.calls and "ours" in started:
            yield beside(name), started["ours"], calls


def _complain(ground: Ground, running: Running, run: Mapping[str, Any]) -> None:
    if run["why_not"]:
        ground.say(f"that run does not count: {run['why_not']}{ground.complaints(running.name)}")


async def _watched(ground: Ground, running: Running, idle: Idle, plan: Plan) -> dict[str, dict[str, Any]]:
    """A run for the stalls alone, as long as all rounds of ours together: looking for them costs something too."""
    seconds = plan.rounds * plan.seconds
    ground.say(f"once more, watched: ours, {plan.calls} calls for {seconds:g} s")
    rows = running.rows(plan.calls)
    await asyncio.to_thread(asked, running, watch=True)
    await idle.take()
    run = await generate(ground, running, calls=rows, seconds=seconds)
    _complain(ground, running, run)
    seen = {"ours": await asyncio.to_thread(asked, running), "idle": await idle.take()}
    return {name: {**told, "seconds": seconds, "why_not": run["why_not"]} for name, told in seen.items()}


async def soak(ground: Ground, ours: Subject, calls: int) -> dict[str, Any]:
    """Many short calls: what is there before them, after the first 500, on the way, and after the last."""
    async with ours(ground) as running:
        await _soaked(ground, running, WARM_CALLS, "soak: a few calls before it begins")
        born = await _state(running)
        done = min(SOAK_WARM_CALLS, calls // 2)
        runs = [await _soaked(ground, running, done, f"soak: the first {done} calls")]
        states = [{"calls": done, **await _state(running)}]
        while done < calls:
            some = min(SOAK_LOOK_CALLS, max(calls // 10, SOAK_AT_ONCE), calls - done)
            done += some
            runs.append(await _soaked(ground, running, some, f"soak: {done} of {calls} calls"))
            states.append({"calls": done, **await _state(running)})
    counts = {key: sum(run[key] for run in runs) for key in ("calls", "failed", "untold")}
    frames = {way: {key: sum(run["frames"][way][key] for run in runs) for key in runs[0]["frames"][way]} for way in ("up", "down")}
    return {**counts, "frames": frames, "right": all(run["right"] for run in runs), "at_start": born, "states": states}


async def _soaked(ground: Ground, running: Running, count: int, what: str) -> dict[str, Any]:
    ground.say(what)
    rows = await asyncio.to_thread(running.rows, count)
    return await generate(ground, running, calls=rows, seconds=SOAK_CALL_S, at_once=min(SOAK_AT_ONCE, count))


async def _state(running: Running) -> dict[str, Any]:
    """With no call there: memory, and what a call may leave behind."""
    await asyncio.sleep(SOAK_SETTLE_S)
    told = await asyncio.to_thread(asked, running)
    return {
        "rss_kib": processes.resident_bytes(running.pid) // 1024,
        "tasks": told["tasks"],
        **processes.descriptors(running.pid),
        "threads": processes.threads(running.pid),
        "pool_threads": told["pool_threads"],
        **await asyncio.to_thread(run_rows, running.env, "--left"),
    }


def choose(subjects: Mapping[str, Subject], only: Sequence[str]) -> tuple[dict[str, Subject], dict[str, str]]:
    """Those to measure, and of the others why not."""
    wanted = {name: subject for name, subject in subjects.items() if not only or name in only}
    why = {name: reason for name in wanted if (reason := missing(name))}
    return {name: subject for name, subject in wanted.items() if name not in why}, why
