"""A whole household on one machine, in processes of its own: Valkey, `serve`, a worker and beat, for the demo and for tests.

It starts in the order things need each other, waits for what each says when it is really ready, and leaves nothing:
`stop` ends them in the opposite order, and if the owner is killed they die with it (`lifeline`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from supportvoice.embedded import Hold, socket_path
from supportvoice.lifeline import under_lifeline

HOME = Path(__file__).resolve().parent.parent
LOOK_S = 0.05
SAY_AGAIN_S = 5.0  # a wait longer than this is spoken of
READY_S = 120.0
STOP_S = 10.0
TAIL_LINES = 15

Ready = Callable[[], Awaitable[bool]]
Server = Literal["serve", "daphne"]


class StackFailed(Exception):
    """A part of the household did not come up; the text says which, and ends with the last lines of its log."""


@dataclass(slots=True)
class Member:
    name: str
    process: asyncio.subprocess.Process
    log: Path


def free_port() -> int:
    """A port that nobody listens on now. The kernel does not hand it out again soon."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class Stack:
    """`async with Stack(directory, env) as stack:`. `env` is added to this process's own environment.

    `directory` takes the logs (and the Valkey socket, if its path is short enough). `say` hears what is being waited for.
    `server` carries the calls: `serve` with `workers` children, or daphne in one process; with a port `beside`, a second `serve`
    of the same household does so there.
    What the household needs to know about itself (REDIS_URL, PORT, PUBLIC_URL, DATABASE_URL) is set here unless `env` has it.
    """

    directory: Path
    env: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    workers: int = 2
    server: Server = "serve"
    beside: int = 0
    say: Callable[[str], None] = lambda sentence: None
    members: dict[str, Member] = field(default_factory=dict)
    _valkey: Hold | None = None

    def __post_init__(self) -> None:
        self.directory = self.directory.resolve()
        self.port = self.port or free_port()
        own = {
            "REDIS_URL": f"unix://{self.valkey_socket}",
            "PORT": str(self.port),
            "PUBLIC_URL": f"http://localhost:{self.port}",
            "DATABASE_URL": f"sqlite:///{self.directory / 'db.sqlite3'}",
            "SPOOL_DIR": str(self.directory / "spool"),
            "DRAIN_SECONDS": "2",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "",  # a process that may keep no compiled module needs three times as long to start
        }
        given = {**own, **self.env}
        files = {f"{name}_FILE": "" for name in given}  # one inherited, or in .env, would be read instead of the name
        self.env = {**os.environ, **files, **given}

    @property
    def valkey_socket(self) -> Path:
        return socket_path(self.directory)

    @property
    def url(self) -> str:
        """Where this household is reached, as its vendors are told."""
        return self.env["PUBLIC_URL"]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        """Everything up and ready, or StackFailed and nothing left."""
        try:
            await self.prepare()
            await self.run()
        except BaseException:
            await self.stop()
            raise

    async def prepare(self) -> None:
        """Valkey and an up-to-date database: what `manage` commands need. Raises EmbeddedAway, StackFailed."""
        (self.directory / "log").mkdir(parents=True, exist_ok=True)
        self.say("starting Valkey on a unix socket")
        self._valkey = await asyncio.to_thread(Hold, self.valkey_socket)
        self.say("migrating the database")
        await self.manage("migrate", "--verbosity", "0")

    async def run(self) -> None:
        """The processes that stay, started together and each awaited."""
        self.say(f"starting {self.server}, a Celery worker and beat")
        for name in self.programs():
            await self.begin(name)
        await self.until(f"{self.server} answers", self.serves)
        await self.until("the worker is ready", lambda: self.works("worker"))
        await self.until("beat has started", lambda: self.works("beat"))

    def programs(self) -> dict[str, list[str]]:
        """The arguments to Python that make each member."""
        celery = ["-m", "celery", "-A", "supportvoice"]
        return {
            self.server: self.serving(),
            **({"beside": self.serving(self.beside)} if self.beside else {}),
            "worker": [*celery, "worker", "--concurrency", "2", "--loglevel", "INFO"],
            "beat": [*celery, "beat", "--loglevel", "INFO"],
        }

    def serving(self, port: int = 0) -> list[str]:
        """The arguments to Python that make a server of this household."""
        port = port or self.port
        if self.server == "serve":
            return ["manage.py", "serve", "--port", str(port), "--workers", str(self.workers)]
        quiet = ["--verbosity", "0"]  # its access log names clients
        return ["-m", "daphne", *quiet, "--bind", "127.0.0.1", "--port", str(port), "supportvoice.asgi:application"]

    async def manage(self, *arguments: str) -> str:
        """Run a management command in the household; returns what it printed. Raises StackFailed."""
        command = under_lifeline([sys.executable, "manage.py", *arguments])
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=HOME, env=self.env
        )
        try:
            printed, complaints = await process.communicate()
        except BaseException:
            _signal(process, signal.SIGKILL)
            raise
        if process.returncode:
            raise StackFailed(f"manage.py {arguments[0]} failed:\n{complaints.decode(errors='replace').strip()}")
        return printed.decode(errors="replace")

    async def until(self, what: str, ready: Ready, *, within: float = READY_S) -> None:
        """Wait for `ready`; say so when it takes long; give up when a member died or time is up. Raises StackFailed."""
        started = said = time.monotonic()
        while not await ready():
            self.check_alive()
            now = time.monotonic()
            if now - started > within:
                raise StackFailed(f"Waited {within:.0f} s in vain until {what}.{self._tails()}")
            if now - said > SAY_AGAIN_S:
                said = now
                self.say(f"waiting until {what} ({now - started:.0f} s)")
            await asyncio.sleep(LOOK_S)

    def check_alive(self) -> None:
        """Raises StackFailed when a member is gone that nobody stopped."""
        for member in self.members.values():
            if member.process.returncode is not None:
                raise StackFailed(f"{member.name} ended with exit code {member.process.returncode}.{_tail(member)}")

    async def kill(self, name: str, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send a member a signal and wait for its end; it is then no longer of the household."""
        member = self.members.pop(name)
        _signal(member.process, sig)
        await member.process.wait()

    async def stop(self) -> None:
        """End every member, by force if need be, and let Valkey go. May be called twice."""
        for member in reversed(self.members.values()):
            _signal(member.process, signal.SIGTERM)
        for member in self.members.values():
            try:
                await asyncio.wait_for(member.process.wait(), STOP_S)
            except TimeoutError:
                _signal(member.process, signal.SIGKILL)
                await member.process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(member.process.pid, signal.SIGKILL)  # whatever a member forked and forgot
        self.members.clear()
        if self._valkey is not None:
            self._valkey.release()
            self._valkey = None
            await self._valkey_gone()

    async def _valkey_gone(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                while self.valkey_socket.exists():  # noqa: ASYNC110 - another process removes it
                    await asyncio.sleep(LOOK_S)

    async def begin(self, name: str) -> None:
        """Start one of `programs`, also in the place of one that is gone; its log begins anew."""
        path = self.directory / "log" / f"{name}.log"
        with open(path, "wb") as log:  # noqa: ASYNC230 - opening a local file
            process = await asyncio.create_subprocess_exec(
                *under_lifeline([sys.executable, *self.programs()[name]]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=HOME,
                env=self.env,
                start_new_session=True,  # Ctrl-C is the owner's to handle
            )
        self.members[name] = Member(name, process, path)

    async def serves(self) -> bool:
        """Whether every child has begun to serve, and takes calls."""
        return await self.works(self.server) and (not self.beside or await self.works("beside"))

    async def works(self, name: str) -> bool:
        """Whether this one of `programs` has begun to do what it is there for."""
        if name not in (self.server, "beside"):
            return self._logged(name, {"worker": b" ready.", "beat": b"beat: Starting..."}[name])
        has_begun = self.server == "daphne" or self._logged(name, b"Serving on ")
        return has_begun and await is_ready(self.beside if name == "beside" else self.port)

    def _logged(self, name: str, words: bytes) -> bool:
        return words in self.members[name].log.read_bytes()

    def _tails(self) -> str:
        return "".join(_tail(member) for member in self.members.values())


def _tail(member: Member) -> str:
    lines = member.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    return "".join(f"\n  {member.name}| {line}" for line in lines)


def _signal(process: asyncio.subprocess.Process, sig: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(sig)


async def is_ready(port: int) -> bool:
    """Whether a server on this port says that it can take calls."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
