"""A courier's GET has the bounds of its POST: one deadline, a bounded body, no redirect, and it says whether it was sent."""

from __future__ import annotations

import time

import pytest

from bridge.deadline import Answer, Courier, Forbidden, NoAnswer
from tests.bridge.http_server import Act, Server, drip, drop, hang, reply


@pytest.fixture
def courier() -> Courier:
    return Courier(user_agent="test/1")


def test_a_get_brings_the_answer_and_sends_no_body(courier: Courier) -> None:
    with Server(reply(200, b"here")) as server:
        answer = courier.get(f"{server.url}/call?limit=1", headers={"Authorization": "Bearer k"}, within=2.0, max_bytes=10)
    [asked] = server.asked
    assert answer == Answer(200, b"here", whole=True)
    assert (asked.path, asked.body, asked.headers["Authorization"], asked.headers["User-Agent"]) == (
        "/call?limit=1",
        b"",
        "Bearer k",
        "test/1",
    )
    assert "Content-Type" not in asked.headers


def test_a_get_reads_no_more_than_wanted(courier: Courier) -> None:
    with Server(reply(200, b"x" * 5000)) as server:
        assert courier.get(server.url, headers={}, within=2.0, max_bytes=10) == Answer(200, b"x" * 10, whole=False)


@pytest.mark.parametrize("act", [hang, drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + b" " * 9000)], ids=["silent", "dripping"])
def test_a_get_is_over_at_its_deadline(courier: Courier, act: Act) -> None:
    started = time.monotonic()
    with Server(act) as server, pytest.raises(NoAnswer) as nothing:
        courier.get(server.url, headers={}, within=0.3, max_bytes=10_000)
    assert time.monotonic() - started < 2
    assert (nothing.value.late, nothing.value.sent) == (True, True)


def test_a_get_follows_no_redirect_and_says_when_nobody_answered(courier: Courier) -> None:
    with Server(reply(200)) as elsewhere:
        with Server(reply(302, headers={"Location": elsewhere.url})) as server:
            assert courier.get(server.url, headers={}, within=2.0, max_bytes=10).status == 302
        assert elsewhere.connections == 0
    with Server(drop) as server, pytest.raises(NoAnswer) as nothing:
        courier.get(server.url, headers={}, within=2.0, max_bytes=10)
    assert nothing.value.late is False


def test_a_get_asks_where_it_may_go() -> None:
    def no(host: str, port: int) -> str:
        raise Forbidden("no")

    with Server(reply(200)) as server, pytest.raises(Forbidden):
        Courier(user_agent="test", resolve=no).get(server.url, headers={}, within=2.0, max_bytes=10)
    assert server.connections == 0
