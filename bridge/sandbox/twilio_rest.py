"""The little of Twilio's REST API that a bridge needs: look at a call or list them, end one, send it elsewhere; fetch, stop or delete a
recording; see how a number is set up.

It knows the `TwilioCall`s it was given by `take`, the numbers in `numbers`, and nobody else. Shapes and codes are Twilio's; a status lags
behind what was just asked for, as there. On demand the next requests fail: see `fail_with`.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from bridge.sandbox.dial import Attempt
from bridge.sandbox.fields import ACCOUNTS, API_VERSION, day_of, rfc2822
from bridge.sandbox.seen import Recording
from bridge.sandbox.twilio import TwilioCall

LONGEST_TWIML = 4000
RETRY_LATER = 429
PAGE = 50
MESSAGES: Mapping[int, tuple[int, str]] = {
    20001: (400, "Url and Twiml exclude each other"),
    20003: (401, "Authenticate"),
    20404: (404, "The requested resource {path} was not found"),
    20429: (429, "Too Many Requests"),
    21220: (400, "Call is not in-progress. Cannot redirect."),
    32018: (400, "Twiml is longer than 4000 characters"),
}
FILE = re.compile(r"(?P<sid>RE[0-9a-fA-F]{32})(?P<suffix>\.wav|\.json)?")


@dataclass(frozen=True, slots=True)
class Failure:
    """How a request goes wrong: answered with `status` (0: as always) after `slow_s`, one byte every `drip_s`."""

    status: int = 0
    slow_s: float = 0.0
    drip_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and the HTTP status it got."""

    method: str
    path: str
    form: Mapping[str, str]
    answered: int


@dataclass(frozen=True, slots=True)
class Number:
    """A phone number of an account, as somebody set it up."""

    phone_number: str
    voice_url: str = ""
    voice_method: str = "POST"
    fallback_url: str = ""
    status_callback: str = ""
    status_method: str = "POST"
    application_sid: str = ""
    trunk_sid: str = ""
    account_sid: str = ""  # a sub-account's; empty: the account's own


