"""A running house for journeys: real processes, real sockets, both vendors as strangers in a loop of their own.

The test's thread asks and waits; the sandbox lives in a background thread's event loop, the house in its own processes. What
the database holds is read from outside, with plain SQL, as an auditor would.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import environ
from django.db.utils import ConnectionHandler
from pytest_django import DjangoDbBlocker

from bridge.sandbox.balancer import Balancer
from bridge.sandbox.script import Caller, Scenario
from bridge.sandbox.turns import Faults
from bridge.sandbox.twilio import STALLED_MS, TwilioCall
from bridge.sandbox.twilio_rest import TwilioRestSandbox
from bridge.sandbox.vapi import SandboxCall, VapiSandbox
from supportvoice.demo import COLLEAGUE, LINE, Secrets, crm_running, household
from supportvoice.laboratory.ground import doubled
from supportvoice.stack import Server, Stack

T = TypeVar("T")
LONGEST_S = 90.0
SETTLED_S = 15.0
MIGRATED: list[bytes] = []  # a database as migration leaves it, once a house of this process has made one: it takes seconds
OF_CALL = "JOIN calls_callsession c ON c.id = r.call_id WHERE c.call_sid = %s"


@dataclass(frozen=True, slots=True)
class Leave:
    """The caller hangs up `then_s` after this moment; `manner`: stop, no-stop, vanish or half-open."""

    moment: str
    then_s: float = 0.0
    manner: str = "stop"


class House:
    """One household and its two vendors. Every method blocks the test until it is done."""

    def __init__(
        self,
        directory: Path,
        blocker: DjangoDbBlocker,
        *,
        database_url: str = "",
        server: Server = "serve",
        env: Mapping[str, str] | None = None,
        with_backup: bool = False,
        is_doubled: bool = False,
    ) -> None:
        self.directory = directory
        self.secrets = Secrets()
        self.stack: Stack
        self.vapi: VapiSandbox
        self.backup: VapiSandbox | None = None  # another Vapi, with a key of its own
        self.twilio: TwilioRestSandbox
        self.front: Balancer | None = None  # before two `serve`
        self.phones: list[TwilioCall] = []  # every call placed, for whoever looks at all of them
        self._placed: list[Future[TwilioCall]] = []
        self._database_url = database_url or f"sqlite:///{directory / 'db.sqlite3'}"
        self._server = server
        self._env = dict(env or {})
        self._with_backup = with_backup
        self._is_doubled = is_doubled
        self._blocker = blocker
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vendors", daemon=True)
        self._open = AsyncExitStack()

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()
        self.wait(self._start(), within=180)

    def stop(self) -> None:
        for calling in self._placed:  # nobody asked for their end
            calling.cancel()
        self.wait(self._open.aclose(), within=60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def wait(self, work: Coroutine[Any, Any, T], *, within: float = LONGEST_S) -> T:
        """Run on the vendors' loop. Raises TimeoutError after `within` seconds."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(within)

    async def _start(self) -> None:
        tool_host = await self._open.enter_async_context(crm_running())
        self.vapi = await self._open.enter_async_context(VapiSandbox(api_key=self.secrets.vapi_key, concurrency_limit=50))
        if self._with_backup:
            key = f"backup-{self.secrets.vapi_key}"
            self.backup = await self._open.enter_async_context(VapiSandbox(api_key=key, concurrency_limit=50))
            self._env |= {"VAPI_BACKUP_API_KEY": key, "VAPI_BACKUP_BASE_URL": self.backup.base_url}
        self.twilio = await self._open.enter_async_context(TwilioRestSandbox(self.secrets.account_sid, self.secrets.auth_token))
        urls = {"vapi_url": self.vapi.base_url, "twilio_url": self.twilio.base_url, "tool_host": tool_host}
        stack = household(directory=self.directory, port=0, shared=self.secrets, say=lambda _: None, **urls)
        stack.env = {**stack.env, "DATABASE_URL": self._database_url, "MAX_CALLS": "500", **self._env}
        stack.server = self._server
        if self._is_doubled:
            self.front = await self._open.enter_async_context(doubled(stack))
        self._open.push_async_callback(stack.stop)
        self.stack = stack
        await self._prepare(stack)
        tool_url = f"http://{tool_host}/crm/get_user_account"
        await stack.manage("sandbox", "seed", "--number", LINE, "--target", COLLEAGUE, "--tool-url", tool_url)
        await stack.run()

    async def _prepare(self, stack: Stack) -> None:
        file = self.directory / "db.sqlite3"
        is_ours = self._database_url == f"sqlite:///{file}"
        if is_ours and MIGRATED:
            file.write_bytes(MIGRATED[0])
        await stack.prepare()
        if is_ours and not MIGRATED:
            MIGRATED.append(file.read_bytes())

    # -- calls -----------------------------------------------------------------------------------------------------

    def place(
        self, scenario: Scenario, *, faults: Faults | None = None, leave: Leave | None = None, after_s: float = 0.0, **more: Any
    ) -> Future[TwilioCall]:
        """Place a call `after_s` from now and return at once; its result is the phone, when the call is over and the house has settled.

        `leave` makes the caller hang up after a moment (see `TwilioCall.wait_for`). `more` goes to the phone; `says` is sound it
        utters from the first moment on, `caller` somebody else than the scenario's, `backup_faults` are those of the backup Vapi.
        """
        calling = asyncio.run_coroutine_threadsafe(self._carry(scenario, faults or Faults(), leave, after_s, more), self._loop)
        self._placed.append(calling)
        return calling

    def call(self, scenario: Scenario, **how: Any) -> TwilioCall:
        """As `place`, and stay on the line."""
        return self.on_time(self.place(scenario, **how), again=lambda: self.place(scenario, **how)).result()

    def dial(self, scenario: Scenario, **how: Any) -> tuple[TwilioCall, Future[TwilioCall]]:
        """As `place`, and wait for the phone."""
        known = len(self.phones)
        calling = self.place(scenario, **how)
        self.eventually(lambda: len(self.phones) > known)
        return self.phones[known], calling

    def talk(self, scenario: Scenario, **how: Any) -> tuple[TwilioCall, Future[TwilioCall]]:
        """As `dial`, and wait until the caller speaks: a call that is on."""
        phone, calling = self.dial(scenario, **how)
        self.wait(phone.wait_for("caller-says", within=LONGEST_S))
        return phone, calling

    def on_time(
        self, calling: Future[TwilioCall], *, again: Callable[[], Future[TwilioCall]], within: float = SETTLED_S
    ) -> Future[TwilioCall]:
        """The call, over and settled, of which the machine kept time; one that it did not keep time of is placed again, twice at most."""
        for tries_left in (2, 1, 0):
            phone = calling.result(LONGEST_S)
            self.settle(phone.call_sid, within=within)
            if phone.late_ms <= STALLED_MS or not tries_left:
                break
            print(f"The machine stood still for {phone.late_ms} ms: the call is placed again")  # noqa: T201
            calling = again()
        return calling

    async def _carry(self, scenario: Scenario, faults: Faults, leave: Leave | None, after_s: float, more: dict[str, Any]) -> TwilioCall:
        await asyncio.sleep(after_s)
        says, backup_faults = more.pop("says", b""), more.pop("backup_faults", None) or Faults()
        caller = more.pop("caller", None) or Caller(scenario.caller)
        phone = TwilioCall(
            webhook_url=f"{self.stack.url}/webhook/twilio",
            status_url=f"{self.stack.url}/webhook/twilio/status",
            auth_token=self.secrets.auth_token,
            account_sid=self.secrets.account_sid,
            to_number=more.pop("to_number", LINE),
            caller=caller,
            **more,
        )
        phone.phone.utter(says)
        self.phones.append(self.twilio.take(phone))
        self.vapi.of_call[phone.call_sid] = (scenario, faults)
        if self.backup is not None:
            self.backup.of_call[phone.call_sid] = (scenario, backup_faults)
        running = asyncio.create_task(phone.run())
        if leave is not None:
            await phone.wait_for(leave.moment, within=LONGEST_S)
            await asyncio.sleep(leave.then_s)
            phone.hang_up(leave.manner)
        await running
        return phone

    def log_in(self, name: str) -> str:
        """Make a log-in for the console; returns its password."""
        password = self.secrets.password
        self.stack.env = {**self.stack.env, "DJANGO_SUPERUSER_PASSWORD": password}
        self.wait(self.stack.manage("createsuperuser", "--noinput", "--username", name, "--email", f"{name}@example.com"))
        return password

    def settle(self, call_sid: str, *, within: float = SETTLED_S) -> None:
        """Until the call is over and no Vapi session of it is open. Raises AssertionError when that does not happen."""
        query = f"SELECT count(*) FROM calls_vapisession r {OF_CALL} AND r.ended_at IS NULL"
        self.eventually(lambda: self.one("SELECT ended_at FROM calls_callsession WHERE call_sid = %s", call_sid) is not None, within=within)
        self.eventually(lambda: self.one(query, call_sid) == 0, within=within)
        self.eventually(lambda: not [call for call in self.at_vapi(call_sid) if call.open], within=within)

    # -- evidence --------------------------------------------------------------------------------------------------

    def at_vapi(self, call_sid: str) -> list[SandboxCall]:
        """At the main account first, then at the backup."""
        return [call for vapi in (self.vapi, self.backup) if vapi is not None for call in self.made_at(vapi, call_sid)]

    @staticmethod
    def made_at(vapi: VapiSandbox, call_sid: str) -> list[SandboxCall]:
        return [call for call in list(vapi.calls.values()) if str(call.request.get("name", "")).startswith(call_sid)]

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._blocker.unblock():
            handler = ConnectionHandler({"default": environ.Env.db_url_config(self._database_url)})
            try:
                with handler["default"].cursor() as cursor:
                    cursor.execute(sql, values)
                    return list(cursor.fetchall())
            finally:
                handler.close_all()

    def change(self, sql: str) -> None:
        with self._blocker.unblock():
            handler = ConnectionHandler({"default": environ.Env.db_url_config(self._database_url)})
            try:
                with handler["default"].cursor() as cursor:
                    cursor.execute(sql)
            finally:
                handler.close_all()

    def one(self, sql: str, *values: Any) -> Any:
        found = self.rows(sql, *values)
        return found[0][0] if found else None

    def row(self, call_sid: str) -> dict[str, Any]:
        """The call as it is stored."""
        names = ("id", "status", "end_reason", "outcome", "rung", "epoch")
        found = self.rows(f"SELECT {', '.join(names)} FROM calls_callsession WHERE call_sid = %s", call_sid)
        assert len(found) == 1, f"{len(found)} rows for one call"
        return dict(zip(names, found[0], strict=True))

    def events(self, call_sid: str) -> list[tuple[str, dict[str, Any]]]:
        found = self.rows(f"SELECT r.kind, r.detail FROM calls_callevent r {OF_CALL} ORDER BY r.seq", call_sid)
        return [(kind, json.loads(detail) if isinstance(detail, str) else detail) for kind, detail in found]

    def kinds(self, call_sid: str) -> list[str]:
        return [kind for kind, _ in self.events(call_sid)]

    def lines(self, call_sid: str) -> list[tuple[str, str, str]]:
        """(role, said, how much was heard), in the order of the conversation."""
        query = f"SELECT r.role, r.said, r.heard FROM calls_transcriptline r {OF_CALL} AND NOT r.retold ORDER BY r.n, r.vendor_ms, r.id"
        found = self.rows(query, call_sid)
        return [(role, said, heard) for role, said, heard in found]

    def heard_of(self, call_sid: str, *, said: str) -> str:
        """What the caller heard of the agent's line that begins so, by our own record."""
        query = f"SELECT r.said, r.heard, r.heard_text FROM calls_transcriptline r {OF_CALL} AND r.role = 'assistant'"
        [(text, heard, part)] = [row for row in self.rows(query, call_sid) if row[0].startswith(said)]
        return str({"full": text, "part": part, "none": ""}[heard])

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted((self.directory / "log").glob("*.log")))

    @staticmethod
    def eventually(true: Callable[[], bool], *, within: float = 10.0) -> None:
        """Look again and again until it is true. Raises AssertionError after `within` seconds."""
        deadline = time.monotonic() + within
        while not true():
            assert time.monotonic() < deadline, f"Not so after {within:.0f} s"
            time.sleep(0.05)
