"""The little of Twilio's REST API that a bridge needs: look at a call, end it, send it elsewhere; fetch, stop or delete a recording.

It knows the `TwilioCall`s it was given by `take`, and nobody else. Shapes and codes are Twilio's; a status lags behind what was just asked
for, as there. On demand the next requests fail: see `fail_with`.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from bridge.sandbox.dial import Attempt
from bridge.sandbox.fields import ACCOUNTS, API_VERSION, rfc2822
from bridge.sandbox.seen import Recording
from bridge.sandbox.twilio import TwilioCall

LONGEST_TWIML = 4000
RETRY_LATER = 429
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
