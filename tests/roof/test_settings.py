"""What an operator sets: everything is listed, the example works as it stands, and production refuses what is unsafe."""

from __future__ import annotations

import os
import re
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
    "ALLOWED_HOSTS": ["voice.acme.org"],
    "PUBLIC_URL": "https://voice.acme.org",
    "VAPI_API_KEY": "a-real-key",
    "VAPI_BASE_URL": "https://api.vapi.ai",
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
        ("ALLOWED_HOSTS", []),
        ("ALLOWED_HOSTS", ["*"]),
        ("VAPI_API_KEY", ""),
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
    assert [message.id for message in checks.run_checks(tags=["supportvoice"])] == ["supportvoice.E001"]


def test_a_laptop_may_do_all_of_that(production: Any) -> None:
    production.DEBUG = True
    production.SECRET_KEY = "laptop-only-not-a-secret"
    production.PUBLIC_URL = "http://localhost:8000"
    assert list(problems()) == []


def test_plain_http_may_be_allowed_for_one_machine(production: Any) -> None:
    production.PUBLIC_URL, production.ALLOW_INSECURE = "http://localhost:8000", True
    assert list(problems()) == []


@pytest.mark.parametrize("command", ["manage.py serve --port 0", "-m celery -A supportvoice worker", "-c import(supportvoice.asgi)"])
def test_every_entrance_refuses_unsafe_production(command: str) -> None:
    arguments = ["-c", "import supportvoice.asgi"] if command.startswith("-c") else command.split()
    bare = {name: value for name, value in os.environ.items() if name not in GOOD}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=HOME,
        env=bare | {"DEBUG": "0", "SECRET_KEY": "x" * 50, "DATABASE_URL": "sqlite:////nonexistent/db.sqlite3"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode != 0
    assert "VAPI_WEBHOOK_SECRET is missing." in done.stderr
    assert "PUBLIC_URL must be https://" in done.stderr


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
