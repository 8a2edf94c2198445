"""How a tool can tell that a request is ours, and that we never send one unproven where proof was promised."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agents import signing, tools
from agents.tools import ToolAnswer
from tests.bridge.http_server import Asked, Server, drop, reply

HOME = Path(__file__).resolve().parents[2]
CALL = {"call_sid": "CA1", "from": "+15550100199", "to": "+15550100100", "tool_call_id": "call_1"}
SECRET = "canary-signing-secret"


@pytest.fixture(autouse=True)
def _no_secret_of_all_tools(settings: Any) -> None:
    settings.TOOL_SIGNING_SECRET = ""


def ask(server: Server, **tool: Any) -> ToolAnswer:
    definition = {"name": "lookup", "url": f"{server.url}/crm?key=hidden", "timeout_s": 4.0} | tool
    return tools.run(definition, {"a": 1}, call=CALL, timeout=2.0, tool_call_id="call_1", allowed=[f"127.0.0.1:{server.port}"])


def readme_says_it_is_ours(asked: Asked, secret: str) -> bool:
    """The README's own lines, as a tool's author would copy them."""
    [code] = re.findall(r"```python\n(def is_from_supportvoice.*?)```", (HOME / "README.md").read_text(), re.DOTALL)
    scope: dict[str, Any] = {"hmac": hmac, "hashlib": hashlib, "time": time}
    exec(code, scope)
    return bool(scope["is_from_supportvoice"](asked.headers, asked.body, secret))


def test_a_signed_request_passes_the_readmes_check_and_a_changed_one_does_not(settings: Any) -> None:
    settings.TOOL_SIGNING_SECRET = SECRET
    with Server(reply(200, "ok")) as crm:
        answer = ask(crm)
    [asked] = crm.asked
    assert readme_says_it_is_ours(asked, SECRET)
    assert not readme_says_it_is_ours(asked, SECRET + "x")
    assert not readme_says_it_is_ours(Asked(asked.path, asked.headers, asked.body + b" "), SECRET)
    later = {**asked.headers, signing.TIMESTAMP: str(int(asked.headers[signing.TIMESTAMP]) + 1)}
    assert not readme_says_it_is_ours(Asked(asked.path, later, asked.body), SECRET)
    assert (asked.headers[signing.TOOL_CALL], asked.json["call"]["tool_call_id"]) == ("call_1", "call_1")
    assert answer.sent == {"to": "127.0.0.1", "bytes": len(asked.body), "signed": True, "status": 200}


def test_the_signature_is_the_documented_one() -> None:
    said = signing.headers(body=b'{"a":1}', secret="s", tool_call_id="call_1", at=1_795_342_809.9)
    digest = hmac.new(b"s", b'1795342809.{"a":1}', hashlib.sha256).hexdigest()
    assert said == {
        "X-Supportvoice-Timestamp": "1795342809",
        "X-Supportvoice-Signature": f"sha256={digest}",
        "X-Supportvoice-Tool-Call": "call_1",
    }


def test_without_any_secret_nothing_is_signed_but_the_tool_call_is_named() -> None:
    with Server(reply(200, "ok")) as crm:
        assert ask(crm).sent["signed"] is False
    assert {name for name in crm.asked[0].headers if name.startswith("X-Supportvoice")} == {signing.TOOL_CALL}


@pytest.mark.parametrize("id", ["call 1", "a\r\nX-Evil: 1", "ü", "x" * 101, ""])
def test_an_id_that_is_no_header_is_named_by_its_hash(id: str) -> None:
    said = signing.headers(body=b"", secret="", tool_call_id=id, at=0)
    assert said == {signing.TOOL_CALL: hashlib.sha256(id.encode()).hexdigest()}


def test_a_tools_own_variable_goes_before_the_secret_of_all_tools(settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings.TOOL_SIGNING_SECRET = "of all tools"
    monkeypatch.setenv("CRM_SECRET", SECRET)
    assert signing.secret_of({"secret_env": "CRM_SECRET"}) == SECRET
    assert signing.secret_of({"secret_env": ""}) == signing.secret_of({}) == "of all tools"
    (tmp_path / "secret").write_text("from a file\n")
    monkeypatch.setenv("CRM_SECRET_FILE", str(tmp_path / "secret"))
    assert signing.secret_of({"secret_env": "CRM_SECRET"}) == "from a file"


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("CRM_SECRET", {}),
        ("CRM_SECRET", {"CRM_SECRET": ""}),
        ("CRM_SECRET", {"CRM_SECRET": "  "}),
        ("CRM_SECRET", {"CRM_SECRET_FILE": "/nonexistent"}),
        ("CRM_SECRET", {"CRM_SECRET_FILE": "/"}),
        ("SECRET_KEY", {"SECRET_KEY": SECRET}),
        ("VAPI_WEBHOOK_SECRET", {"VAPI_WEBHOOK_SECRET": SECRET}),
        ("TWILIO_AUTH_TOKEN", {"TWILIO_AUTH_TOKEN": SECRET}),
        ("no name", {"no name": SECRET}),
    ],
)
def test_a_tool_whose_own_secret_cannot_be_had_is_not_called(
    settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, held: Mapping[str, str]
) -> None:
    settings.TOOL_SIGNING_SECRET = "of all tools"
    monkeypatch.delenv(name, raising=False)
    for variable, value in held.items():
        monkeypatch.setenv(variable, value)
    with Server(reply(200, "ok")) as crm:
        answer = ask(crm, secret_env=name)
    assert (answer.text, answer.problem, answer.sent) == ("", "This tool is not set up yet, so it was not used.", {})
    assert crm.connections == 0
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "A tool was not called"
    assert SECRET not in str(vars(record))


def test_no_secret_stands_in_what_is_logged_or_kept(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.TOOL_SIGNING_SECRET = SECRET
    with caplog.at_level(logging.DEBUG), Server(reply(200, "ok")) as crm:
        answer = ask(crm)
    everything = json.dumps([vars(record) for record in caplog.records if record.name == "agents.tools"], default=str) + repr(answer)
    for canary in (SECRET, "sha256=", "hidden"):
        assert canary not in everything


def test_what_may_have_left_the_house_is_kept_and_what_did_not_is_not(settings: Any) -> None:
    with Server(drop) as crm:
        assert ask(crm).sent == {"to": "127.0.0.1", "bytes": len(crm.asked[0].body), "signed": False}
    assert ask(crm).sent == {}


def test_the_secret_of_all_tools_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    done = subprocess.run(
        [sys.executable, "-c", "from supportvoice.settings import TOOL_SIGNING_SECRET; print(repr(TOOL_SIGNING_SECRET))"],
        cwd=HOME,
        env=os.environ | {"TOOL_SIGNING_SECRET_FILE": str(tmp_path / "secret")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "'from a file'"
