"""What an operator sets: everything is listed, the example works as it stands, and production refuses what is unsafe."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core import checks

from supportvoice.checks import problems

HOME = Path(__file__).resolve().parents[2]
GOOD = {
    "DEBUG": False,
    "SECRET_KEY": "k9" * 25,
    "SECRET_KEY_FALLBACKS": [],
    "TRUSTED_PROXIES": [],
    "ALLOWED_HOSTS": ["voice.acme.org"],
    "PUBLIC_URL": "https://voice.acme.org",
    "VAPI_API_KEY": "a-real-key",
    "VAPI_BASE_URL": "https://api.vapi.ai",
    "VAPI_BACKUP_API_KEY": "another-real-key",
    "VAPI_BACKUP_BASE_URL": "https://api.vapi.ai",
    "VAPI_WEBHOOK_SECRETS": ["s3cr3t-of-ours"],
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKENS": ["a-real-token"],
    "TWILIO_BASE_URL": "https://api.twilio.com",
    "TOOL_ALLOWED_PRIVATE": [],
    "TOOL_SIGNING_SECRET": "",
    "ALLOW_INSECURE": False,
}


@pytest.fixture
def production(settings: Any) -> Any:
    for name, value in GOOD.items():
        setattr(settings, name, value)
    return settings


def test_good_production_settings_have_no_problem(production: Any) -> None:
    assert list(problems()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "laptop-only-not-a-secret"),
        ("SECRET_KEY", ""),
        ("SECRET_KEY", "short"),
        ("SECRET_KEY", "django-insecure-" + "x" * 40),
        ("SECRET_KEY_FALLBACKS", ["laptop-only-not-a-secret"]),
        ("SECRET_KEY_FALLBACKS", ["k8" * 25, "short"]),
        ("TRUSTED_PROXIES", ["proxy.acme.org"]),
        ("ALLOWED_HOSTS", []),
        ("ALLOWED_HOSTS", ["*"]),
        ("VAPI_API_KEY", ""),
        ("VAPI_BACKUP_API_KEY", "changeme"),
        ("VAPI_BACKUP_API_KEY", "a-real-key"),  # the main one's
        ("VAPI_BACKUP_BASE_URL", "http://127.0.0.1:8090"),
        ("VAPI_WEBHOOK_SECRETS", []),
        ("VAPI_WEBHOOK_SECRETS", ["changeme"]),
        ("VAPI_WEBHOOK_SECRETS", ["a-good-one", "changeme"]),
        ("TWILIO_AUTH_TOKENS", []),
        ("TWILIO_ACCOUNT_SID", ""),
        ("TOOL_ALLOWED_PRIVATE", ["127.0.0.1:8090"]),
        ("TOOL_SIGNING_SECRET", "changeme"),
        ("PUBLIC_URL", "http://voice.acme.org"),
        ("VAPI_BASE_URL", "http://127.0.0.1:8090"),
        ("TWILIO_BASE_URL", "http://127.0.0.1:8091"),
    ],
)
def test_production_refuses(production: Any, name: str, value: object) -> None:
    setattr(production, name, value)
    found = list(problems())
    assert len(found) == 1
    assert name.removesuffix("S") in found[0]
    assert len(found[0].splitlines()) == 1
    assert [message.id for message in checks.run_checks(tags=["supportvoice"])] == ["supportvoice.E001"]


def test_a_laptop_may_do_all_of_that(production: Any) -> None:
    production.DEBUG = True
    production.SECRET_KEY = "laptop-only-not-a-secret"
    production.PUBLIC_URL = "http://localhost:8000"
    assert list(problems()) == []


def test_plain_http_may_be_allowed_for_one_machine(production: Any) -> None:
    production.PUBLIC_URL, production.ALLOW_INSECURE = "http://localhost:8000", True
    assert list(problems()) == []


def run(command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, in an environment that says nothing of our settings but `env`."""
    ours = (*OF_ENVIRONMENT, *(f"{name}_FILE" for name in OF_ENVIRONMENT))
    bare = {name: value for name, value in os.environ.items() if name not in ours}
    away = {"DATABASE_URL": "sqlite:////nonexistent/db.sqlite3"}
    return subprocess.run(
        [sys.executable, *shlex.split(command)], cwd=HOME, env=bare | away | env, capture_output=True, text=True, timeout=100, check=False
    )


OF_ENVIRONMENT = [name.removesuffix("S") if name in ("VAPI_WEBHOOK_SECRETS", "TWILIO_AUTH_TOKENS") else name for name in GOOD]
PRODUCTION = {
    "DEBUG": "0",
    "SECRET_KEY": "k9-Lw7." * 8,
    "ALLOWED_HOSTS": "voice.acme.org",
    "PUBLIC_URL": "https://voice.acme.org",
    "VAPI_API_KEY": "a-real-key",
    "VAPI_WEBHOOK_SECRET": "s3cr3t-of-ours",
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKEN": "a-real-token",
}
SECRETS = {
    "SECRET_KEY": "SECRET_KEY",
    "SECRET_KEY_FALLBACKS": "SECRET_KEY_FALLBACKS",
    "VAPI_API_KEY": "VAPI_API_KEY",
    "VAPI_WEBHOOK_SECRET": "VAPI_WEBHOOK_SECRETS",
    "TOOL_SIGNING_SECRET": "TOOL_SIGNING_SECRET",
    "TWILIO_AUTH_TOKEN": "TWILIO_AUTH_TOKENS",
}
ENTRANCES = (
    "manage.py serve --port 0",
    "-m celery -A supportvoice worker",
    "-m celery -A supportvoice beat",
    "-m daphne --port 0 supportvoice.asgi:application",
    "-c 'import supportvoice.asgi'",
)


