"""Twilio's REST side: how is a call, end it, send it elsewhere, fetch, stop or delete a recording; what a number of ours does, which
calls there were. Each answers in time or says why not.

The vendor's client builds the requests and reads the answers; its own transport waits for ever by default and goes to
hosts of its own making, so ours carries them: to the configured server, within a deadline over all of it, bounded. A call
that is over or unknown (21220, 20404) is an answer and no error. Twilio's errors quote numbers and bodies, ours never do.
"""

from __future__ import annotations

import logging
import re
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

from twilio.base.exceptions import TwilioException
from twilio.http import HttpClient
from twilio.http.response import Response
from twilio.rest import Client

from bridge.deadline import Answer, Courier, NoAnswer
from bridge.errors import BadMessage, TwilioError, TwilioRefused, TwilioUnavailable
from bridge.untrusted import parse_untrusted

T = TypeVar("T")

ACCOUNT_SID = re.compile(r"AC[0-9a-fA-F]{32}", re.ASCII)
MAX_ANSWER_BYTES = 256 * 1024
RECORDING_BYTES_A_S = 1024 * 1024  # a recording that comes slower than this may be cut at its deadline
RETRY_AFTER_S = 0.5
LISTED_AT_ONCE = 50
MOST_PAGES = 20
LIST_CALLS_S = 20.0
ALREADY_OVER = (21220, 20404)  # not in progress; not known
WRONG_CREDENTIALS = 20003
UNDER_WAY = frozenset({"queued", "initiated", "ringing", "in-progress"})
OVER = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})


@dataclass(frozen=True, slots=True)
class NumberSettings:
    """Whom Twilio asks when a number is called. Addresses as somebody typed them, empty for none.

    `taken_by`: what answers instead of all of them, "a TwiML app" or "a SIP trunk"; empty: nothing does.
    """

    voice_url: str
    voice_method: str
    fallback_url: str
    status_callback: str
    status_method: str
    taken_by: str


@dataclass(frozen=True, slots=True)
class ListedCall:
    """A caller's call as a list shows it. `seconds` that they were connected, to us or to whoever answered instead."""

    sid: str
    account_sid: str
    from_number: str
    to_number: str
    status: str
    started_at: datetime
    seconds: int


class CallList(NamedTuple):
    """Newest first. Unless it `is_whole`, older ones are missing."""

    calls: list[ListedCall]
    is_whole: bool


