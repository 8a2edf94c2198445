"""A real worker whose PostgreSQL stops in the middle of a question: whoever waits gives up, and the slots are free again."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery

from bridge.sandbox.proxy import Weather
from calls import patience
from supportvoice.stack import Stack, free_port
from tests.journeys.outage import Wire
from tests.journeys.test_demo import database as database

pytestmark = [pytest.mark.journey, pytest.mark.postgres, pytest.mark.timeout(200)]
SLOTS = 2
NOBODY = {"VAPI_BASE_URL": "http://127.0.0.1:9", "VAPI_API_KEY": "", "TWILIO_ACCOUNT_SID": "", "TWILIO_AUTH_TOKEN": ""}
NOTHING_COMES = Weather(up_dead=True, down_dead=True)


class Worker:
    """The worker of a household, and how many of its tasks are over by its log."""

    def __init__(self, stack: Stack, wire: Wire) -> None:
        self.stack, self.wire = stack, wire
        self._broker = Celery(broker=f"redis+socket://{stack.valkey_socket}")

    def send(self, task: str, *args: Any) -> None:
        self._broker.send_task(f"calls.tasks.{task}", args=args)

    def over(self, task: str) -> int:
        log = (self.stack.directory / "log" / "worker.log").read_text()
        return len(set(re.findall(rf"Task calls\.tasks\.{task}\[(\S+)\] (?:succeeded|raised)", log)))

    async def until_over(self, task: str, times: int, *, within_s: float) -> None:
        async with asyncio.timeout(within_s):
            while self.over(task) < times:
                await asyncio.sleep(0.1)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short enough for a unix socket, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="sv-") as name:
        yield Path(name)


@pytest.fixture
async def worker(directory: Path, database: str) -> AsyncIterator[Worker]:
    wire = Wire(database)
    stack = Stack(directory, {"DATABASE_URL": wire.url, "DEBUG": "1", **NOBODY}, port=free_port(), say=lambda _: None)
    try:
        await stack.prepare()
        await stack.begin("worker")
        yield Worker(stack, wire)
    finally:
        await stack.stop()
        wire.close()


async def until_all_wait(database: str) -> None:
    """Each slot's sweep has asked for a row that is held, and has no answer yet."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(30), await psycopg.AsyncConnection.connect(database, autocommit=True) as looks:
        while (await (await looks.execute(waiting)).fetchone()) != (SLOTS,):
            await asyncio.sleep(0.1)


async def test_a_postgresql_that_never_answers_holds_a_workers_slots_no_longer_than_its_patience(worker: Worker, database: str) -> None:
    await worker.until_over("come_back", 1, within_s=60)  # its sweep was the first one
    async with await psycopg.AsyncConnection.connect(database) as held:
        await held.execute("SELECT * FROM calls_lastrun FOR UPDATE")
        for _ in range(SLOTS):
            worker.send("sweep")
        await until_all_wait(database)
        with worker.wire.weather(NOTHING_COMES):
            await held.rollback()
            await worker.until_over("sweep", SLOTS, within_s=patience.IN_A_WORKER_S + 7)
    worker.send("process_message", 0)
    await worker.until_over("process_message", 1, within_s=20)
