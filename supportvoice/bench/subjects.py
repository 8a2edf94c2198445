"""What is measured: each a process of its own that is told where to find Vapi, and where Twilio will call.

Ours is the child of `serve` with everything it has: the whole ASGI application, consumer, ledger on SQLite, the embedded Valkey as
channel layer. The others are relays that pass the sound on and do nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridge.routing import MEDIA_PATH
from supportvoice.parent import AS_A_CHILD, listen
from supportvoice.stack import HOME, Stack, StackFailed, free_port

RELAYS = Path(__file__).parent / "relays"
UP_WITHIN_S = 30.0
GONE_WITHIN_S = 10.0
MANY_FOR_DAPHNE = 15  # calls: one core of this decade carries hardly more


@dataclass(frozen=True, slots=True)
class Account:
    """Ours at Twilio, and what Vapi shows us, for one run of the bench."""

    sid: str = field(default_factory=lambda: "AC" + secrets.token_hex(16))
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    vapi_secret: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass(slots=True)
class Running:
    """A subject that answers on `port`."""

    name: str
    process: asyncio.subprocess.Process
    port: int
    rows: Callable[[int], list[tuple[str, str]]]
    most_calls: int = 10**6
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/{MEDIA_PATH}"

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass(slots=True)
class Ground:
    """Where everything happens: a directory that is thrown away, and the socket that the generator serves Vapi on."""

    directory: Path
    vapi: socket.socket
    account: Account = field(default_factory=Account)
    say: Callable[[str], None] = lambda sentence: None
    wide: bool = False  # Vapi's leg in PCM16 at 16 kHz

    @property
    def vapi_url(self) -> str:
        return f"ws://127.0.0.1:{self.vapi.getsockname()[1]}"

    def complaints(self, name: str) -> str:
        """The last lines of a subject's log, each on a line of its own."""
        log = self.directory / f"{name}.log"
        return "".join(f"\n  {name}| {line}" for line in log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else ""


Subject = Callable[[Ground], Any]  # an async context manager of Running


@asynccontextmanager
async def ours(ground: Ground) -> AsyncIterator[Running]:
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    env = {
        "DEBUG": "1",
        "TWILIO_AUTH_TOKEN": ground.account.token,
        "TWILIO_ACCOUNT_SID": ground.account.sid,
        "VAPI_WEBHOOK_SECRET": ground.account.vapi_secret,
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "DJANGO_SETTINGS_MODULE": "supportvoice.settings",
        "SERVE_ROLE": "all",
    }
    stack = Stack(ground.directory, env, port=port, say=ground.say)
    lifeline, theirs = socket.socketpair()
    lifeline.setblocking(False)
    try:
        await stack.prepare()
        fds = ("--listening", str(listening.fileno()), "--lifeline", str(theirs.fileno()), "--parent", str(os.getpid()))
        command = [sys.executable, "-m", "supportvoice.bench.child", *fds, "--boot", str(uuid.uuid4())]
        async with _process(
            "ours", command, ground, env={**AS_A_CHILD, **stack.env}, pass_fds=(listening.fileno(), theirs.fileno())
        ) as process:
            theirs.close()
            async with asyncio.timeout(UP_WITHIN_S):
                if not await asyncio.get_running_loop().sock_recv(lifeline, 1):
                    raise StackFailed("Our own serving process did not start.")

            def rows(count: int) -> list[tuple[str, str]]:
                wide = ["--wide"] if ground.wide else []
                return [(sid, token) for sid, token in run_rows(stack.env, "--calls", str(count), "--vapi", ground.vapi_url, *wide)]

            yield Running("ours", process, port, rows, env=stack.env)
    finally:
        for each in (listening, lifeline, theirs):
            each.close()
        await stack.stop()


def run_rows(env: Mapping[str, str], *arguments: str) -> Any:
    """Ask or fill the database of our subject; see `supportvoice.bench.rows`."""
    command = [sys.executable, "-m", "supportvoice.bench.rows", *arguments]
    return json.loads(subprocess.run(command, env=dict(env), cwd=HOME, check=True, capture_output=True).stdout)


def asked(running: Running, *, watch: bool = False) -> dict[str, Any]:
    """What our process tells of itself; with `watch` it looks for stalls of its loop from now on."""
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/bench{'?watch' if watch else ''}", timeout=10) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def relay(name: str, *, module: str) -> Subject:
    """A relay in Python that listens on a descriptor."""

    @asynccontextmanager
    async def started(ground: Ground) -> AsyncIterator[Running]:
        listening = listen("127.0.0.1", 0)
        try:
            command = [sys.executable, "-m", module, "--listening", str(listening.fileno()), "--vapi", ground.vapi_url]
            async with _process(name, command, ground, pass_fds=(listening.fileno(),)) as process:
                yield Running(name, process, listening.getsockname()[1], strangers)
        finally:
            listening.close()

    return started


@asynccontextmanager
async def tutorial(ground: Ground) -> AsyncIterator[Running]:
    port = free_port()
    where = ["--verbosity", "0", "--bind", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "daphne", *where, "supportvoice.bench.relays.tutorial:application"]
    env = {**os.environ, "BENCH_VAPI": ground.vapi_url}
    async with _process("tutorial", command, ground, env=env) as process:
        await _answers(port, process)
        yield Running("tutorial", process, port, strangers, most_calls=MANY_FOR_DAPHNE)


@asynccontextmanager
async def node(ground: Ground) -> AsyncIterator[Running]:
    port = free_port()
    async with _process("node", ["node", str(RELAYS / "relay.js"), str(port), ground.vapi_url], ground) as process:
        await _answers(port, process)
        yield Running("node", process, port, strangers)


def strangers(count: int) -> list[tuple[str, str]]:
    """Calls for who asks no token."""
    return [(f"CA{secrets.token_hex(16)}", "") for _ in range(count)]


SUBJECTS: Mapping[str, Subject] = {
    "ours": ours,
    "picows": relay("picows", module="supportvoice.bench.relays.bare"),
    "tutorial": tutorial,
    "node": node,
}


def missing(name: str) -> str:
    """Why a subject cannot be measured here; empty when it can."""
    if name != "node":
        return ""
    if shutil.which("node") is None:
        return "there is no node on this machine"
    looking = ["node", "-e", "require.resolve('ws')"]
    if subprocess.run(looking, cwd=RELAYS, capture_output=True, check=False).returncode:
        return "node finds no package ws (install it, and say where in NODE_PATH)"
    return ""


@asynccontextmanager
async def _process(
    name: str, command: Sequence[str], ground: Ground, *, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that ends with the block; what it complains of is in `<name>.log`."""
    with open(ground.directory / f"{name}.log", "wb") as log:  # noqa: ASYNC230 - opening a local file
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=HOME, env=env, pass_fds=pass_fds
        )
    try:
        yield process
    finally:
        for sig in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                process.send_signal(sig)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GONE_WITHIN_S)
                break


async def _answers(port: int, process: asyncio.subprocess.Process) -> None:
    """Until somebody accepts connections there. Raises StackFailed."""
    async with asyncio.timeout(UP_WITHIN_S):
        while True:
            if process.returncode is not None:
                raise StackFailed(f"A relay ended with exit code {process.returncode} before it served.")
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)