class TwilioRest:
    """One account at Twilio, or at any server that speaks like it. Safe to share between threads.

    A sub-account's calls and recordings are known under that account only; our login opens them. So every method is given
    the `account_sid` that came with the call (anything else means our own). Each takes `timeout_s` seconds at most, twice
    that and half a second when Twilio was too busy the first time (429: nothing was done). Raises TwilioUnavailable or
    TwilioRefused.
    """

    def __init__(
        self,
        base_url: str,
        account_sid: str,
        auth_token: str,
        timeout_s: float = 5.0,
        *,
        courier: Courier | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._wire = _Wire(base_url, courier or Courier(), timeout_s)
        self._client = Client(account_sid, auth_token, http_client=self._wire)
        self._account, self._auth = account_sid, (account_sid, auth_token)
        self._pause = pause
        _ = self._client.api  # the vendor's client loads this when it is first used, for up to a second: not while a caller waits

    def status(self, call_sid: str, account_sid: str = "") -> str:
        """One of UNDER_WAY or OVER; empty when Twilio does not know the call (any more)."""
        call = self._carry_out(lambda: self._calls(account_sid)(call_sid).fetch())
        if call is None:
            return ""
        status = str(call.status)
        if status not in UNDER_WAY | OVER:
            raise TwilioUnavailable("Twilio's answer is not about a call.", status=200)
        return status

    def hang_up(self, call_sid: str, account_sid: str = "") -> bool:
        """End a call. False when it was over already."""
        return self._carry_out(lambda: self._calls(account_sid)(call_sid).update(status="completed")) is not None

    def redirect(self, call_sid: str, url: str, account_sid: str = "") -> bool:
        """Have Twilio ask `url` what is next, whatever it was doing with this call. False when the call is over."""
        return self._carry_out(lambda: self._calls(account_sid)(call_sid).update(url=url, method="POST")) is not None

    def tell(self, call_sid: str, twiml: str, account_sid: str = "") -> bool:
        """Have Twilio carry out this document at once, whatever it was doing with this call. False when the call is over."""
        return self._carry_out(lambda: self._calls(account_sid)(call_sid).update(twiml=twiml)) is not None

    def recording(self, sid: str, max_bytes: int, account_sid: str = "") -> bytes:
        """A recording as WAV. TwilioRefused when there is none, or it is longer than `max_bytes`.

        An hour of talk takes its time: `timeout_s` bounds each wait for more of it here, and the whole a rate that adds up.
        """
        path = f"/2010-04-01/Accounts/{self._known(account_sid)}/Recordings/{sid}.wav"
        headers = {"Accept": "audio/x-wav", **_basic(self._auth)}
        answer = self._wire.carry("GET", path, b"", headers, max_bytes, longer_s=max_bytes / RECORDING_BYTES_A_S)
        if answer.status == 429 or answer.status >= 500:
            raise TwilioUnavailable("Twilio cannot give the recording now.", status=answer.status)
        if answer.status != 200:
            raise TwilioRefused(f"Twilio refused the recording with {answer.status}.", status=answer.status)
        if not answer.whole:
            raise TwilioRefused("The recording is too long.", status=200)
        return answer.body

    def delete_recording(self, sid: str, account_sid: str = "") -> bool:
        """Erase a recording for good. False when Twilio does not have it (any more)."""
        account = self._client.api.v2010.accounts(self._known(account_sid))
        return self._carry_out(lambda: account.recordings(sid).delete()) is not None

    def stop_recording(self, call_sid: str, account_sid: str = "") -> bool:
        """Stop the recording that is being made of a call. False when none is."""
        current = self._calls(account_sid)(call_sid).recordings("Twilio.CURRENT")
        return self._carry_out(lambda: current.update(status="stopped")) is not None

    def number(self, phone_number: str, account_sid: str = "") -> NumberSettings | None:
        """How a number is set up. None when the account has no such number."""
        numbers = self._client.api.v2010.accounts(self._known(account_sid)).incoming_phone_numbers
        page = self._carry_out(lambda: list(numbers.page(phone_number=phone_number, page_size=LISTED_AT_ONCE)))
        found = next((each for each in page or [] if each.phone_number == phone_number), None)  # Twilio looks for parts of numbers
        return None if found is None else _settings_of(found)

    def calls_since(self, since: datetime, *, deadline_s: float = LIST_CALLS_S, clock: Callable[[], float] = time.monotonic) -> CallList:
        """Our own account's inbound calls begun at `since` or later, as many as come within `deadline_s`.

        Twilio promises to find calls by the day, so the rest is looked at here. Raises when there is no first page, or nobody can
        make sense of it; such a later one cuts the list.
        """
        until, day = clock() + deadline_s, since.astimezone(UTC).date().isoformat()
        found: dict[str, ListedCall] = {}
        is_whole = False
        ask: Callable[[], Any] = partial(self._calls("").page, start_time_after=day, page_size=LISTED_AT_ONCE)
        for pages in range(MOST_PAGES):
            try:
                page: Any = self._carry_out(ask)
                listed = _listed_since(since, page)
            except TwilioError:
                if pages == 0:
                    raise
                break
            for call in listed.calls:
                found.setdefault(call.sid, call)
            is_whole = listed.is_last
            if is_whole or clock() >= until:
                break
            ask = page.next_page
        return CallList(list(found.values()), is_whole)

    def close(self) -> None:
        self._wire.close()

    def _calls(self, account_sid: str) -> Any:
        return self._client.api.v2010.accounts(self._known(account_sid)).calls

    def _known(self, account_sid: str) -> str:
        return account_sid if ACCOUNT_SID.fullmatch(account_sid) else self._account

    def _carry_out(self, request: Callable[[], T]) -> T | None:
        """None: the call is over. Too busy is said before anything is done, so it is worth one more try."""
        try:
            return _understood(request)
        except TwilioUnavailable as problem:
            if problem.status != 429:
                raise
        self._pause(RETRY_AFTER_S)
        return _understood(request)


class _Listed(NamedTuple):
    """What one page of a list tells. `is_last`: what comes behind it began too early."""

    calls: list[ListedCall]
    is_last: bool


def _listed_since(since: datetime, page: Any) -> _Listed:
    """A page's inbound calls begun at `since` or later. None is a page too: the one behind the last."""
    return _understood(lambda: _read(list(page or []), since)) or _Listed([], True)


def _read(records: list[Any], since: datetime) -> _Listed:
    begun = [call for call in records if call.start_time is not None and call.start_time >= since]
    return _Listed([_listed(call) for call in begun if call.direction == "inbound"], not begun or begun[-1] is not records[-1])


def _listed(call: Any) -> ListedCall:
    return ListedCall(
        sid=str(call.sid),
        account_sid=str(call.account_sid or ""),
        from_number=str(call._from or ""),
        to_number=str(call.to or ""),
        status=str(call.status),
        started_at=call.start_time,
        seconds=int(call.duration or 0),
    )


def _settings_of(number: Any) -> NumberSettings:
    return NumberSettings(
        voice_url=str(number.voice_url or ""),
        voice_method=str(number.voice_method or "POST").upper(),
        fallback_url=str(number.voice_fallback_url or ""),
        status_callback=str(number.status_callback or ""),
        status_method=str(number.status_callback_method or "POST").upper(),
        taken_by="a SIP trunk" if number.trunk_sid else "a TwiML app" if number.voice_application_sid else "",
    )


def _understood(request: Callable[[], T]) -> T | None:
    try:
        return request()
    except _AlreadyOver:
        return None
    except (TypeError, ValueError, AttributeError, LookupError, TwilioException):  # the vendor's client takes any JSON for a call
        raise TwilioUnavailable("Twilio's answer is not about what was asked.", status=200) from None


class _AlreadyOver(Exception):
    """The call is not in progress, or not known."""


class _Wire(HttpClient):  # type: ignore[misc]
    """The vendor's client speaks through this: one server, one deadline, no redirect, no log of what is asked."""

    def __init__(self, base_url: str, courier: Courier, timeout_s: float) -> None:
        super().__init__(logging.getLogger(__name__), False, timeout_s)
        self._base_url, self._courier, self._within = base_url.rstrip("/"), courier, timeout_s

    def request(
        self,
        method: str,
        uri: str,
        params: Mapping[str, object] | None = None,
        data: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,
        allow_redirects: bool = False,
    ) -> Response:
        """What HttpClient asks of a transport. The host of `uri` is the vendor's guess; only what follows it counts."""
        asked = "&".join(filter(None, (urlsplit(uri).query, urlencode(params or {}, doseq=True))))
        path = urlsplit(uri).path + (f"?{asked}" if asked else "")
        body = urlencode(data or {}, doseq=True).encode()
        answer = self.carry(method, path, body, {**(headers or {}), **_basic(auth)}, MAX_ANSWER_BYTES)
        return Response(answer.status, _success(answer))

    def carry(self, method: str, path: str, body: bytes, headers: Mapping[str, str], max_bytes: int, *, longer_s: float = 0.0) -> Answer:
        bounds: dict[str, Any] = {"headers": headers, "within": self._within + longer_s, "max_bytes": max_bytes}
        try:
            if method == "GET":
                return self._courier.get(self._base_url + path, each_read=self._within, **bounds)
            if method == "DELETE":
                return self._courier.delete(self._base_url + path, **bounds)
            return self._courier.post(self._base_url + path, body=body, **bounds)
        except NoAnswer as nothing:
            raise TwilioUnavailable("Twilio did not answer in time." if nothing.late else "Twilio cannot be reached.") from None

    def close(self) -> None:
        self._courier.close()


def _success(answer: Answer) -> str:
    """The JSON of a good answer, safe to read for a parser without bounds. Any other is raised for what it means."""
    status, said = answer.status, _object(answer)
    if status == 204:
        return ""
    if 200 <= status < 300:
        if said is None:
            raise TwilioUnavailable("Twilio's answer is not sane JSON.", status=status)
        return answer.body.decode()
    code = (said or {}).get("code")
    if code in ALREADY_OVER:
        raise _AlreadyOver
    if status == 429:
        raise TwilioUnavailable("Twilio is too busy.", status=status)
    if status >= 500:
        raise TwilioUnavailable("Twilio failed.", status=status)
    if code == WRONG_CREDENTIALS or status in (401, 403):
        raise TwilioRefused("Twilio does not accept our account and token.", status=status)
    raise TwilioRefused(f"Twilio refused with {status}.", status=status)


def _object(answer: Answer) -> dict[str, Any] | None:
    try:
        value = parse_untrusted(answer.body, max_bytes=MAX_ANSWER_BYTES) if answer.whole else None
    except BadMessage:
        return None
    return value if isinstance(value, dict) else None


def _basic(auth: tuple[str, str] | None) -> dict[str, str]:
    if auth is None:
        return {}
    return {"Authorization": f"Basic {b64encode(':'.join(auth).encode()).decode()}"}
