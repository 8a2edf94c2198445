"""Where a tool's address may never lead: every spelling of inside, a name that changes its mind, a redirect, a proxy.

A listener on this machine stands for everything inside. Its own port is let in for these tests, so that nothing but the
rules about hosts keeps us from it; a name that has to be looked up leads to it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from agents import addresses, tools
from agents.tools import ToolAnswer
from tests.bridge.http_server import Server, reply

NO_ADDRESS = ToolAnswer(text="", problem="This tool has no usable address.")
PUBLIC, METADATA = "93.184.216.34", "169.254.169.254"

HOSTS = [  # each is asked for on the listener's port
    *("127.0.0.1", "127.0.0.2", "127.1", "127.0.1", "0.0.0.0", "0", "localhost", "LOCALHOST", "localhost.", "a.localhost", "[::1]", "[::]"),
    *("2130706433", "0x7f000001", "0x7f.0.0.1", "0x7F.1", "017700000001", "0177.0.0.1", "0177.0.0.01", "127.0.0.1.", "127.000.000.001"),
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]"),
    *(
        "[2002:7f00:1::]",
        "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
        "[fe80::1]",
        "[fe80::1%25lo]",
        "[::1%25lo]",
        "[fc00::1]",
        "[fd00:ec2::254]",
    ),
    *(
        "[ff02::1]",
        "[2001:db8::1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        METADATA,
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
    ),
    *("10.0.0.1", "10.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1"),
    *(
        "240.0.0.1",
        "255.255.255.255",
        "metadata.google.internal",
        "metadata",
        "intranet",
        "crm.local",
        "printer.lan",
        "1.0.0.127.in-addr.arpa",
    ),
    *(
        "127。0。0。1",
        "127.0.0.1",
        "ⓛocalhost",
        "crm.exаmple.com",
        "xn--crm-5cd.example.com",
        "crm.example.com%00.evil.com",
        "crm.%65xample.com",
    ),
    *(
        "user@127.0.0.1",
        "user:pass@crm.example.com",
        "crm.example.com@127.0.0.1",
        "crm.example.com#@127.0.0.1",
        "crm.example.com\\@127.0.0.1",
    ),
    *(
        "[::1",
        "::1",
        "",
        ".",
        "..",
        "-crm.example.com",
        "crm_.-example.com",
        "a" * 64 + ".example.com",
        "crm.example.com\t",
        "crm .example.com",
    ),
    *(
        "127.0.0.1\r\nHost: x",
        "crm.example.com\x00",
        "crm.example.1",
        "crm.0x7f",
        "1.2.3.4.5",
        "999.1.1.1",
        "crm..example.com",
        "0x7f000001.0x1",
    ),
]
URLS = [  # each is asked for as it stands; {port} is the listener's
    *("http://crm.example.com/", "http://crm.example.com:443/", "http://127.0.0.1:{port}/", "ftp://crm.example.com/", "file:///etc/passwd"),
    *("gopher://127.0.0.1:{port}/_x", "javascript:alert(1)", "data:text/plain,x", "//127.0.0.1:{port}/", "/crm", "crm.example.com", ""),
    *("https://crm.example.com:22/", "https://crm.example.com:0/", "https://crm.example.com:65536/", "https://crm.example.com:-443/"),
    *(
        "https://crm.example.com:80/",
        "https://crm.example.com:8080/",
        "https:crm.example.com",
        "https:/127.0.0.1:{port}/",
        "https:///127.0.0.1/",
    ),
    *("https://crm.example.com:443:{port}/", "https://crm.example.com:４４３/", " https://crm.example.com/", "https://crm.example.com/ x"),
    *(
        "https://crm.example.com/\r\nX: y",
        "https://crm.example.com/ü",
        "https://crm.example.com/" + "x" * 600,
        "https://[crm.example.com]/",
    ),
    *("HTTP://127.0.0.1:{port}/", "https+unix://%2Fvar%2Frun%2Fdocker.sock/", "unix:///var/run/docker.sock", "https://\\\\127.0.0.1\\x"),
]


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The listener that nobody may reach."""
    with Server(reply(200, "reached")) as canary:
        monkeypatch.setattr(addresses, "PORTS", addresses.PORTS | {canary.port})
        monkeypatch.setattr(tools, "PORTS", addresses.PORTS)
        yield canary
        assert canary.connections == 0


