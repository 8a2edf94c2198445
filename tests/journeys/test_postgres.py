"""The demo's call once more with PostgreSQL behind it: other locks, a real pool, the same call."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from supportvoice.stack import HOME, free_port

pytestmark = [pytest.mark.journey, pytest.mark.postgres]


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of an empty database of its own."""
    server = os.environ["TEST_POSTGRES_URL"]
    name = f"supportvoice_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield server.rsplit("/", 1)[0] + f"/{name}"
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.mark.timeout(400)
def test_the_demo_call_is_right_on_postgresql(database: str) -> None:
    with tempfile.TemporaryDirectory(prefix="sv-") as directory:
        done = subprocess.run(
            [sys.executable, "manage.py", "demo", "--once", "--port", str(free_port()), "--directory", directory],
            cwd=HOME,
            env=os.environ | {"DATABASE_URL": database, "DEBUG": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=390,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM calls_callsession WHERE end_reason = 'agent_ended'").fetchone() == (1,)
