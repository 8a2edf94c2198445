"""Vapi's REST side against real sockets: deadlines, the one retry, answers nobody may trust, addresses nobody may follow."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.deadline import KEEP_ALIVE_S, USER_AGENT, Answer, Courier, Forbidden, NoAnswer
from bridge.errors import VapiError, VapiRefused, VapiUnavailable
from bridge.vapi_answers import MAX_CALL_BYTES, MAX_LIST_BYTES, Hosts, VapiCall
from bridge.vapi_http import VapiClient
from tests.bridge.certificates import self_signed
from tests.bridge.http_server import Server, drip, drop, hang, reply

A_BUSY_MACHINE_S = 2.0
CALL_ID = "019a9b1c-7f2e-7c33-9d41-2b6f0c5e8a77"


def created(**changes: Any) -> dict[str, Any]:
    return {
        "id": CALL_ID,
        "status": "queued",
        "subscriptionLimits": {"concurrencyBlocked": False},
        "monitor": {"controlUrl": f"http://127.0.0.1/{CALL_ID}/control"},
        "transport": {"provider": "vapi.websocket", "websocketCallUrl": f"ws://127.0.0.1/{CALL_ID}/transport"},
    } | changes


def client_of(server: Server) -> VapiClient:
    return VapiClient(base_url=server.url, api_key="key-1", jitter=lambda: 0.5)


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_call_is_created_with_our_key_and_name() -> None:
    with Server(reply(201, created())) as vapi:
        call = client_of(vapi).create_call({"name": "CA1.0"})
    assert call == VapiCall(CALL_ID, f"ws://127.0.0.1/{CALL_ID}/transport", f"http://127.0.0.1/{CALL_ID}/control")
    (asked,) = vapi.asked
    assert (asked.path, asked.json) == ("/call", {"name": "CA1.0"})
    assert asked.headers["Authorization"] == "Bearer key-1"
    assert asked.headers["User-Agent"] == USER_AGENT
    assert asked.headers["Content-Type"] == "application/json"


def test_a_call_is_erased_and_one_that_is_not_there_is_gone_already() -> None:
    with Server(reply(200, created()), reply(404, {"message": "Call does not exist."})) as vapi:
        assert client_of(vapi).delete_call(CALL_ID) is True
        assert client_of(vapi).delete_call(CALL_ID) is False
    assert [(asked.method, asked.path) for asked in vapi.asked] == [("DELETE", f"/call/{CALL_ID}")] * 2
    assert vapi.asked[0].headers["Authorization"] == "Bearer key-1"


@pytest.mark.parametrize("status", [503, 500, 429, 401])
def test_what_could_not_be_erased_is_no_success(status: int) -> None:
    with Server(reply(status, {"message": "no"})) as vapi, pytest.raises(VapiRefused if status == 401 else VapiUnavailable):
        client_of(vapi).delete_call(CALL_ID)


def test_a_chunked_answer_is_read_whole() -> None:
    with Server(reply(201, created(), chunked=True)) as vapi:
        assert client_of(vapi).create_call({}).id == CALL_ID


def test_the_addresses_of_a_call_are_never_printed() -> None:
    call = VapiCall(CALL_ID, "wss://secret-socket", "https://secret-control")
    assert "secret" not in repr(call)


@pytest.mark.parametrize("status", [429, 503])
def test_busy_is_tried_once_more_after_200_ms(status: int) -> None:
    pauses: list[float] = []
    with Server(reply(status), reply(201, created())) as vapi:
        assert client_of(vapi).create_call({}, pause=pauses.append).id == CALL_ID
    assert (len(vapi.asked), pauses) == (2, [0.2])


@pytest.mark.parametrize(("asked", "waited"), [("1", 1.0), ("0", 0.0), ("soon", 0.2), ("1e3", 0.2), ("-1", 0.2), ("", 0.2)])
def test_vapis_own_wish_of_a_moment_is_honoured_once(asked: str, waited: float) -> None:
    pauses: list[float] = []
    with Server(reply(429, headers={"Retry-After": asked}), reply(201, created())) as vapi:
        client_of(vapi).create_call({}, pause=pauses.append)
    assert (len(vapi.asked), pauses) == (2, [waited])


@pytest.mark.parametrize("asked", ["2", "9999", "999999999"])
def test_nobody_keeps_a_caller_waiting_for_longer(asked: str) -> None:
    with Server(reply(429, headers={"Retry-After": asked})) as vapi, pytest.raises(VapiUnavailable):
        client_of(vapi).create_call({})
    assert len(vapi.asked) == 1


def test_two_houses_refused_together_do_not_come_back_together() -> None:
    pauses: list[float] = []
    for draw in (0.0, 0.999):
        with Server(reply(503), reply(201, created())) as vapi:
            VapiClient(base_url=vapi.url, api_key="k", jitter=partial(float, draw)).create_call({}, pause=pauses.append)
    assert pauses == pytest.approx([0.15, 0.25], abs=0.001)


def test_busy_twice_is_given_up() -> None:
    with Server(reply(429)) as vapi, pytest.raises(VapiUnavailable) as problem:
        client_of(vapi).create_call({})
    assert (len(vapi.asked), problem.value.status, problem.value.sent) == (2, 429, False)


def test_a_refused_connection_is_tried_once_more_when_vapi_is_back() -> None:
    port, started = unused_port(), list[Server]()

    def come_back(_: float) -> None:
        started.append(Server(reply(201, created()), port=port).__enter__())

    client = VapiClient(base_url=f"http://127.0.0.1:{port}", api_key="k")
    assert client.create_call({}, pause=come_back).id == CALL_ID
    started[0].__exit__()


def test_a_refused_connection_is_known_not_to_have_been_sent() -> None:
    client = VapiClient(base_url=f"http://127.0.0.1:{unused_port()}", api_key="k")
    with pytest.raises(VapiUnavailable) as problem:
        client.create_call({}, pause=lambda _: None)
    assert problem.value.sent is False


def trusting(url: str, certificate: Path) -> VapiClient:
    """A client that would take this certificate, were it right."""
    courier = Courier()
    courier._session.verify = str(certificate)
    return VapiClient(base_url=url, api_key="k", courier=courier)


def test_a_vapi_with_a_certificate_that_is_vouched_for_is_spoken_to(tmp_path: Path) -> None:
    tls, certificate = self_signed(tmp_path)
    with Server(reply(201, {"id": CALL_ID}), tls=tls) as vapi:
        assert trusting(vapi.url, certificate).create_assistant({}) == CALL_ID


@pytest.mark.parametrize("wrong", [{"address": "127.0.0.2"}, {"until": timedelta(days=-1)}, None], ids=["another's", "expired", "unknown"])
def test_a_vapi_with_a_bad_certificate_hears_nothing_of_us(tmp_path: Path, wrong: dict[str, Any] | None) -> None:
    tls, certificate = self_signed(tmp_path, **(wrong or {}))
    with Server(reply(201, created()), tls=tls) as vapi:
        client = trusting(vapi.url, certificate) if wrong else client_of(vapi)
        with pytest.raises(VapiUnavailable) as problem:
            client.create_call({}, pause=lambda _: None)
    assert (vapi.asked, vapi.connections, problem.value.sent) == ([], 2, False)
    assert "127.0.0.1" not in str(problem.value)


def test_a_name_that_cannot_be_looked_up_is_a_vapi_that_was_sent_nothing() -> None:
    pauses: list[float] = []
    client = VapiClient(base_url="https://vapi.invalid", api_key="k", jitter=lambda: 0.5)
    started = time.monotonic()
    with pytest.raises(VapiUnavailable) as problem:
        client.create_call({}, deadline_s=2.0, pause=pauses.append)
    assert time.monotonic() - started < 2.0 + A_BUSY_MACHINE_S
    assert problem.value.sent is False
    assert pauses in ([0.2], [])  # none if the name servers themselves say nothing in time
    assert "invalid" not in str(problem.value)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_other_failures_may_have_created_a_call_and_are_not_repeated(status: int) -> None:
    with Server(reply(status)) as vapi, pytest.raises(VapiUnavailable) as problem:
        client_of(vapi).create_call({})
    assert (len(vapi.asked), problem.value.sent) == (1, True)


@pytest.mark.parametrize("status", [301, 302, 400, 401, 402, 403, 404, 409])
def test_a_refusal_is_final_and_its_body_is_not_repeated(status: int) -> None:
    body = b"error code: 1010, the caller said"
    with Server(reply(status, body, headers={"Location": "/elsewhere"})) as vapi, pytest.raises(VapiRefused) as problem:
        client_of(vapi).create_call({})
    assert (len(vapi.asked), problem.value.status) == (1, status)
    assert "caller" not in str(problem.value)


@pytest.mark.parametrize(
    "act", [hang, drip(b"HTTP/1.1 201 Created\r\n" + b"X-Slow: 1\r\n" * 100), drop], ids=["silent", "one byte at a time", "closed"]
)
def test_an_answer_that_does_not_come_is_never_asked_for_again(act: Any) -> None:
    with Server(act) as vapi:
        started = time.monotonic()
        with pytest.raises(VapiUnavailable) as problem:
            client_of(vapi).create_call({}, deadline_s=0.4)
        assert time.monotonic() - started < 1.0
    assert (len(vapi.asked), problem.value.sent) == (1, True)


def test_a_body_that_drips_is_over_at_the_deadline_and_its_connection_is_shut() -> None:
    with Server(drip(b"HTTP/1.1 201 Created\r\nContent-Length: 5000\r\n\r\n" + b" " * 5000)) as vapi:
        with pytest.raises(VapiUnavailable):
            client_of(vapi).create_call({}, deadline_s=1.5)
        assert vapi.cut.wait(5), "the server could write on after the deadline"


def test_the_retry_has_only_what_the_first_try_left() -> None:
    ticks = iter([0.0, 2.0])
    with Server(reply(503), hang) as vapi:
        started = time.monotonic()
        with pytest.raises(VapiUnavailable) as problem:
            client_of(vapi).create_call({}, deadline_s=2.6, pause=lambda _: None, clock=lambda: next(ticks))
        assert time.monotonic() - started < 1.5
    assert (len(vapi.asked), problem.value.sent) == (2, True)


def test_no_retry_starts_when_the_time_is_used_up() -> None:
    ticks = iter([0.0, 2.9])
    with Server(reply(503)) as vapi, pytest.raises(VapiUnavailable):
        client_of(vapi).create_call({}, pause=lambda _: None, clock=lambda: next(ticks))
    assert len(vapi.asked) == 1


MALFORMED: dict[str, Any] = {
    "empty": b"",
    "html": b"<!doctype html><title>hello</title>",
    "cut json": json.dumps(created()).encode()[:-3],
    "a list": [created()],
    "not utf-8": b'{"id": "\xff\xfe"}',
    "deep": b'{"id": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "too long": json.dumps(created(padding="x" * 300_000)).encode(),
    "no id": created(id=None),
    "an id that is a path": created(id="../../assistant"),
    "a batch": {"results": [created()], "errors": []},
    "no transport": created(transport=None),
    "transport is text": created(transport="vapi.websocket"),
    "no address": created(transport={"provider": "vapi.websocket"}),
    "address is a number": created(transport={"websocketCallUrl": 7}),
    "address without scheme": created(transport={"websocketCallUrl": "127.0.0.1/transport"}),
    "address over http": created(transport={"websocketCallUrl": "http://127.0.0.1/transport"}),
    "address on another host": created(transport={"websocketCallUrl": "ws://attacker.test/transport"}),
    "address with a user": created(transport={"websocketCallUrl": "ws://127.0.0.1@attacker.test/transport"}),
    "address with a backslash": created(transport={"websocketCallUrl": "ws://127.0.0.1\\@attacker.test/"}),
    "address with a fragment": created(transport={"websocketCallUrl": "ws://127.0.0.1/#@attacker.test"}),
    "address with a line break": created(transport={"websocketCallUrl": "ws://127.0.0.1/\r\nHost: attacker.test"}),
    "address too long": created(transport={"websocketCallUrl": "ws://127.0.0.1/" + "x" * 600}),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_answer_is_refused_once_and_not_repeated(kind: str) -> None:
    with Server(reply(201, MALFORMED[kind])) as vapi, pytest.raises(VapiRefused) as problem:
        client_of(vapi).create_call({})
    assert (len(vapi.asked), problem.value.status) == (1, 201)
    assert "attacker" not in str(problem.value)


def test_a_compressed_answer_nobody_asked_for_is_refused_and_not_unpacked() -> None:
    with Server(reply(201, b"\x1f\x8b" + b"\0" * 100, headers={"Content-Encoding": "gzip"})) as vapi, pytest.raises(VapiRefused):
        client_of(vapi).create_call({})
    assert vapi.asked[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("control", [None, 5, "https://attacker.test/control", "file:///etc/passwd"])
def test_a_control_address_we_may_not_use_is_left_out(control: Any) -> None:
    with Server(reply(201, created(monitor={"controlUrl": control}))) as vapi:
        assert client_of(vapi).create_call({}).control_url == ""


def test_a_parked_call_is_let_go_and_counts_as_unavailable() -> None:
    with Server(reply(201)) as vapi:
        vapi.acts[:] = [
            reply(201, created(subscriptionLimits={"concurrencyBlocked": True}, monitor={"controlUrl": f"{vapi.url}/c/control"})),
            reply(200, {}),
        ]
        with pytest.raises(VapiUnavailable) as problem:
            client_of(vapi).create_call({})
    assert [(asked.path, asked.json) for asked in vapi.asked[1:]] == [("/c/control", {"type": "end-call"})]
    assert problem.value.sent is True


@pytest.mark.parametrize("changes", [{"transport": None}, {"id": None}], ids=["no socket address", "no id"])
def test_a_call_we_cannot_talk_to_is_let_go_before_it_is_refused(changes: dict[str, Any]) -> None:
    with Server(reply(201)) as vapi:
        vapi.acts[:] = [reply(201, created(monitor={"controlUrl": f"{vapi.url}/c/control"}, **changes)), reply(500)]
        with pytest.raises(VapiRefused):
            client_of(vapi).create_call({})
    assert [(asked.path, asked.json) for asked in vapi.asked[1:]] == [("/c/control", {"type": "end-call"})]


def leads(url: str, *, base_url: str = "https://api.vapi.ai", socket_hosts: tuple[str, ...] = ()) -> bool:
    return Hosts(base_url, socket_hosts).socket(url) == url != ""


@pytest.mark.parametrize(
    ("url", "settings", "expected"),
    [
        ("wss://api.vapi.ai/x/transport", {}, True),
        ("wss://phone-call-websocket.aws-us-west-2-backend-production1.vapi.ai/x/transport", {}, True),
        ("wss://vapi.ai.attacker.test/x", {}, False),
        ("wss://notvapi.ai/x", {}, False),
        ("wss://API.VAPI.AI/x", {}, False),  # nobody writes it so; one spelling is easier to trust
        ("ws://api.vapi.ai/x", {}, False),
        ("wss://eu.voice.test/x", {"base_url": "https://voice.test"}, True),
        ("ws://voice.test:8088/x", {"base_url": "http://voice.test:9"}, True),
        ("wss://api.vapi.ai/x", {"socket_hosts": ("only.test",)}, False),
        ("wss://a.only.test/x", {"socket_hosts": ("*.only.test",)}, True),
        ("wss://only.test/x", {"socket_hosts": ("*.only.test",)}, False),
        ("ws://[::1]:8000/x", {"base_url": "http://[::1]:8000"}, True),
        ("wss://[::1]/x", {}, False),
    ],
)
def test_sockets_are_followed_to_vapi_only(url: str, settings: dict[str, Any], expected: bool) -> None:
    assert leads(url, **settings) is expected


@given(st.text(max_size=40), st.sampled_from(["wss://", "ws://", "https://", "wss:", ""]))
def test_no_text_leads_away_from_vapi(text: str, scheme: str) -> None:
    if leads(scheme + text):
        host = text.split("/")[0].split(":")[0]
        assert scheme == "wss://"
        assert host == "api.vapi.ai" or host.endswith(".vapi.ai")


SINCE = datetime(2026, 3, 1, 15, 47, 3, 120_999, tzinfo=timezone(timedelta(hours=1)))


def test_calls_are_listed_since_a_moment_and_what_is_no_call_is_left_out() -> None:
    bad = [7, {}, {"id": "../x"}, {"id": 5, "name": "CA1.0"}, None]
    good = created(name="CA1.0", status="in-progress")
    over = {"id": "x", "status": "ended", "name": 5, "monitor": {"controlUrl": "http://elsewhere.test/"}, "transport": 7}
    with Server(reply(200, [*bad, good, over])) as vapi:
        first, second = client_of(vapi).list_calls(since=SINCE)
    assert vapi.asked[0].path == "/call?createdAtGt=2026-03-01T14%3A47%3A03.120Z&limit=50"
    assert vapi.asked[0].headers["Authorization"] == "Bearer key-1"
    assert (first.id, first.name, first.is_over, bool(first.control_url), bool(first.socket_url)) == (CALL_ID, "CA1.0", False, True, True)
    assert (second.id, second.name, second.is_over, second.control_url, second.socket_url) == ("x", "", True, "", "")
    assert "127.0.0.1" not in repr(first)


def test_a_long_list_is_asked_for_page_by_page_and_every_call_is_listed_once() -> None:
    calls = [created(id=f"c{number}", createdAt=f"2026-03-01T14:50:{59 - number // 3:02}.000Z") for number in range(120)]
    with Server(reply(200, calls[:50]), reply(200, calls[48:98]), reply(200, calls[96:])) as vapi:
        assert [call.id for call in client_of(vapi).list_calls(since=SINCE)] == [call["id"] for call in calls]
    later = [asked.path.partition("&createdAtLe=")[2] for asked in vapi.asked]
    assert later == ["", "2026-03-01T14%3A50%3A43.000Z", "2026-03-01T14%3A50%3A27.000Z"]


NO_CALLS = [None, 7, {}, {"id": "../x", "createdAt": "2026-03-01T14:55:00.000Z"}, {"id": 5, "createdAt": "long ago"}]


@pytest.mark.parametrize("bad", NO_CALLS)
def test_what_is_no_call_does_not_end_a_long_list(bad: Any) -> None:
    calls = [created(id=f"c{number}", createdAt=f"2026-03-01T14:{59 - number // 10}:00.000Z") for number in range(70)]
    first = [*calls[:20], bad, *calls[20:49]]
    with Server(reply(200, first), reply(200, calls[45:])) as vapi:
        assert [call.id for call in client_of(vapi).list_calls(since=SINCE)] == [call["id"] for call in calls]
    assert vapi.asked[1].path.endswith("&createdAtLe=2026-03-01T14%3A55%3A00.000Z")


def test_a_page_without_any_call_is_passed_over_if_it_says_where_it_ends() -> None:
    calls = [{"id": 5, "createdAt": f"2026-03-01T14:50:{59 - number:02}.000Z"} for number in range(50)]
    with Server(reply(200, calls), reply(200, [created()])) as vapi:
        assert [call.id for call in client_of(vapi).list_calls(since=SINCE)] == [CALL_ID]
    with Server(reply(200, [None] * 50)) as vapi:
        assert client_of(vapi).list_calls(since=SINCE) == []
    assert len(vapi.asked) == 1


def pages(count: int) -> list[Any]:
    return [
        reply(200, [created(id=f"c{page}-{number}", createdAt=f"2026-03-01T14:{59 - page}:00.000Z") for number in range(50)])
        for page in range(count)
    ]


def test_a_list_without_an_end_is_over_when_its_time_is() -> None:
    clock = itertools.count(0.0, 4.0)
    with Server(*pages(40)) as vapi:
        found = client_of(vapi).list_calls(since=SINCE, deadline_s=30.0, clock=lambda: next(clock))
    assert len(vapi.asked) == 4, "the clock is looked at twice a page, and once before"
    assert len(found) == 4 * 50


@pytest.mark.parametrize("act", [reply(500), reply(200, b"{}"), drop], ids=["failed", "no list", "nothing"])
def test_what_was_listed_before_a_page_that_cannot_be_had_is_kept(act: Any) -> None:
    with Server(*pages(2), act) as vapi:
        assert len(client_of(vapi).list_calls(since=SINCE)) == 100
    assert len(vapi.asked) == 3


# -- one call --------------------------------------------------------------------------------------------------------------


def test_a_call_is_looked_at_by_its_id() -> None:
    over = created(status="ended", artifact={"messages": []})
    with Server(reply(200, over)) as vapi:
        assert client_of(vapi).call(CALL_ID) == over
    assert vapi.asked[0].path == f"/call/{CALL_ID}"
    assert vapi.asked[0].headers["Authorization"] == "Bearer key-1"


@pytest.mark.parametrize("call_id", ["../assistant", "a/b", "a?b=c", "a#b"])
def test_an_id_leads_nowhere_else(call_id: str) -> None:
    with Server(reply(404)) as vapi, pytest.raises(VapiRefused):
        client_of(vapi).call(call_id)
    assert vapi.asked[0].path.count("/") == 2
    assert not set("?#") & set(vapi.asked[0].path)


@pytest.mark.parametrize(
    ("act", "error", "status"),
    [
        (reply(404), VapiRefused, 404),
        (reply(401), VapiRefused, 401),
        (reply(200, b"<html>"), VapiRefused, 200),
        (reply(200, []), VapiRefused, 200),
        (reply(200, created(id="another")), VapiRefused, 200),
        (reply(200, created(status=5)), VapiRefused, 200),
        (reply(200, b'{"id": "' + b"x" * MAX_CALL_BYTES + b'"}'), VapiRefused, 200),
        (reply(429), VapiUnavailable, 429),
        (reply(500), VapiUnavailable, 500),
        (drop, VapiUnavailable, None),
    ],
)
def test_a_call_that_cannot_be_had_says_whether_trying_again_helps(act: Any, error: type[VapiError], status: int | None) -> None:
    with Server(act) as vapi, pytest.raises(VapiError) as problem:
        client_of(vapi).call(CALL_ID)
    assert (type(problem.value), problem.value.status) == (error, status)


@pytest.mark.parametrize("created_at", ["2026-03-01T14:50:00.000Z", "yesterday", 7, None])
def test_a_list_that_says_the_same_for_ever_comes_to_an_end(created_at: Any) -> None:
    calls = [created(id=f"c{number}", createdAt=created_at) for number in range(50)]
    with Server(reply(200, calls)) as vapi:
        assert len(client_of(vapi).list_calls(since=SINCE)) == 50
    assert len(vapi.asked) <= 2


@pytest.mark.parametrize("body", [b"", b"{}", b"[" * 1000, b'[{"id": "\xff"}]', b" " * (MAX_LIST_BYTES + 10)])
def test_a_list_nobody_can_read_is_refused(body: bytes) -> None:
    with Server(reply(200, body)) as vapi, pytest.raises(VapiRefused):
        client_of(vapi).list_calls(since=SINCE)


def test_a_list_that_does_not_come_is_unavailable() -> None:
    for act in (reply(429), reply(500), drop):
        with Server(act) as vapi, pytest.raises(VapiUnavailable):
            client_of(vapi).list_calls(since=SINCE)


def test_an_assistant_is_stored_and_its_id_returned() -> None:
    with Server(reply(201, {"id": "a-1"})) as vapi:
        assert client_of(vapi).create_assistant({"name": "Support"}) == "a-1"
    assert (vapi.asked[0].path, vapi.asked[0].json) == ("/assistant", {"name": "Support"})


def test_an_assistant_without_id_is_refused() -> None:
    with Server(reply(201, {})) as vapi, pytest.raises(VapiRefused):
        client_of(vapi).create_assistant({})


@pytest.mark.parametrize("status", [200, 201, 204, 404, 410])
def test_ending_a_call_succeeds_when_it_is_over(status: int) -> None:
    with Server(reply(status)) as vapi:
        client_of(vapi).end_call(f"{vapi.url}/x/control")
    assert vapi.asked[0].json == {"type": "end-call"}


def test_ending_a_call_says_when_it_did_not_work() -> None:
    with Server(reply(403)) as vapi, pytest.raises(VapiRefused):
        client_of(vapi).end_call(f"{vapi.url}/x/control")
    with Server(reply(503)) as vapi, pytest.raises(VapiUnavailable):
        client_of(vapi).end_call(f"{vapi.url}/x/control")


@pytest.mark.parametrize("url", ["", "https://attacker.test/control", "http://169.254.169.254/control"])
def test_an_end_is_never_posted_anywhere_else(url: str) -> None:
    with Server(reply(200)) as vapi, pytest.raises(VapiRefused):
        client_of(vapi).end_call(url)
    assert vapi.asked == []


def test_a_thread_per_call_shares_one_client() -> None:
    with Server(reply(201, created())) as vapi:
        client = client_of(vapi)
        results: list[str] = []
        threads = [threading.Thread(target=lambda: results.append(client.create_call({}).id)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [CALL_ID] * 20


def test_a_connection_is_reused_until_it_was_idle_for_too_long() -> None:
    clock = itertools.chain([0.0, 1.0, 2.0], itertools.repeat(3.0 + KEEP_ALIVE_S))
    courier = Courier(user_agent="test", clock=lambda: next(clock))
    with Server(reply(200)) as server:
        for _ in range(3):
            courier.post(server.url, body=b"{}", headers={}, within=2.0, max_bytes=10)
        assert server.connections == 2
    courier.close()


def test_a_proxy_in_the_environment_is_not_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port()}")
    with Server(reply(200, b"here")) as server:
        answer = Courier(user_agent="test").post(server.url, body=b"", headers={}, within=2.0, max_bytes=10)
    assert answer == Answer(200, b"here", whole=True)


def test_a_cookie_is_not_kept() -> None:
    courier = Courier(user_agent="test")
    with Server(reply(200, headers={"Set-Cookie": "id=1; Path=/"})) as server:
        for _ in range(2):
            courier.post(server.url, body=b"", headers={}, within=2.0, max_bytes=10)
    assert "Cookie" not in server.asked[1].headers
    courier.close()


def test_a_name_look_up_that_hangs_is_over_at_the_deadline_and_nothing_is_sent_afterwards() -> None:
    looked_up = threading.Event()

    def slowly(host: str, port: int) -> str:
        looked_up.wait(10)
        return "127.0.0.1"

    with Server(reply(200)) as server:
        courier = Courier(user_agent="test", resolve=slowly)
        with pytest.raises(NoAnswer) as nothing:
            courier.post(f"http://name.test:{server.port}/", body=b"", headers={}, within=0.2, max_bytes=10)
        looked_up.set()
        for thread in threading.enumerate():
            if thread.name == "courier":
                thread.join(5)
        assert server.asked == []
    assert (nothing.value.late, nothing.value.sent) == (True, False)


def test_the_connection_goes_where_the_look_up_said_and_the_host_header_keeps_the_name() -> None:
    with Server(reply(200)) as server:
        courier = Courier(user_agent="test", resolve=lambda host, port: "127.0.0.1")
        courier.post(f"http://name.test:{server.port}/", body=b"", headers={}, within=2.0, max_bytes=10)
    assert server.asked[0].headers["Host"] == f"name.test:{server.port}"
    courier.close()


def test_a_forbidden_address_is_not_called() -> None:
    def no(host: str, port: int) -> str:
        raise Forbidden("no")

    with Server(reply(200)) as server, pytest.raises(Forbidden):
        Courier(user_agent="test", resolve=no).post(server.url, body=b"", headers={}, within=2.0, max_bytes=10)
    assert server.asked == []


def test_tls_that_cannot_be_trusted_is_unavailable_and_nothing_was_sent() -> None:
    with Server(reply(201, created())) as vapi, pytest.raises(VapiError) as problem:
        VapiClient(base_url=f"https://127.0.0.1:{vapi.port}", api_key="k").create_call({}, deadline_s=1.5, pause=lambda _: None)
    assert isinstance(problem.value, VapiUnavailable)
    assert problem.value.sent is False
