"""The house on which faults are tried, and the wires to its vendors: started, looked at as an operator would, mended after each fault."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from aiohttp import web

from bridge.sandbox.balancer import Balancer
from bridge.sandbox.proxy import Proxy
from bridge.sandbox.twilio_rest import TwilioRestSandbox
from bridge.sandbox.vapi import VapiSandbox
from supportvoice.demo import COLLEAGUE, LINE, Secrets, crm_running, household
from supportvoice.laboratory import databases, inside
from supportvoice.laboratory.databases import Database
from supportvoice.stack import Stack, StackFailed, free_port

ESTABLISHED = "01"
CALLS_AT_ONCE = 60  # what the account at Vapi allows
MENDED_WITHIN_S = 60.0
VALKEY = "valkey-server"
POSTGRESQLS_PORT = 5432

Say = Callable[[str], None]


class BehindWire(VapiSandbox):
    """A Vapi that is reached through a proxy, its audio sockets too."""

    wire: Proxy | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.wire.port}" if self.wire else super().base_url


@dataclass(slots=True)
class Ground:
    """Everything a fault may break, and the evidence."""

    stack: Stack
    vapi: BehindWire
    twilio: TwilioRestSandbox
    to_vapi: Proxy
    to_twilio: Proxy
    database: Database
    to_database: Proxy | None  # where the house has a network on the way to it
    secrets: Secrets
    backup: VapiSandbox | None  # our second account, at a Vapi of its own without any fault
    fallback_url: str  # of the number: where Twilio asks when nobody answers ...
    fallback_is_static: bool  # ... on somebody else's host, the ladder's last rung; else it is a door of the house itself
    say: Say
    front: Balancer | None = None  # before two `serve`, where there are two
    calls_since: datetime = field(default_factory=lambda: datetime.now(UTC))

    # ---- who is who

    def serving(self) -> list[int]:
        """The children of `serve`, and of the second one where there is one."""
        there = [member for name, member in self.stack.members.items() if name in ("serve", "beside")]
        return [child for member in there for child in children(member.process.pid)]

    def serves(self) -> dict[str, tuple[str, int]]:
        """Where each `serve` listens."""
        ports = {"serve": self.stack.port, **({"beside": self.stack.beside} if self.stack.beside else {})}
        return {name: ("127.0.0.1", port) for name, port in ports.items()}

    @property
    def places(self) -> int:
        """How many they are while nobody leaves and all are well."""
        return self.stack.workers * (2 if self.stack.beside else 1)

    def carriers(self, port: int) -> list[int]:
        """Those of them that hold an open connection to this port."""
        return connected_to(port, self.serving())

    def working(self) -> list[int]:
        """The worker, its pool first."""
        if "worker" not in self.stack.members:
            return []
        pid = self.stack.members["worker"].process.pid
        return [*children(pid), pid]

    def everybody(self) -> list[int]:
        return [*self.serving(), *self.working()]

    def valkey(self) -> int:
        """The server on our own socket, whoever keeps it. 0 when there is none."""
        return valkey_at(self.stack.valkey_socket)

    def valkeys_keeper(self) -> int:
        """Who starts Valkey again when it dies."""
        socket = str(self.stack.valkey_socket)
        return next((pid for pid, words in processes() if "keep" in words[:6] and socket in words and VALKEY not in words[0]), 0)

    @property
    def blocked_while(self) -> Path:
        """While this file is there, whoever got a SIGUSR2 stands still (`inside`)."""
        return blocked_while(self.stack.directory)

    @property
    def leaks_while(self) -> Path:
        """While this file is there, whoever got a SIGUSR1 uses more and more memory (`inside`)."""
        return leaks_while(self.stack.directory)

    # ---- the way back

    async def mend(self) -> None:
        """Whoever is gone comes back, whoever stands still goes on. Raises StackFailed."""
        for pid in (self.valkeys_keeper(), self.valkey(), *self.everybody()):
            if pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        members = self.stack.members
        for name in self.stack.programs():
            if name in members and members[name].process.returncode is not None:
                del members[name]
            if name not in members:
                await self.stack.begin(name)
        await self.stack.until("all children serve", self._all_children, within=MENDED_WITHIN_S)
        await self.stack.until("the house is ready again", self.stack.serves, within=MENDED_WITHIN_S)

    async def _all_children(self) -> bool:
        return len(self.serving()) == self.places

    # ---- evidence

    async def exported(self) -> dict[str, list[Mapping[str, Any]]]:
        """What `export_calls` says of every call of this laboratory, by CallSid; nothing while the house cannot say."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        try:
            printed = await self.stack.manage("export_calls", "--since", self.calls_since.isoformat())
        except StackFailed:
            return found
        for line in printed.splitlines():
            row = json.loads(line)
            found.setdefault(row["call_sid"], []).append(row)
        return found


