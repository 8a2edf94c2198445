"""Twilio's REST side over real sockets: what is asked, and what each answer, or none, means."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from bridge.errors import TwilioError, TwilioRefused, TwilioUnavailable
from bridge.sandbox.script import Caller
from bridge.sandbox.twilio import TwilioCall
from bridge.sandbox.twilio_rest import TwilioRestSandbox
from bridge.twilio_rest import RETRY_AFTER_S, TwilioRest
from tests.bridge.http_server import Act, Handler, Server, drip, drop, hang, reply

REST = Path(__file__).parents[1] / "wire" / "twilio" / "rest"
ACCOUNT, TOKEN = "AC" + "1" * 32, "0123456789abcdef0123456789abcdef"
CALL, RECORDING = "CA" + "a" * 32, "RE" + "d" * 32
PATH = f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}.json"

VERBS: list[Callable[[TwilioRest], Any]] = [
    lambda twilio: twilio.status(CALL),
    lambda twilio: twilio.hang_up(CALL),
    lambda twilio: twilio.redirect(CALL, "https://h/resume"),
    lambda twilio: twilio.tell(CALL, "<Response/>"),
]


def wire(name: str) -> Act:
    sample = json.loads((REST / f"{name}.json").read_text())
    return reply(sample["status"], sample["body"])


def rest(server: Server, *, timeout_s: float = 5.0, pauses: list[float] | None = None) -> TwilioRest:
    return TwilioRest(server.url, ACCOUNT, TOKEN, timeout_s, pause=(pauses if pauses is not None else []).append)


# -- what is asked -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["in_progress", "completed"])
def test_how_a_call_is_doing(name: str) -> None:
    with Server(wire(f"call_{name}")) as server:
        assert rest(server).status(CALL) == name.replace("_", "-")
    (asked,) = server.asked
    assert asked.path == PATH
    assert asked.body == b""
    assert asked.headers["Authorization"] == "Basic " + base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()


def test_a_call_is_hung_up_and_sent_elsewhere_with_the_fields_twilio_reads() -> None:
    with Server(wire("call_completed")) as server:
        assert rest(server).hang_up(CALL)
        assert rest(server).redirect(CALL, "https://voice.example.com/resume/0?a=1&b=2")
        assert rest(server).tell(CALL, "<Response><Say>a &amp; b</Say></Response>")
    hung_up, redirected, told = server.asked
    assert (hung_up.path, redirected.path, told.path) == (PATH, PATH, PATH)
    assert parse_qs(hung_up.body.decode()) == {"Status": ["completed"]}
    assert parse_qs(redirected.body.decode()) == {"Url": ["https://voice.example.com/resume/0?a=1&b=2"], "Method": ["POST"]}
    assert parse_qs(told.body.decode()) == {"Twiml": ["<Response><Say>a &amp; b</Say></Response>"]}
    assert hung_up.headers["Content-Type"] == "application/x-www-form-urlencoded"


def test_the_configured_server_is_asked_whatever_region_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_REGION", "ie1")
    monkeypatch.setenv("TWILIO_EDGE", "dublin")
    with Server(wire("call_in_progress")) as server:
        assert rest(server).status(CALL) == "in-progress"


# -- what the answers mean ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["error_21220_not_in_progress", "error_20404_not_found"])
def test_a_call_that_is_over_is_an_answer_and_no_error(name: str) -> None:
    with Server(wire(name)) as server:
        twilio = rest(server)
        assert twilio.status(CALL) == ""
        assert twilio.hang_up(CALL) is False
        assert twilio.redirect(CALL, "https://h/resume") is False
    assert len(server.asked) == 3


@pytest.mark.parametrize("verb", VERBS)
def test_wrong_credentials_are_said_in_one_sentence_and_not_tried_again(verb: Callable[[TwilioRest], Any]) -> None:
    with (
        Server(wire("error_20003_auth")) as server,
        pytest.raises(TwilioRefused, match=r"^Twilio does not accept our account and token\.$"),
    ):
        verb(rest(server))
    assert len(server.asked) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_too_busy_is_tried_once_more_after_a_pause(verb: Callable[[TwilioRest], Any]) -> None:
    pauses: list[float] = []
    with Server(wire("error_20429_too_many"), wire("call_in_progress")) as server:
        assert verb(rest(server, pauses=pauses))
    assert (len(server.asked), pauses) == (2, [RETRY_AFTER_S])


def test_twice_too_busy_is_given_up() -> None:
    with Server(wire("error_20429_too_many")) as server, pytest.raises(TwilioUnavailable) as raised:
        rest(server).hang_up(CALL)
    assert (len(server.asked), raised.value.status) == (2, 429)


@pytest.mark.parametrize(
    ("act", "error", "status"),
    [
        (reply(500, b"<html>oops</html>"), TwilioUnavailable, 500),
        (reply(503, {"code": 20503, "message": "Service unavailable"}), TwilioUnavailable, 503),
        (reply(400, {"code": 21205, "message": "Url is not a valid URL: https://secret"}), TwilioRefused, 400),
        (reply(404, b"no such page"), TwilioRefused, 404),  # a wrong base URL must not look like a call that is over
        (reply(404, {"code": "20404"}), TwilioRefused, 404),
        (reply(418, {"type": "x", "title": "y", "status": "500", "code": {}}), TwilioRefused, 418),
        (reply(302, headers={"Location": "/elsewhere"}), TwilioRefused, 302),
        (reply(200, b"<html>a captive portal</html>"), TwilioUnavailable, 200),
        (reply(200, b"[" * 100_000), TwilioUnavailable, 200),
        (reply(200, b'{"status": "completed", "x": "' + b"x" * 300_000 + b'"}'), TwilioUnavailable, 200),
        (reply(200, [1, 2]), TwilioUnavailable, 200),
    ],
)
@pytest.mark.parametrize("verb", VERBS)
def test_every_other_answer_says_whether_trying_later_helps(
    verb: Callable[[TwilioRest], Any], act: Act, error: type[TwilioError], status: int
) -> None:
    with Server(act) as server, pytest.raises(TwilioError) as raised:
        verb(rest(server))
    assert (type(raised.value), raised.value.status) == (error, status)
    assert "secret" not in str(raised.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "body", [{}, {"status": None}, {"status": ["completed"]}, {"status": "gone"}, {"date_created": 5, "status": "completed"}]
)
def test_an_answer_that_names_no_state_is_not_taken_for_the_end_of_a_call(body: dict[str, Any]) -> None:
    with Server(reply(200, body)) as server, pytest.raises(TwilioUnavailable):
        rest(server).status(CALL)


@pytest.mark.parametrize("act", [hang, drop, drip(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b" " * 500)])
@pytest.mark.parametrize("verb", VERBS)
def test_no_answer_is_over_in_time(verb: Callable[[TwilioRest], Any], act: Act) -> None:
    with Server(act) as server:
        started = time.monotonic()
        with pytest.raises(TwilioUnavailable):
            verb(rest(server, timeout_s=0.2))
        assert time.monotonic() - started < 1.0


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with Server(drop) as server:
        url = server.url
    with pytest.raises(TwilioUnavailable, match=r"^Twilio cannot be reached\.$"):
        TwilioRest(url, ACCOUNT, TOKEN).status(CALL)


# -- recordings --------------------------------------------------------------------------------------------------------


def test_a_recording_comes_as_it_is_and_no_longer_than_wanted() -> None:
    with Server(reply(200, b"RIFF" + bytes(1000), headers={"Content-Type": "audio/x-wav"})) as server:
        assert rest(server).recording(RECORDING, 1004) == b"RIFF" + bytes(1000)
        with pytest.raises(TwilioRefused, match="too long"):
            rest(server).recording(RECORDING, 1003)
    assert server.asked[0].path == f"/2010-04-01/Accounts/{ACCOUNT}/Recordings/{RECORDING}.wav"
    assert server.asked[0].headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (wire("error_20404_not_found"), TwilioRefused),
        (wire("error_20429_too_many"), TwilioUnavailable),
        (reply(500), TwilioUnavailable),
        (reply(302, headers={"Location": "http://169.254.169.254/"}), TwilioRefused),
        (drop, TwilioUnavailable),
    ],
)
def test_a_recording_that_cannot_be_had_is_an_error_of_its_kind(act: Act, error: type[TwilioError]) -> None:
    with Server(act) as server, pytest.raises(error):
        rest(server).recording(RECORDING, 1000)


HOUR = 64 * 1024 * 1024


def test_a_recording_that_comes_slowly_is_had_as_long_as_it_comes() -> None:
    slowly = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nRIFF12345678")
    with Server(slowly) as server:
        started = time.monotonic()
        assert rest(server, timeout_s=1.0).recording(RECORDING, HOUR) == b"RIFF12345678"
        assert time.monotonic() - started > 2.0, "longer than any other answer may take"


def test_a_recording_that_stops_coming_or_comes_for_ever_is_given_up() -> None:
    def stops(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nRIFF")
        hang(handler)

    for act, most in ((stops, HOUR), (drip(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b" " * 500), 1000)):
        with Server(act) as server:
            started = time.monotonic()
            with pytest.raises(TwilioUnavailable, match="in time"):
                rest(server, timeout_s=0.3).recording(RECORDING, most)
            assert time.monotonic() - started < 3.0


# -- which calls there were --------------------------------------------------------------------------------------------

SINCE = datetime(2026, 11, 22, 10, tzinfo=UTC)


def listed(sid: str, **changes: Any) -> dict[str, Any]:
    """A caller's call in a list, begun after SINCE."""
    told = {"sid": sid, "direction": "inbound", "status": "completed", "start_time": "Sun, 22 Nov 2026 10:20:00 +0000", "duration": "7"}
    return told | changes