@pytest.mark.parametrize("command", ENTRANCES)
def test_every_entrance_refuses_unsafe_production_with_a_line_for_each_reason(command: str) -> None:
    done = run(command, DEBUG="0", TWILIO_AUTH_TOKEN="changeme")
    told = [line.removeprefix("CommandError: ") for line in done.stderr.splitlines()]
    assert done.returncode != 0
    assert told == [
        "SECRET_KEY must be a random text of 32 characters or more, and no placeholder.",
        "VAPI_API_KEY is missing.",
        "VAPI_WEBHOOK_SECRET is missing.",
        "TWILIO_ACCOUNT_SID is missing.",
        "TWILIO_AUTH_TOKEN is still a placeholder.",
        "ALLOWED_HOSTS must name the hosts people use.",
        "PUBLIC_URL must be https:// (ALLOW_INSECURE=1 tries production settings on one machine).",
    ]


def test_the_deployment_check_finds_nothing_but_that_there_is_no_database_here() -> None:
    done = run("manage.py check --deploy --fail-level ERROR", **PRODUCTION)
    assert done.returncode == 0
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("?: ")]
    assert warning == "?: (calls.W001) Our numbers cannot be read, so nobody asked Twilio about them (OperationalError)."
    assert "System check identified 1 issue (2 silenced)." in done.stdout + done.stderr


def test_the_deployment_check_can_find_something() -> None:
    done = run("manage.py check --deploy --fail-level DEBUG", **PRODUCTION | {"PUBLIC_URL": "http://voice.acme.org", "ALLOW_INSECURE": "1"})
    assert done.returncode == 1
    assert "SESSION_COOKIE_SECURE" in done.stderr


def test_each_secret_may_stand_in_a_file_with_a_line_end(tmp_path: Path) -> None:
    files = {}
    for name in SECRETS:
        path = tmp_path / name
        path.write_text(f" {name.lower()}-from-a-file-and-long-enough\r\n\n")
        files[f"{name}_FILE"] = str(path)
    code = "import json; from supportvoice import settings as s; print(json.dumps({n: getattr(s, n) for n in %r}))" % [*SECRETS.values()]
    done = run(f"-c {shlex.quote(code)}", DEBUG="0", **files)
    read = json.loads(done.stdout)
    for name, setting in SECRETS.items():
        written = f" {name.lower()}-from-a-file-and-long-enough"
        assert read[setting] == (written if isinstance(read[setting], str) else [written]), "the line end alone is not meant"


def test_a_file_that_cannot_be_read_is_told_in_a_sentence() -> None:
    done = run("manage.py serve --port 0", SECRET_KEY_FILE="/nonexistent/key")
    assert done.returncode != 0
    assert done.stderr == "The file of SECRET_KEY_FILE cannot be read: No such file or directory.\n"


@pytest.mark.parametrize(
    "command", ["demo --once", "sandbox serve", "sandbox call", "sandbox faults", "sandbox seed --tool-url https://x.example/x"]
)
def test_the_sandbox_stays_out_of_production_unless_told(command: str) -> None:
    done = run(f"manage.py {command}", **PRODUCTION)
    assert done.returncode == 2
    assert "does not run with DEBUG=0" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_sandbox_runs_in_production_when_told() -> None:
    done = run("manage.py sandbox faults --list", **PRODUCTION, ALLOW_INSECURE="1")
    assert done.returncode == 0, done.stderr


def test_the_example_names_every_setting_and_no_other() -> None:
    source = (HOME / "supportvoice" / "settings.py").read_text()
    read = set(re.findall(r"\benv(?:\.\w+)?\(\s*\"([A-Z_]+)\"", source))
    named = set(re.findall(r"^([A-Z_]+)=", (HOME / ".env.example").read_text(), re.MULTILINE))
    assert named == read


def test_the_example_works_as_it_stands(tmp_path: Path) -> None:
    lines = (HOME / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    code = "import django; django.setup(); from django.conf import settings as s; from supportvoice.checks import problems\n"
    code += "print(list(problems()), s.DATABASES['default']['NAME'], s.REDIS_EMBEDDED, s.VAPI_WEBHOOK_SECRETS, s.CSRF_TRUSTED_ORIGINS)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=HOME,
        env=os.environ | example | {"DJANGO_SETTINGS_MODULE": "supportvoice.settings"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[]", str(HOME / "db.sqlite3"), "True", "[]", "['http://localhost:8000']"]


def test_postgresql_connections_are_pooled_and_looked_at_before_they_are_lent() -> None:
    code = "from supportvoice.settings import DATABASES; d = DATABASES['default']\n"
    code += "print(d['CONN_HEALTH_CHECKS'], d['OPTIONS']['pool']['max_size'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=HOME,
        env=os.environ | {"DATABASE_URL": "postgres://voice@db.test/voice"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.split() == ["True", "20"]
