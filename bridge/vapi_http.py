"""Vapi's REST side: create calls and assistants, end calls, look at them. It answers in time or says whether a call may exist anyway.

`POST /call` has no idempotency key, so it is tried a second time only when it is certain that
the first try created nothing (no connection, 429, 503), never after a read time-out. `vapi_answers` reads what comes back.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from bridge import vapi_answers
from bridge.deadline import USER_AGENT, Answer, Courier, NoAnswer
from bridge.errors import VapiError, VapiRefused, VapiUnavailable
from bridge.vapi_answers import MAX_ANSWER_BYTES, MAX_CALL_BYTES, MAX_LIST_BYTES, Hosts, ListedCall, Page, VapiCall
from bridge.vapi_ending import end_on_socket

CREATE_CALL_S = 3.0  # while a caller waits, retry included
NOBODY_WAITS_S = 10.0
LET_GO_S = 0.5
RETRY_AFTER_S = 0.2
JITTER_S = 0.05
LONGEST_RETRY_AFTER_S = 1.0  # whoever wants us to wait longer is not asked again while a caller waits
LIST_CALLS_S = 30.0  # all pages; whoever asks has a minute, and ends what he finds in it
LISTED_AT_ONCE = 50
MOST_PAGES = 40
CREATED_NOTHING = {429, 503}


class VapiClient:
    """One account at Vapi, or at any server that speaks like it. Safe to share between threads. `socket_hosts`: see `Hosts`."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        socket_hosts: Iterable[str] = (),
        courier: Courier | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`jitter` is a draw from [0, 1): two houses that were refused together do not come back together."""
        self._base_url = base_url.rstrip("/")
        self._hosts = Hosts(base_url, socket_hosts)
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._courier = courier or Courier()
        self._jitter = jitter

    def create_call(
        self,
        request: Mapping[str, Any],
        *,
        deadline_s: float = CREATE_CALL_S,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> VapiCall:
        """Create a call over the WebSocket transport within `deadline_s` seconds in all.

        Raises VapiUnavailable (`sent`: a call may exist all the same) or VapiRefused.
        """
        until = clock() + deadline_s
        try:
            return self._read_call(self._post("/call", request, within=deadline_s))
        except VapiUnavailable as first:
            wait = self._wait(first)
            left = until - clock() - wait
            if first.sent or wait > LONGEST_RETRY_AFTER_S or left <= 0:
                raise
            pause(wait)
        return self._read_call(self._post("/call", request, within=left))

    def call(self, call_id: str, *, deadline_s: float = NOBODY_WAITS_S) -> dict[str, Any]:
        """A call as Vapi has it, with all that was said once it is over. Raises VapiUnavailable, or VapiRefused (404: not known)."""
        answer = self._get(f"/call/{quote(call_id, safe='')}", within=deadline_s, max_bytes=MAX_CALL_BYTES)
        return vapi_answers.found(answer, call_id)

    def list_calls(
        self, *, since: datetime, deadline_s: float = LIST_CALLS_S, clock: Callable[[], float] = time.monotonic
    ) -> list[ListedCall]:
        """The account's calls created after `since`, newest first as the vendor has them, as many as come within `deadline_s`.

        A call that is over is listed with all that was said, so they are asked for a few at a time. Raises VapiUnavailable or
        VapiRefused when there is no first page; a later one that cannot be had ends the list.
        """
        until = clock() + deadline_s
        after = since.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        found: dict[str, ListedCall] = {}
        asked = {"createdAtGt": after, "limit": str(LISTED_AT_ONCE)}
        for number in range(MOST_PAGES):
            try:
                page = self._listed(asked, within=min(until - clock(), NOBODY_WAITS_S))
            except VapiError:
                if number == 0:
                    raise
                break
            found |= {call.id: call for call in page.calls if call.id not in found}
            is_last = page.size < LISTED_AT_ONCE or page.oldest in ("", asked.get("createdAtLe"))
            if is_last or clock() >= until:
                break
            asked["createdAtLe"] = page.oldest  # and not Lt: several may have been created in that millisecond
        return list(found.values())

    def create_assistant(self, assistant: Mapping[str, Any], *, deadline_s: float = NOBODY_WAITS_S) -> str:
        """Store an assistant and return its id. Raises VapiUnavailable or VapiRefused."""
        return vapi_answers.identifier(vapi_answers.an_object(self._post("/assistant", assistant, within=deadline_s)))

    def end_call(self, control_url: str, *, deadline_s: float = NOBODY_WAITS_S) -> None:
        """End a running call; ending one that is over or unknown is no error. Raises VapiUnavailable or VapiRefused."""
        if not self._hosts.control(control_url):
            raise VapiRefused("The control address does not lead to Vapi.")
        try:
            self._post(control_url, {"type": "end-call"}, within=deadline_s)
        except VapiRefused as refused:
            if refused.status not in (404, 410):
                raise

    def end_by_socket(self, socket_url: str) -> None:
        """End a running call that has no control address, within 2 s. Errors are those of `end_call`."""
        if not self._hosts.socket(socket_url):
            raise VapiRefused("The socket address does not lead to Vapi.")
        end_on_socket(socket_url, headers=self._headers | {"User-Agent": USER_AGENT})

    def delete_call(self, call_id: str, *, deadline_s: float = NOBODY_WAITS_S) -> bool:
        """Erase what Vapi keeps of a call; a running one goes on. False when it has nothing (any more).

        Raises VapiUnavailable, also when its recordings could not be erased yet, or VapiRefused.
        """
        url = f"{self._base_url}/call/{quote(call_id, safe='')}"
        try:
            _success(self._carried(lambda: self._courier.delete(url, headers=self._headers, within=deadline_s, max_bytes=MAX_CALL_BYTES)))
        except VapiRefused as refused:
            if refused.status != 404:
                raise
            return False
        return True

    def close(self) -> None:
        self._courier.close()

    def _wait(self, refusal: VapiUnavailable) -> float:
        """Before a second try: as long as Vapi asks for, else a moment."""
        asked = refusal.retry_after_s
        return RETRY_AFTER_S + JITTER_S * (2 * self._jitter() - 1) if asked is None else asked

    def _post(self, where: str, body: Mapping[str, Any], *, within: float) -> bytes:
        url = self._base_url + where if where.startswith("/") else where
        raw = orjson.dumps(body)
        return _success(
            self._carried(lambda: self._courier.post(url, body=raw, headers=self._headers, within=within, max_bytes=MAX_ANSWER_BYTES))
        )

    def _listed(self, asked: Mapping[str, str], *, within: float) -> Page:
        answer = self._get(f"/call?{urlencode(asked)}", within=within, max_bytes=MAX_LIST_BYTES)
        return vapi_answers.listed(answer, self._hosts)

    def _get(self, where: str, *, within: float, max_bytes: int) -> bytes:
        url = self._base_url + where
        return _success(self._carried(lambda: self._courier.get(url, headers=self._headers, within=within, max_bytes=max_bytes)))

    def _carried(self, errand: Callable[[], Answer]) -> Answer:
        try:
            return errand()
        except NoAnswer as nothing:
            sentence = "Vapi did not answer in time." if nothing.late else "Vapi cannot be reached."
            raise VapiUnavailable(sentence, sent=nothing.sent) from None

    def _read_call(self, body: bytes) -> VapiCall:
        answer = vapi_answers.an_object(body)
        try:
            call = vapi_answers.created(answer, self._hosts)
            if vapi_answers.is_blocked(answer):
                raise VapiUnavailable("Vapi's line limit is reached.", status=201, sent=True, limit="lines")
        except VapiError:
            with contextlib.suppress(VapiError):  # it runs at Vapi all the same, or keeps a line busy
                self.end_call(vapi_answers.control_url(answer, self._hosts), deadline_s=LET_GO_S)
            raise
        return call


def _success(answer: Answer) -> bytes:
    status = answer.status
    if status in CREATED_NOTHING:
        sentence = "Vapi is too busy." if status == 429 else "Vapi is out of service."
        raise VapiUnavailable(sentence, status=status, retry_after_s=_seconds(answer.retry_after))
    if status >= 500:
        raise VapiUnavailable("Vapi failed.", status=status, sent=True)
    if not 200 <= status < 300:
        raise VapiRefused(f"Vapi refused with {status}.", status=status, limit=vapi_answers.limit(status, answer.body))
    if not answer.whole:
        raise VapiRefused("Vapi's answer is too long.", status=status)
    return answer.body


def _seconds(retry_after: str) -> float | None:
    """A Retry-After header in seconds; None without one or with one nobody can read (a date is as good as none here)."""
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 10 else None