def page(*calls: Any, leads_on: bool = False) -> Act:
    return reply(200, {"calls": list(calls), "next_page_uri": "/2010-04-01/Accounts/next" if leads_on else None})


NOT_UNDERSTOOD = [
    pytest.param(page(listed("CA2", duration="a while")), id="a length that is no number"),
    pytest.param(page("CA2"), id="a record that is none"),
    pytest.param(page(listed("CA2"), 7), id="a number behind a record"),
    pytest.param(page(listed("CA2", start_time=5)), id="a time that is a number"),
    pytest.param(reply(200, {"calls": None}), id="no records"),
    pytest.param(reply(200, b"<html>"), id="no JSON"),
    pytest.param(reply(503), id="an error"),
]


def test_a_list_is_read_page_by_page_until_it_is_too_old() -> None:
    too_old = listed("CA4", start_time="Sun, 22 Nov 2026 09:59:00 +0000")
    pages = [page(listed("CA1"), listed("CA2", direction="outbound-api"), leads_on=True), page(listed("CA3"), too_old, leads_on=True)]
    with Server(*pages, reply(500)) as server:
        calls, is_whole = rest(server).calls_since(SINCE)
    assert ([(call.sid, call.seconds) for call in calls], is_whole) == ([("CA1", 7), ("CA3", 7)], True)
    assert len(server.asked) == 2


