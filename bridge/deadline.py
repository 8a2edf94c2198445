"""One HTTP request that is over when we say so.

`requests` bounds each wait on the socket, not the request: a name server that hangs, or a stranger who sends a byte a
second, outlives any of its time-outs. Here every request runs in a thread of its own; at the deadline the asker has his
answer and the socket is shut, so the thread ends too. `NoAnswer.sent` says whether the other side can have acted on it:
a request that had no connection at the deadline is never sent afterwards.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError

from bridge import waiting

USER_AGENT = "supportvoice/0.1"  # Vapi's edge refuses the default Python ones
KEEP_ALIVE_S = 15.0  # a connection idle for longer may be dead without our knowing; a POST on it would be lost
Resolve = Callable[[str, int], str]  # (host, port) -> the IP address to connect to; raises Forbidden


class Forbidden(Exception):
    """The address must not be called; the text is one plain sentence without the address."""


class NoAnswer(Exception):
    """`sent`: the other side may have acted on the request. `late`: the deadline passed, rather than something failing."""

    def __init__(self, *, sent: bool, late: bool) -> None:
        super().__init__("no answer in time" if late else "no answer")
        self.sent = sent
        self.late = late


@dataclass(frozen=True, slots=True)
class Answer:
    """`whole` is False when the body was longer than wanted and has been cut. `retry_after` is that header, "" without one."""

    status: int
    body: bytes = field(repr=False)
    whole: bool
    retry_after: str = ""


class _Errand:
    """The state that the asking and the working thread share."""

    def __init__(self, resolve: Resolve | None) -> None:
        self.resolve = resolve
        self.done = threading.Event()
        self.answer: Answer | None = None
        self.failure: Exception | None = None
        self.sent = False
        self._lock = threading.Lock()
        self._given_up = False
        self._socket: Any = None

    def connected(self, sock: Any) -> None:
        """About to send on `sock`. Raises ConnectionError when nobody waits any more."""
        with self._lock:
            if self._given_up:
                raise ConnectionAbortedError
            self._socket, self.sent = sock, True

    def give_up(self) -> None:
        with self._lock:
            self._given_up = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


class _Here(threading.local):
    errand: _Errand


_here = _Here()


class _Watched:
    """What both kinds of connection tell the errand of their thread. A reused connection never calls `connect`."""

    host: str
    port: int
    timeout: Any
    sock: Any

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        _here.errand.connected(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            _here.errand.connected(self.sock)
        super().request(*args, **kwargs)  # type: ignore[misc]

    def _new_conn(self) -> socket.socket:
        if _here.errand.resolve is None:
            return super()._new_conn()  # type: ignore[misc,no-any-return]
        address = _here.errand.resolve(self.host, self.port)  # Host header and TLS name stay those of the URL
        sock = socket.create_connection((address, self.port), self.timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock


class _HttpConnection(_Watched, HTTPConnection):
    pass


class _HttpsConnection(_Watched, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


class Courier:
    """Carries requests. Follows no redirect, obeys no proxy variable or netrc, keeps no cookie, decodes no compression."""

    def __init__(
        self, *, user_agent: str = USER_AGENT, resolve: Resolve | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._resolve = resolve
        self._clock = clock
        self._last_used = clock()
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update({"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "identity"})
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(max_retries=0))

    def post(self, url: str, *, body: bytes, headers: Mapping[str, str], within: float, max_bytes: int) -> Answer:
        """POST a JSON `body` and read at most `max_bytes` of the answer, `within` seconds in all, name look-up included.

        Raises NoAnswer, or Forbidden from `resolve`.
        """
        return self._carry("POST", url, body, {"Content-Type": "application/json", **headers}, within, max_bytes)

    def get(self, url: str, *, headers: Mapping[str, str], within: float, max_bytes: int, each_read: float | None = None) -> Answer:
        """GET, with the same bounds and errors as `post`. `each_read`: how long the other side may be silent, in seconds."""
        return self._carry("GET", url, None, headers, within, max_bytes, each_read)

    def delete(self, url: str, *, headers: Mapping[str, str], within: float, max_bytes: int) -> Answer:
        """DELETE, with the same bounds and errors as `post`."""
        return self._carry("DELETE", url, None, headers, within, max_bytes)

    def close(self) -> None:
        self._session.close()

    def _carry(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        within: float,
        max_bytes: int,
        each_read: float | None = None,
    ) -> Answer:
        now = self._clock()
        if now - self._last_used > KEEP_ALIVE_S:
            self._session.close()
        self._last_used = now
        errand = _Errand(self._resolve)
        work = (errand, method, url, body, headers, each_read or within, max_bytes)
        threading.Thread(target=self._run, args=work, daemon=True, name="courier").start()
        waiting.give_back()
        if not errand.done.wait(within):
            errand.give_up()
            raise NoAnswer(sent=errand.sent, late=True)
        if errand.failure is not None:
            raise errand.failure
        if errand.answer is None:
            raise NoAnswer(sent=errand.sent, late=False)
        return errand.answer

    def _run(
        self, errand: _Errand, method: str, url: str, body: bytes | None, headers: Mapping[str, str], each_read: float, max_bytes: int
    ) -> None:
        _here.errand = errand
        request: dict[str, Any] = {"data": body, "headers": headers, "timeout": each_read, "allow_redirects": False, "stream": True}
        try:
            with self._session.request(method, url, **request) as response:
                read = response.raw.read(max_bytes + 1, decode_content=False)
                asked = response.headers.get("Retry-After", "")
                errand.answer = Answer(response.status_code, read[:max_bytes], whole=len(read) <= max_bytes, retry_after=asked)
        except Forbidden as forbidden:
            errand.failure = forbidden
        except (requests.Timeout, ReadTimeoutError):
            errand.failure = NoAnswer(sent=errand.sent, late=True)
        except (requests.RequestException, HTTPError, OSError, ValueError, OverflowError):  # the last two: heads and chunks nobody can read
            errand.failure = NoAnswer(sent=errand.sent, late=False)
        finally:
            errand.done.set()
