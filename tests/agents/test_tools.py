"""The door outwards: what a tool is told, what becomes of its answer, and where it is never sent."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest

from agents import addresses, tools
from agents.tools import ToolAnswer
from tests.bridge.http_server import Act, Server, drip, drop, hang, reply

CALL = {"call_sid": "CA1", "from": "+15550100199", "to": "+15550100100"}
NO_ADDRESS = ToolAnswer(text="", problem="This tool has no usable address.")


def ask(server: Server, arguments: dict[str, Any] | None = None, *, timeout: float = 2.0, **tool: Any) -> ToolAnswer:
    definition = {"name": "lookup", "url": f"{server.url}/crm", "timeout_s": 4.0} | tool
    return tools.run(definition, arguments or {}, call=CALL, timeout=timeout, allowed=[f"127.0.0.1:{server.port}"])


def test_a_tool_gets_the_arguments_and_the_call_and_its_answer_is_one_line() -> None:
    with Server(reply(200, {"name": "Alex", "note": "two\nlines"})) as crm:
        answer = ask(crm, {"email": "alex@example.com"})
    assert answer == ToolAnswer(text='{"name":"Alex","note":"two\\nlines"}', problem="")
    (asked,) = crm.asked
    assert (asked.path, asked.json) == ("/crm", {"email": "alex@example.com", "call": CALL})
    assert asked.headers["Content-Type"] == "application/json"


def test_the_model_cannot_say_who_is_calling() -> None:
    with Server(reply(200, "ok")) as crm:
        ask(crm, {"call": {"from": "+15550100666"}})
    assert crm.asked[0].json["call"] == CALL


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'"plain\\r\\n  text\\u2028here"', "plain text here"),
        (b"", "done"),
        (b'""', "done"),
        (b"true", "true"),
        (b"[1, 2]", "[1,2]"),
        (b'"' + b"x" * 9000 + b'"', "x" * 4000),
    ],
)
def test_any_json_becomes_one_line_of_bounded_length(body: bytes, text: str) -> None:
    with Server(reply(200, body)) as crm:
        assert ask(crm) == ToolAnswer(text=text, problem="")


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (reply(404, {"error": "no such account"}), "The tool refused this (404). no such account"),
        (reply(500, b"<h1>Traceback</h1>"), "The tool failed (500)."),
        (reply(200, b"<h1>hello</h1>"), "The tool answered with something unreadable."),
        (reply(200, b"[" * 200 + b"]" * 200), "The tool answered with something unreadable."),
        (reply(200, b'"' + b"x" * 300_000 + b'"'), "The tool answered with too much."),
        (reply(302, headers={"Location": "http://169.254.169.254/latest/meta-data"}), "The tool failed (302)."),
        (drop, "The tool cannot be reached."),
    ],
)
def test_whatever_goes_wrong_is_a_sentence(act: Act, problem: str) -> None:
    with Server(act) as crm:
        assert ask(crm) == ToolAnswer(text="", problem=problem)
    assert len(crm.asked) == 1


@pytest.mark.parametrize("act", [hang, drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + b" " * 9000)], ids=["silent", "dripping"])
def test_a_slow_tool_is_given_up_in_time(act: Act) -> None:
    with Server(act) as crm:
        started = time.monotonic()
        assert ask(crm, timeout=0.4) == ToolAnswer(text="", problem="The tool did not answer in time.")
        assert ask(crm, timeout_s=0.2).problem == "The tool did not answer in time."
        assert time.monotonic() - started < 1.5


def test_too_much_to_say_is_not_sent() -> None:
    with Server(reply(200)) as crm:
        assert ask(crm, {"text": "x" * 70_000}).problem == "There was too much to look up at once."
    assert crm.asked == []


def test_a_log_line_names_the_tool_and_nothing_that_was_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Server(reply(200, {"secret": "canary-result"})) as crm:
        ask(crm, {"email": "canary@example.com"})
    (record,) = [record for record in caplog.records if record.name == "agents.tools"]
    assert record.getMessage() == "tool run"
    assert "canary" not in json.dumps(record.__dict__, default=str)
    assert "+1555" not in json.dumps(record.__dict__, default=str)


PRIVATE = [
    *("127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.0.1"),
    *("192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1"),
    *("fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1", "nonsense"),
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_everybodys_is_not_public(address: str) -> None:
    assert not addresses.is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert addresses.is_public(address)


def never_called(server: Server, url: str, addresses: list[str]) -> ToolAnswer:
    """Run a tool whose name leads to these addresses, with a listener on this machine that must stay untouched."""
    answer = tools.run({"name": "t", "url": url}, {}, call=CALL, timeout=1.0, allowed=[], look_up=lambda host, port: addresses)
    assert server.connections == 0
    return answer


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::ffff:127.0.0.1"], []])
def test_a_name_that_leads_inside_is_never_called(addresses: list[str]) -> None:
    with Server(reply(200)) as inside:
        assert never_called(inside, "https://crm.example.com/", addresses) == NO_ADDRESS


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0"],
)
def test_no_spelling_of_this_machine_is_called(host: str) -> None:
    with Server(reply(200)) as inside:
        answer = tools.run({"name": "t", "url": f"https://{host}:8443/"}, {}, call=CALL, timeout=1.0)
        assert inside.connections == 0
    assert answer in (NO_ADDRESS, ToolAnswer(text="", problem="The tool cannot be reached."))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "file:///etc/passwd", "https://crm.example.com:22/", "", "https://u:p@crm.example.com/"]
)
def test_an_address_that_is_not_plain_https_is_never_called(url: str) -> None:
    with Server(reply(200)) as inside:
        assert never_called(inside, url, ["1.1.1.1"]) == NO_ADDRESS


def test_a_name_that_changes_its_mind_is_looked_up_once() -> None:
    answers = iter([["127.0.0.1"], ["127.0.0.1"]])
    with Server(reply(200, "ok")) as crm:
        url = f"http://crm.test:{crm.port}/"
        allowed = [f"crm.test:{crm.port}"]
        said = tools.run({"name": "t", "url": url}, {}, call=CALL, timeout=1.0, allowed=allowed, look_up=lambda host, port: next(answers))
    assert said == ToolAnswer(text="ok", problem="")
    assert len(list(answers)) == 1
    assert crm.asked[0].headers["Host"] == f"crm.test:{crm.port}"


def test_only_the_listed_port_of_this_machine_is_open() -> None:
    with Server(reply(200)) as crm:
        other = [f"127.0.0.1:{crm.port + 1}"]
        assert tools.run({"name": "t", "url": crm.url}, {}, call=CALL, timeout=1.0, allowed=other) == NO_ADDRESS
        assert crm.connections == 0
