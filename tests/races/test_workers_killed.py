"""R8: however often the task that makes an agent is run, at once, and whoever of its workers is killed: one agent, and no second one.

Ten processes run one task, some of them die by a real signal at any of their statements or while they wait for Vapi, and the task is
run ten times again. A claim whose holder died, or seems to have, is taken by the call's stream. Vapi counts what it carries. A failure
names its seed.
"""

from __future__ import annotations

import json
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from random import Random
from threading import Lock
from typing import IO, Any

import pytest
from django.conf import settings as our_settings

from tests.bridge.http_server import Handler, Server, reply
from tests.races.begun import begun

AT_ONCE = 10
DOOMED_AT_MOST = 4
STATEMENTS = 16  # of whoever has the claim; what dies behind them has done its work
ANSWERS_S = 0.03
MANY = 100  # rounds: among so many each moment to die in is met


class Account:
    """Vapi, as far as it is asked: makes calls, lists them and ends them."""

    def __init__(self) -> None:
        self.calls: dict[str, dict[str, Any]] = {}
        self.lock = Lock()

    def living(self, name: str) -> list[str]:
        return [call["id"] for call in self.calls.values() if call["name"] == name and call["status"] != "ended"]

    def made(self, name: str) -> int:
        return sum(call["name"] == name for call in self.calls.values())

    def __call__(self, handler: Handler) -> None:
        asked = handler.server.asked[-1]
        path, method = handler.path, handler.command
        if method == "GET":
            with self.lock:
                reply(200, list(self.calls.values()))(handler)
        elif path.startswith("/control/"):
            with self.lock:
                self.calls[path.rpartition("/")[2]]["status"] = "ended"
            reply(200)(handler)
        else:
            self._create(handler, str(asked.json["name"]))

    def _create(self, handler: Handler, name: str) -> None:
        """Made before it is answered, so that whoever asked may be gone by then."""
        made, host = str(uuid.uuid4()), f"127.0.0.1:{handler.server.port}"
        with self.lock:
            self.calls[made] = {
                "id": made,
                "name": name,
                "status": "queued",
                "createdAt": datetime.now(tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "transport": {"websocketCallUrl": f"ws://{host}/{made}/transport"},
                "monitor": {"controlUrl": f"http://{host}/control/{made}"},
            }
        time.sleep(ANSWERS_S)
        reply(201, self.calls[made])(handler)


class Workers:
    """One process that forks as many as it is told of."""

    def __init__(self, to: IO[str], words: IO[str]) -> None:
        self._to, self._words = to, words

    def all(self, orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self._to.write(json.dumps(orders) + "\n")
        self._to.flush()
        said: list[dict[str, Any]] = json.loads(self._words.readline())
        assert {each["status"] for each in said} <= {0, -signal.SIGKILL}, "somebody died of something else"
        return said

    def one(self, job: str, **arguments: Any) -> Any:
        (said,) = self.all([{"job": job, "arguments": arguments}])
        return said["given"]


@contextmanager
def workers_on(database_url: str) -> Iterator[Workers]:
    with begun("tests.races.workers", database_url=database_url, MAX_CALLS="10000") as (to, words):
        yield Workers(to, words)


def the_task(pk: int, url: str, chance: Random, doomed: int) -> list[dict[str, Any]]:
    """Ten times, at one moment; so many of them die."""
    task: dict[str, Any] = {"job": "start", "arguments": {"pk": pk, "url": url, "by": "worker"}}
    orders = [dict(task) for _ in range(AT_ONCE)]
    for order in orders[:doomed]:
        if chance.random() < 0.3:
            order["arguments"] = {**task["arguments"], "dies_within_s": chance.random() * 2 * ANSWERS_S}
        else:
            order |= {"dies_at": chance.randint(1, STATEMENTS), "before": chance.random() < 0.5}
    chance.shuffle(orders)
    return orders


def one_agent(workers: Workers, rounds: int) -> None:
    """Whatever the seed of a round does to its workers, one agent lives at Vapi at the end, and it is the one our row knows."""
    seen = Counter[str]()
    account = Account()
    with Server(account) as server:
        for seed, pk in enumerate(workers.one("make", how_many=rounds)):
            chance, url = Random(seed), server.url
            name = workers.one("look", pk=pk)["name"]
            is_hasty = chance.random() < 0.3  # the stream takes the claim of a worker who lives
            orders = the_task(pk, url, chance, 0 if is_hasty else chance.choice((AT_ONCE, DOOMED_AT_MOST)))
            stream = {"job": "start", "arguments": {"pk": pk, "url": url, "by": "consumer"}, "after_s": ANSWERS_S * chance.random()}
            killed = sum(each["status"] != 0 for each in workers.all([*orders, stream] if is_hasty else orders))
            again = workers.all(the_task(pk, url, chance, 0))
            if not is_hasty:
                assert account.made(name) <= 1, f"a second agent was asked for, seed {seed}"
            if workers.one("look", pk=pk)["state"] == "claimed":
                workers.all([stream])
                seen["taken from a dead worker"] += 1
            seen["made by the second round"] += sum(each["given"] for each in again)
            seen["taken from a living worker"] += is_hasty
            seen["killed"] += killed
            if is_hasty:
                assert account.living(name) == [workers.one("look", pk=pk)["vapi_call_id"]], f"who lost left its own call, seed {seed}"
            seen["nobody's, found and ended"] += workers.one("clear_up", url=url)
            stands = workers.one("look", pk=pk)
            assert (stands["state"], account.living(name)) == ("live", [stands["vapi_call_id"]]), f"seed {seed}"
    print(dict(seen))  # noqa: T201
    by_seed, by_the_moment = ("killed", "taken from a living worker"), ("taken from a dead worker", "nobody's, found and ended")
    kinds = (*by_seed, *by_the_moment) if rounds >= MANY else by_seed
    assert all(seen[kind] for kind in kinds), f"it did not come to all that it is to bear: {dict(seen)}"


@pytest.mark.parametrize("rounds", [8, pytest.param(MANY, marks=[pytest.mark.load, pytest.mark.timeout(900)])])
def test_r8_a_task_that_runs_twenty_times_and_is_killed_makes_one_agent(transactional_db: None, rounds: int) -> None:
    with workers_on(f"sqlite:///{our_settings.DATABASES['default']['NAME']}") as workers:
        one_agent(workers, rounds)


@pytest.mark.postgres
@pytest.mark.parametrize("rounds", [8, pytest.param(MANY, marks=pytest.mark.load)])
@pytest.mark.timeout(900)
def test_r8_a_task_that_runs_twenty_times_and_is_killed_makes_one_agent_on_postgresql(migrated: str, rounds: int) -> None:
    with workers_on(migrated) as workers:
        one_agent(workers, rounds)
