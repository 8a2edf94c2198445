"""A Vapi call without a control address is ended on its socket, against a real one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from bridge.errors import VapiRefused, VapiUnavailable
from bridge.vapi_ending import end_on_socket
from bridge.vapi_http import VapiClient
from tests.bridge.http_server import Server, hang, reply

KEY = {"Authorization": "Bearer key-1"}


class Heard:
    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.keys: list[str | None] = []
        self.done = threading.Event()


@contextmanager
def vapi_socket(*, chatter: int = 0, status: HTTPStatus | None = None) -> Iterator[tuple[str, Heard]]:
    """A socket of Vapi's that says `chatter` chunks of sound at once, or answers the handshake with `status`."""
    heard = Heard()

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        heard.keys.append(request.headers.get("Authorization"))
        return None if status is None else connection.respond(status, "no")

    def talk(connection: ServerConnection) -> None:
        talking = threading.Thread(target=chat, args=(connection,))
        talking.start()
        with suppress(ConnectionClosed):
            for message in connection:
                heard.messages.append(json.loads(message))
        talking.join(5)
        heard.done.set()

    def chat(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            for _ in range(chatter):
                connection.send(b"\xff" * 743)

    with serve(talk, "127.0.0.1", 0, process_request=answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/c/transport", heard
        finally:
            server.shutdown()
            thread.join(5)


@pytest.mark.parametrize("chatter", [0, 100], ids=["a silent agent", "an agent in the middle of a sentence"])
def test_the_end_is_said_on_the_socket_with_our_key(chatter: int) -> None:
    with vapi_socket(chatter=chatter) as (url, heard):
        VapiClient(base_url="http://127.0.0.1", api_key="key-1").end_by_socket(url)
        assert heard.done.wait(5)
    assert (heard.messages, heard.keys) == ([{"type": "end-call"}], ["Bearer key-1"])


@pytest.mark.parametrize("status", [404, 410])
def test_a_call_that_is_over_is_no_error(status: int) -> None:
    with vapi_socket(status=HTTPStatus(status)) as (url, _):
        end_on_socket(url, headers=KEY)


def test_a_refusal_is_final_and_a_failure_is_worth_another_try() -> None:
    with vapi_socket(status=HTTPStatus(403)) as (url, _), pytest.raises(VapiRefused):
        end_on_socket(url, headers=KEY)
    with vapi_socket(status=HTTPStatus(503)) as (url, _), pytest.raises(VapiUnavailable):
        end_on_socket(url, headers=KEY)


def test_a_redirect_is_not_followed_and_its_address_not_repeated() -> None:
    with vapi_socket() as (elsewhere, heard), Server(reply(302, headers={"Location": elsewhere})) as vapi:
        with pytest.raises(VapiUnavailable) as problem:
            end_on_socket(f"ws://127.0.0.1:{vapi.port}/c/transport", headers=KEY)
        assert heard.keys == []
    assert "transport" not in str(problem.value)


def test_a_silent_server_is_left_within_two_seconds() -> None:
    with Server(hang) as vapi:
        started = time.monotonic()
        with pytest.raises(VapiUnavailable):
            end_on_socket(f"ws://127.0.0.1:{vapi.port}/c/transport", headers=KEY)
        assert time.monotonic() - started < 2.5


@pytest.mark.parametrize("url", ["", "ws://attacker.test/transport", "http://127.0.0.1/transport"])
def test_the_key_is_never_shown_anywhere_else(url: str) -> None:
    with pytest.raises(VapiRefused):
        VapiClient(base_url="http://127.0.0.1", api_key="k").end_by_socket(url)