@asynccontextmanager
async def open_ground(
    directory: Path,
    *,
    say: Say,
    server: str = "",
    env: Mapping[str, str] | None = None,
    is_doubled: bool = False,
    has_backup: bool = False,
    is_wired: bool = False,
) -> AsyncIterator[Ground]:
    """A house of its own with an empty database, its vendors, and nothing left of it afterwards. Raises StackFailed, EmbeddedAway.

    `server`: the PostgreSQL on which the database is made, else it is a SQLite file. `is_wired`: a network lies between the two.
    `env` comes on top of the house's environment; with a PYTHONPATH in it no loop can be blocked, and nothing leaks. `is_doubled`: two
    `serve`, and a balancer in front. `has_backup`: a second account at Vapi.
    """
    shared = Secrets()
    vapi = BehindWire(api_key=shared.vapi_key, concurrency_limit=CALLS_AT_ONCE)
    async with AsyncExitStack() as left:
        database = left.enter_context(databases.fresh(server, directory))
        to_database = await left.enter_async_context(Proxy(_server_of(database))) if is_wired else None
        tool_host = await left.enter_async_context(crm_running())
        await left.enter_async_context(vapi)
        backup = await left.enter_async_context(_second_account(shared)) if has_backup else None
        twilio = await left.enter_async_context(TwilioRestSandbox(shared.account_sid, shared.auth_token))
        vapi.wire = to_vapi = await left.enter_async_context(Proxy(_place(vapi.base_url)))
        to_twilio = await left.enter_async_context(Proxy(_place(twilio.base_url)))
        urls = {"vapi_url": vapi.base_url, "twilio_url": f"http://127.0.0.1:{to_twilio.port}", "tool_host": tool_host}
        stack = household(directory=directory, port=0, shared=shared, say=say, **urls)
        stack.env = {**stack.env, **_surroundings(stack, _as_reached(database, to_database)), **_told_of(backup), **(env or {})}
        front = await left.enter_async_context(doubled(stack)) if is_doubled else None
        left.push_async_callback(stack.stop)
        await stack.prepare()
        tool_url = f"http://{tool_host}/crm/get_user_account"
        await stack.manage("sandbox", "seed", "--number", LINE, "--target", COLLEAGUE, "--tool-url", tool_url)
        await stack.run()
        fallback_url = await left.enter_async_context(somebody_elses_host(await _static_twiml(stack)))
        ours = f"{stack.url}/webhook/twilio/fallback"
        yield Ground(
            stack,
            vapi,
            twilio,
            to_vapi,
            to_twilio,
            database,
            to_database,
            shared,
            backup,
            fallback_url or ours,
            bool(fallback_url),
            say,
            front,
        )


def _second_account(shared: Secrets) -> VapiSandbox:
    return VapiSandbox(api_key=f"backup-{shared.vapi_key}", concurrency_limit=CALLS_AT_ONCE)


def _told_of(backup: VapiSandbox | None) -> dict[str, str]:
    """What a house is told of its second account, once that listens."""
    return {"VAPI_BACKUP_API_KEY": backup.api_key, "VAPI_BACKUP_BASE_URL": backup.base_url} if backup is not None else {}


def _server_of(database: Database) -> tuple[str, int]:
    parts = urlsplit(database.url)
    return parts.hostname or "", parts.port or POSTGRESQLS_PORT


def _as_reached(database: Database, wire: Proxy | None) -> str:
    """Its address, or the wire's in the place of its server's."""
    if wire is None:
        return database.url
    parts = urlsplit(database.url)
    who, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{who}{at}127.0.0.1:{wire.port}"))


def _surroundings(stack: Stack, database_url: str) -> dict[str, str]:
    """What a house of ours is told beyond what every household is."""
    paths = [str(Path(inside.__file__).parent), os.environ.get("PYTHONPATH", "")]
    return {
        "DATABASE_URL": database_url,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "BLOCKED_WHILE": str(blocked_while(stack.directory)),
        "LEAKS_WHILE": str(leaks_while(stack.directory)),
    }


def blocked_while(directory: Path) -> Path:
    return directory / "blocked"


def leaks_while(directory: Path) -> Path:
    return directory / "leaks"


def doubled(stack: Stack) -> Balancer:
    """The public address of a household that is about to have a second `serve`."""
    stack.beside = free_port()
    front = Balancer([("127.0.0.1", stack.port), ("127.0.0.1", stack.beside)], port=free_port())
    stack.env = {**stack.env, "PUBLIC_URL": f"http://localhost:{front.port}"}
    return front


async def _static_twiml(stack: Stack) -> str:
    """What `fallback_twiml` prints, for the number's fallback URL; empty where the command does not exist."""
    try:
        return await stack.manage("fallback_twiml")
    except StackFailed:
        return ""


@asynccontextmanager
async def somebody_elses_host(twiml: str) -> AsyncIterator[str]:
    """A place that always answers with this document; "" when there is none to give."""
    if not twiml:
        yield ""
        return

    async def document(request: web.Request) -> web.Response:
        return web.Response(text=twiml, content_type="text/xml")

    app = web.Application()
    app.add_routes([web.route("*", "/", document)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def _place(url: str) -> tuple[str, int]:
    host, _, port = url.rpartition("/")[2].partition(":")
    return host, int(port)


# ---- processes, as /proc shows them


def children(pid: int) -> list[int]:
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in _read(file).split()]


def connected_to(port: int, pids: list[int]) -> list[int]:
    """Those of the processes that hold an open connection to this port of a peer."""
    lines = [line.split() for line in _read(Path("/proc/net/tcp")).splitlines()[1:]]
    sockets = {f"socket:[{line[9]}]" for line in lines if line[2].endswith(f":{port:04X}") and line[3] == ESTABLISHED}
    return [pid for pid in pids if sockets & set(descriptors(pid))]


def valkey_at(socket: Path) -> int:
    """The server on this socket, which it shows in its title. 0 when there is none."""
    return next((pid for pid, words in processes() if VALKEY in words[0] and str(socket) in " ".join(words)), 0)


def descriptors(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{number}")


def processes() -> Iterator[tuple[int, list[str]]]:
    """(pid, its command line) of everybody."""
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and (words := _read(place / "cmdline").split("\0"))[0]:
            yield int(place.name), words


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