class _Refused(Exception):
    """Not done; `code` is Twilio's."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class TwilioRestSandbox:
    """A server on a port of its own (0: any), for one account. `asked` is all it was asked, failures included.

    Calls taken may be those of sub-accounts: the account's own login opens them, under their own account only.
    """

    def __init__(self, account_sid: str, auth_token: str, *, port: int = 0) -> None:
        self.base_url = ""
        self.asked: list[Asked] = []
        self.calls: dict[str, TwilioCall] = {}
        self.numbers: list[Number] = []
        self.deleted: list[str] = []  # recordings nobody can have any more, by their sid
        self._account_sid = account_sid
        self._login = "Basic " + base64.b64encode(f"{account_sid}:{auth_token}".encode()).decode()
        self._port = port
        self._failures: deque[Failure] = deque()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> TwilioRestSandbox:
        app = web.Application(middlewares=[self._serve])
        account = ACCOUNTS + "/{account}"
        app.router.add_get(account + "/Calls/{sid}.json", self._look)
        app.router.add_post(account + "/Calls/{sid}.json", self._update)
        app.router.add_post(account + "/Calls/{sid}/Recordings/{recording}.json", self._stop_recording)
        app.router.add_get(account + "/Recordings/{file}", self._recording)
        app.router.add_get(account + "/IncomingPhoneNumbers.json", self._numbers)
        app.router.add_get(account + "/Calls.json", self._list)
        app.router.add_delete(account + "/Recordings/{file}", self._delete_recording)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def take(self, call: TwilioCall) -> TwilioCall:
        """A call of this account, from now on known; it stays known when it is over. Returns the call."""
        self.calls[call.call_sid] = call
        return call

    def fail_with(self, status: int = 0, *, slow_s: float = 0.0, drip_s: float = 0.0, times: int = 1) -> None:
        """Let the next `times` requests go wrong: 429 and 5xx are not processed, slow and dripping ones (status 0) are."""
        self._failures.extend([Failure(status, slow_s, drip_s)] * times)

    # ---- every request

    @web.middleware
    async def _serve(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        failure = self._failures.popleft() if self._failures else Failure()
        await asyncio.sleep(failure.slow_s)
        answer = _failed(failure.status, request) if failure.status else await self._answer(request, handler)
        self.asked.append(Asked(request.method, request.path, form, answer.status))
        return await _drip(request, answer, failure.drip_s) if failure.drip_s else answer

    async def _answer(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.Response:
        try:
            if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), self._login.encode()):
                raise _Refused(20003)
            answer = await handler(request)
        except _Refused as refused:
            return _error(refused.code, request)
        except web.HTTPException:  # no such path, or not with this method
            return _error(20404, request)
        assert isinstance(answer, web.Response)  # noqa: S101 - as every handler of this server
        return answer

    # ---- calls

    def _of_account(self, request: web.Request) -> dict[str, TwilioCall]:
        """The calls of the account in the address."""
        account = request.match_info["account"]
        return {sid: call for sid, call in self.calls.items() if call.account_sid == account}

    async def _look(self, request: web.Request) -> web.Response:
        sid, calls = request.match_info["sid"], self._of_account(request)
        if sid in calls:
            return web.json_response(call_resource(calls[sid]))
        for parent in calls.values():
            for attempt in parent.dials:
                if attempt.call_sid == sid:
                    return web.json_response(child_resource(parent, attempt))
        raise _Refused(20404)

    async def _update(self, request: web.Request) -> web.Response:
        call = self._of_account(request).get(request.match_info["sid"])
        if call is None:
            raise _Refused(20404)
        form = await request.post()
        status, url, twiml = (str(form.get(name, "")) for name in ("Status", "Url", "Twiml"))
        if call.over or (status != "completed" and call.status != "in-progress"):
            raise _Refused(21220)
        if url and twiml:
            raise _Refused(20001)
        if len(twiml) > LONGEST_TWIML:
            raise _Refused(32018)
        if status == "completed":
            call.end()
        elif url or twiml:
            call.turn(url, method=str(form.get("Method", "POST")), twiml=twiml)
        return web.json_response(call_resource(call))

    async def _list(self, request: web.Request) -> web.Response:
        """Newest first; `StartTime>` counts days, as Twilio promises no more."""
        since, status = request.query.get("StartTime>", "")[:10], request.query.get("Status", "")
        calls = sorted(self._of_account(request).values(), key=lambda call: -call.dialled_wall)
        found = [call_resource(call) for call in calls if status in ("", call.status) and day_of(call.dialled_wall) >= since]
        return _page(request, "calls", found)

    # ---- numbers

    async def _numbers(self, request: web.Request) -> web.Response:
        """`PhoneNumber` finds every number with these digits in it."""
        account, wanted = request.match_info["account"], request.query.get("PhoneNumber", "")
        ours = (number for number in self.numbers if (number.account_sid or self._account_sid) == account)
        found = [number_resource(number, account) for number in ours if wanted.lstrip("+") in number.phone_number]
        return _page(request, "incoming_phone_numbers", found)

    # ---- recordings

    async def _recording(self, request: web.Request) -> web.Response:
        call, recording, suffix = self._named(request)
        if suffix == ".json":
            return web.json_response(recording_resource(call, recording))
        return web.Response(body=recording.wav(), content_type="audio/x-wav")

    async def _delete_recording(self, request: web.Request) -> web.Response:
        """Gone for good; its sound, too."""
        _, recording, _ = self._named(request)
        self.deleted.append(recording.sid)
        return web.Response(status=204)

    async def _stop_recording(self, request: web.Request) -> web.Response:
        """`Twilio.CURRENT` is the one under way."""
        call, form = self._of_account(request).get(request.match_info["sid"]), await request.post()
        sid = request.match_info["recording"]
        if form.get("Status") != "stopped":
            raise _Refused(20001)
        stopped = None if call is None else call.stop_recording("" if sid == "Twilio.CURRENT" else sid)
        if call is None or stopped is None:
            raise _Refused(20404)
        return web.json_response({**recording_resource(call, stopped), "status": "stopped"})

    def _named(self, request: web.Request) -> tuple[TwilioCall, Recording, str]:
        """The recording of an address, with its call, and what stands behind its sid."""
        named = FILE.fullmatch(request.match_info["file"])
        for call in self._of_account(request).values() if named else ():
            for recording in call.recordings:
                if named and recording.sid == named["sid"] and not recording.silent and recording.sid not in self.deleted:
                    return call, recording, named["suffix"] or ""
        raise _Refused(20404)


def call_resource(call: TwilioCall) -> dict[str, Any]:
    """A call as the API shows it."""
    ended = None if call.ended_wall is None else rfc2822(call.ended_wall)
    return {
        **_resource(call, call.call_sid, call.from_number, call.to_number),
        "direction": "inbound",
        "duration": None if ended is None else str(call.duration_s),
        "end_time": ended,
        "parent_call_sid": None,
        "phone_number_sid": "PN" + "e" * 32,
        "status": call.status,
    }


def child_resource(parent: TwilioCall, attempt: Attempt) -> dict[str, Any]:
    """The same of a leg that was dialled."""
    over = "completed" in attempt.events
    ended = parent.dialled_wall + attempt.at - parent.phone.origin + attempt.duration_s
    return {
        **_resource(parent, attempt.call_sid, attempt.caller_id, attempt.number),
        "direction": "outbound-dial",
        "duration": str(attempt.duration_s) if over else None,
        "end_time": rfc2822(ended) if over else None,
        "parent_call_sid": parent.call_sid,
        "phone_number_sid": None,
        "status": attempt.status,
    }


def _resource(call: TwilioCall, sid: str, from_number: str, to_number: str) -> dict[str, Any]:
    began, path = rfc2822(call.dialled_wall), f"{ACCOUNTS}/{call.account_sid}/Calls/{sid}"
    return {
        "account_sid": call.account_sid,
        "annotation": None,
        "answered_by": None,
        "api_version": API_VERSION,
        "caller_name": None,
        "date_created": began,
        "date_updated": rfc2822(call.ended_wall or call.dialled_wall),
        "forwarded_from": None,
        "from": from_number,
        "from_formatted": _formatted(from_number),
        "group_sid": None,
        "price": None,
        "price_unit": "USD",
        "queue_time": "0",
        "sid": sid,
        "start_time": began,
        "subresource_uris": {"streams": f"{path}/Streams.json", "recordings": f"{path}/Recordings.json"},
        "to": to_number,
        "to_formatted": _formatted(to_number),
        "trunk_sid": None,
        "uri": f"{path}.json",
    }


def number_resource(number: Number, account_sid: str) -> dict[str, Any]:
    """A number as the API shows it."""
    sid = f"PN{zlib.crc32(number.phone_number.encode()):032x}"
    made = rfc2822(0.0)
    return {
        "account_sid": account_sid,
        "address_requirements": "none",
        "address_sid": None,
        "api_version": API_VERSION,
        "beta": False,
        "bundle_sid": None,
        "capabilities": {"voice": True, "sms": True, "mms": False, "fax": False},
        "date_created": made,
        "date_updated": made,
        "emergency_address_sid": None,
        "emergency_address_status": "unregistered",
        "emergency_status": "Inactive",
        "friendly_name": _formatted(number.phone_number),
        "identity_sid": None,
        "origin": "twilio",
        "phone_number": number.phone_number,
        "sid": sid,
        "sms_application_sid": "",
        "sms_fallback_method": "POST",
        "sms_fallback_url": "",
        "sms_method": "POST",
        "sms_url": "",
        "status": "in-use",
        "status_callback": number.status_callback,
        "status_callback_method": number.status_method,
        "trunk_sid": number.trunk_sid or None,
        "type": None,
        "uri": f"{ACCOUNTS}/{account_sid}/IncomingPhoneNumbers/{sid}.json",
        "voice_application_sid": number.application_sid,
        "voice_caller_id_lookup": False,
        "voice_fallback_method": "POST",
        "voice_fallback_url": number.fallback_url,
        "voice_method": number.voice_method,
        "voice_receive_mode": "voice",
        "voice_url": number.voice_url,
    }


def _page(request: web.Request, name: str, found: Sequence[Mapping[str, Any]]) -> web.Response:
    """One page of a list, with the address of the next one."""
    size, number = (int(request.query.get(key, default)) for key, default in (("PageSize", PAGE), ("Page", 0)))
    shown = found[number * size : (number + 1) * size]

    def address(page: int) -> str:
        return str(request.rel_url.update_query({"PageSize": str(size), "Page": str(page)}))

    is_last = (number + 1) * size >= len(found)
    body = {
        "end": number * size + max(0, len(shown) - 1),
        "first_page_uri": address(0),
        "next_page_uri": None if is_last else address(number + 1),
        "page": number,
        "page_size": size,
        "previous_page_uri": address(number - 1) if number else None,
        "start": number * size,
        "uri": str(request.rel_url),
        name: shown,
    }
    return web.json_response(body)


def recording_resource(call: TwilioCall, recording: Recording) -> dict[str, Any]:
    """A recording as the API shows it; without `.json` the same address is the sound."""
    path, began = f"{ACCOUNTS}/{call.account_sid}/Recordings/{recording.sid}", rfc2822(recording.wall)
    return {
        "account_sid": call.account_sid,
        "api_version": API_VERSION,
        "call_sid": call.call_sid,
        "channels": recording.channels,
        "conference_sid": None,
        "date_created": began,
        "date_updated": began,
        "duration": str(round(recording.seconds)),
        "encryption_details": None,
        "error_code": None,
        "media_url": f"https://api.twilio.com{path}",
        "price": None,
        "price_unit": "USD",
        "sid": recording.sid,
        "source": recording.source,
        "start_time": began,
        "status": "completed",
        "subresource_uris": {},
        "uri": f"{path}.json",
    }


def _formatted(number: str) -> str:
    """(415) 555-0100 for a number of North America, any other as it is."""
    return f"({number[2:5]}) {number[5:8]}-{number[8:]}" if re.fullmatch(r"\+1[0-9]{10}", number) else number


def _error(code: int, request: web.Request) -> web.Response:
    status, message = MESSAGES[code]
    more = f"https://www.twilio.com/docs/errors/{code}"
    return web.json_response(
        {"code": code, "message": message.format(path=request.path), "more_info": more, "status": status}, status=status
    )


def _failed(status: int, request: web.Request) -> web.Response:
    """What a failing API says: JSON while it still knows what it does, else whatever its load balancer says."""
    if status == RETRY_LATER:
        return _error(20429, request)
    return web.Response(status=status, text="<html><body>upstream is away</body></html>", content_type="text/html")


async def _drip(request: web.Request, answer: web.Response, drip_s: float) -> web.StreamResponse:
    """The same answer, byte by byte."""
    body = answer.body if isinstance(answer.body, bytes) else b""
    dripping = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type, "Content-Length": str(len(body))})
    await dripping.prepare(request)
    for byte in body:
        await dripping.write(bytes([byte]))
        await asyncio.sleep(drip_s)
    return dripping