@pytest.mark.parametrize("second", NOT_UNDERSTOOD)
def test_a_later_page_that_nobody_understands_cuts_the_list_and_throws_nothing_away(second: Act) -> None:
    with Server(page(listed("CA1"), leads_on=True), second) as server:
        calls, is_whole = rest(server).calls_since(SINCE)
    assert ([call.sid for call in calls], is_whole) == (["CA1"], False)
    assert len(server.asked) == 2


@pytest.mark.parametrize("first", NOT_UNDERSTOOD)
def test_a_first_page_that_nobody_understands_is_twilios_problem(first: Act) -> None:
    with Server(first) as server, pytest.raises(TwilioUnavailable):
        rest(server).calls_since(SINCE)


# -- whose it is -------------------------------------------------------------------------------------------------------

SUB_ACCOUNT = "AC" + "2" * 32


def test_a_sub_accounts_call_is_asked_for_under_its_account_with_our_login() -> None:
    with Server(wire("call_in_progress")) as server:
        twilio = rest(server)
        twilio.status(CALL, SUB_ACCOUNT), twilio.hang_up(CALL, SUB_ACCOUNT), twilio.redirect(CALL, "https://h/", SUB_ACCOUNT)
        twilio.recording(RECORDING, HOUR, SUB_ACCOUNT)
    base = f"/2010-04-01/Accounts/{SUB_ACCOUNT}"
    assert [asked.path for asked in server.asked] == [f"{base}/Calls/{CALL}.json"] * 3 + [f"{base}/Recordings/{RECORDING}.wav"]
    ours = "Basic " + base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
    assert {asked.headers["Authorization"] for asked in server.asked} == {ours}


@pytest.mark.parametrize("account_sid", ["", "AC1", "../Accounts", SUB_ACCOUNT + "/..", "AC" + "２" * 32])
def test_what_is_no_account_means_our_own(account_sid: str) -> None:
    with Server(wire("call_in_progress")) as server:
        rest(server).status(CALL, account_sid)
    assert server.asked[0].path == PATH


# -- a stranger who speaks like Twilio ---------------------------------------------------------------------------------


def test_the_sandbox_and_we_understand_each_other() -> None:
    async def speak() -> None:
        async with TwilioRestSandbox(ACCOUNT, TOKEN) as stranger:
            call = stranger.take(TwilioCall(webhook_url="http://127.0.0.1:9/", auth_token=TOKEN, caller=Caller(())))
            twilio = TwilioRest(stranger.base_url, ACCOUNT, TOKEN, 0.5, pause=lambda _: None)
            assert await asyncio.to_thread(twilio.status, call.call_sid) == "ringing"
            assert await asyncio.to_thread(twilio.status, CALL) == ""
            assert await asyncio.to_thread(twilio.hang_up, CALL) is False
            assert await asyncio.to_thread(twilio.redirect, call.call_sid, "https://h/") is False  # not in progress yet
            stranger.fail_with(429)
            assert await asyncio.to_thread(twilio.status, call.call_sid) == "ringing"
            for status, slow_s in ((500, 0.0), (0, 2.0)):
                stranger.fail_with(status, slow_s=slow_s)
                with pytest.raises(TwilioUnavailable):
                    await asyncio.to_thread(twilio.status, call.call_sid)
            with pytest.raises(TwilioRefused, match="does not accept our account"):
                await asyncio.to_thread(TwilioRest(stranger.base_url, ACCOUNT, "wrong").hang_up, call.call_sid)

    asyncio.run(speak())


def test_the_first_request_of_a_process_loads_nothing_more_of_the_vendors_client() -> None:
    """It did for a second, and the one who waited was a caller on a dead stream."""
    asked = f"""
import sys
from bridge.errors import TwilioError
from bridge.twilio_rest import TwilioRest
twilio = TwilioRest("http://127.0.0.1:1", "{ACCOUNT}", "token")
before = set(sys.modules)
try:
    twilio.redirect("{CALL}", "https://h/resume")
except TwilioError:
    print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]"