class Dialled:
    """Every connection somebody wanted to open, by address; none is opened unless it is this machine's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[tuple[str, int]] = []
        monkeypatch.setattr(socket, "create_connection", self.connect)

    def connect(self, address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        self.addresses.append(address)
        raise ConnectionRefusedError


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> Dialled:
    return Dialled(monkeypatch)


def never_asked(host: str, port: int) -> list[str]:
    raise AssertionError("A name was looked up although its address should have been refused by its looks.")


def run(url: str, *, look_up: Any = never_asked, allowed: tuple[str, ...] = ()) -> ToolAnswer:
    call = {"call_sid": "CA1"}
    return tools.run({"name": "t", "url": url}, {}, call=call, timeout=1.0, look_up=look_up, allowed=allowed)


def test_the_table_is_long_enough_to_mean_something() -> None:
    assert len(set(HOSTS)) + len(set(URLS)) >= 60


@pytest.mark.parametrize("host", HOSTS)
def test_no_host_that_could_be_inside_is_looked_up_or_called(inside: Server, dialled: Dialled, host: str) -> None:
    assert run(f"https://{host}:{inside.port}/") == NO_ADDRESS
    assert dialled.addresses == []


@pytest.mark.parametrize("url", URLS)
def test_no_address_that_is_not_plain_https_is_looked_up_or_called(inside: Server, dialled: Dialled, url: str) -> None:
    assert run(url.replace("{port}", str(inside.port))) == NO_ADDRESS
    assert dialled.addresses == []


@pytest.mark.parametrize(
    "found",
    [
        ["127.0.0.1"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["::7f00:1"],
        ["fe80::1%lo"],
        [METADATA],
        ["nonsense"],
        [],
    ],
)
def test_a_name_that_leads_inside_is_never_called(inside: Server, dialled: Dialled, found: list[str]) -> None:
    assert run(f"https://crm.example.com:{inside.port}/", look_up=lambda host, port: found) == NO_ADDRESS
    assert dialled.addresses == []


def test_a_name_that_is_public_first_and_inside_second_is_called_where_it_was_checked(inside: Server, dialled: Dialled) -> None:
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    answer = run(f"https://crm.example.com:{inside.port}/", look_up=lambda host, port: next(answers))
    assert answer.problem == "The tool cannot be reached."
    assert dialled.addresses == [(PUBLIC, inside.port)]
    assert list(answers) == [["127.0.0.1"]]


def test_the_systems_own_look_up_is_not_asked_a_second_time(inside: Server, dialled: Dialled, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        asked.append(host)
        where = PUBLIC if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (where, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    run(f"https://crm.example.com:{inside.port}/", look_up=tools.look_up)
    assert (asked, dialled.addresses) == (["crm.example.com"], [(PUBLIC, inside.port)])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["http://{host}:{port}/latest/meta-data/", f"http://{METADATA}/latest/meta-data/", "//{host}:{port}/"])
def test_a_redirect_is_not_followed(inside: Server, status: int, where: str) -> None:
    location = where.format(host="127.0.0.1", port=inside.port)
    with Server(reply(status, headers={"Location": location})) as crm:
        answer = run(f"{crm.url}/", look_up=tools.look_up, allowed=(f"127.0.0.1:{crm.port}",))
        assert (answer.problem, len(crm.asked)) == (f"The tool failed ({status}).", 1)


def test_a_proxy_in_the_environment_is_not_obeyed(inside: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, inside.url)
    with Server(reply(200, "ok")) as crm:
        assert run(f"{crm.url}/", look_up=tools.look_up, allowed=(f"127.0.0.1:{crm.port}",)).text == "ok"


def test_an_address_let_in_by_name_and_port_lets_in_no_other(inside: Server, dialled: Dialled) -> None:
    allowed = (f"127.0.0.1:{inside.port + 1}", f"crm.test:{inside.port}")
    for host in ("127.0.0.1", "localhost", "[::1]", "127.1"):
        assert run(f"http://{host}:{inside.port}/", allowed=allowed) == NO_ADDRESS
    assert dialled.addresses == []


@pytest.mark.parametrize(
    "url",
    [
        *("https://crm.example.com/", "https://crm.example.com", "https://CRM.Example.com:443/a?b=c", "https://a.b-c.example.co:8443/x"),
        *("https://93.184.216.34/", "https://[2606:4700::1111]/", "https://_x.example.com/", "https://crm.example.com/%C3%BC?q=%20"),
    ],
)
def test_an_ordinary_address_is_called(dialled: Dialled, url: str) -> None:
    assert addresses.url_problem(url) is None
    assert run(url, look_up=lambda host, port: [PUBLIC]).problem == "The tool cannot be reached."
    assert [address for address, _ in dialled.addresses] == [PUBLIC]
