"""How Twilio reaches a server: signed form posts and signed WebSocket upgrades, and what counts as no answer.

Signatures follow Twilio's security page. Bodies are read to 64 kB and one byte, redirects and retries are the caller's business, and a
media socket offers neither Origin nor subprotocol.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
import ssl
import struct
from asyncio.trsock import TransportSocket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit, urlunsplit

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI

from bridge.sandbox.media import Pipe, PipeClosed
from bridge.sandbox.twiml import MAX_DOCUMENT

FORM = "application/x-www-form-urlencoded; charset=UTF-8"
SETTINGS_HEADER = "X-Twilio-Webhooks-Signature-Settings"
SHARED_KEY = "webhooks_sharedkey_00000000000000000000000000"
ALGORITHMS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}
LINGER_0 = struct.pack("ii", 1, 0)  # close() then sends a reset
TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
ESTABLISHED = 1  # tcp_info's first byte
LOOK_S = 0.05


def signed_url(url: str) -> str:
    """The URL as Twilio signs it: no user, no fragment, no port over TLS; query and everything else verbatim."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if parts.port is not None and parts.scheme in ("https", "wss"):
        host = host.rpartition(":")[0]
    return urlunsplit(parts._replace(netloc=host, fragment=""))


def signature(token: str, url: str, params: Mapping[str, str], algorithm: str = "sha1") -> str:
    """Base64 HMAC over the URL and the sorted, joined parameters. `url` is signed as given."""
    data = url + "".join(name + params[name] for name in sorted(params))
    return base64.b64encode(hmac.new(token.encode(), data.encode(), ALGORITHMS[algorithm]).digest()).decode()


def signature_headers(token: str, url: str, params: Mapping[str, str], algorithm: str = "sha1") -> dict[str, str]:
    """What proves a request: the signature, and with a shared key (sha256) the settings that name it."""
    headers = {"X-Twilio-Signature": signature(token, signed_url(url), params, algorithm)}
    if algorithm == "sha256":
        headers[SETTINGS_HEADER] = f"key={SHARED_KEY},algorithm=HMAC_SHA256"
    return headers


class WebFailure(Exception):
    """No usable answer; `code` is Twilio's. `connecting`: no byte was sent, so Twilio tries once more."""

    def __init__(self, code: int, why: str, *, connecting: bool = False) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code
        self.why = why
        self.connecting = connecting


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content_type: str
    body: bytes
    location: str = ""


class Web(Protocol):
    """The network between Twilio and the server. URLs are public ones, already signed."""

    async def request(self, method: str, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """Raises WebFailure."""

    async def socket(self, url: str, headers: Mapping[str, str]) -> Pipe:
        """Raises WebFailure with a 319xx code."""

    async def close(self) -> None: ...


class Internet:
    """Real sockets. `tunnel` maps public origins ("https://voice.example.com") to where they really are ("http://127.0.0.1:8000")."""

    def __init__(self, *, tunnel: Mapping[str, str] | None = None, offer_compression: bool = False) -> None:
        self._tunnel = tunnel or {}
        self._compression = "deflate" if offer_compression else None
        self._session: aiohttp.ClientSession | None = None

    async def request(self, method: str, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        session = self._http()
        url = urlunsplit(urlsplit(url)._replace(fragment=""))
        body = urlencode(params).encode() if method == "POST" else None
        sent = {**headers, "Accept": "*/*", "Host": urlsplit(url).netloc.rpartition("@")[2]}
        if body is not None:
            sent["Content-Type"] = FORM
        try:
            async with session.request(method, self._real(url), data=body, headers=sent, allow_redirects=False) as response:
                content = b""
                while len(content) <= MAX_DOCUMENT and (chunk := await response.content.read(MAX_DOCUMENT + 1 - len(content))):
                    content += chunk
                return Answer(response.status, response.headers.get("Content-Type", ""), content, response.headers.get("Location", ""))
        except aiohttp.ClientConnectorError as error:
            raise WebFailure(11205, "cannot connect", connecting=True) from error
        except aiohttp.ClientError as error:
            raise WebFailure(11200, "no HTTP answer") from error

    async def socket(self, url: str, headers: Mapping[str, str]) -> Pipe:
        parts = urlsplit(url)
        elsewhere: dict[str, Any] = {}
        public = f"{'https' if parts.scheme == 'wss' else 'http'}://{parts.netloc}"
        if public in self._tunnel:
            real = urlsplit(self._tunnel[public])
            elsewhere = {"host": real.hostname, "port": real.port}
            parts = parts._replace(scheme="wss" if real.scheme == "https" else "ws")
        try:
            return SocketPipe(
                await connect(
                    urlunsplit(parts),
                    additional_headers=dict(headers),
                    user_agent_header="Twilio.TmeWs/1.0",
                    compression=self._compression,
                    open_timeout=10,
                    close_timeout=2,
                    ping_interval=None,
                    max_queue=1024,
                    proxy=None,
                    **elsewhere,
                )
            )
        except InvalidStatus as error:
            raise WebFailure(31920, f"handshake answered with {error.response.status_code}") from error
        except TimeoutError as error:
            raise WebFailure(31901, "no answer to the upgrade") from error
        except ssl.SSLError as error:
            raise WebFailure(31910, "TLS") from error
        except (InvalidHandshake, InvalidMessage, InvalidURI) as error:
            raise WebFailure(31920, "handshake") from error
        except (OSError, EOFError) as error:
            raise WebFailure(31902, "connection refused") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:  # cookies are kept for the call, as a browser would
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.CookieJar(unsafe=True),
                headers={"User-Agent": "TwilioProxy/1.1"},
                timeout=aiohttp.ClientTimeout(15, sock_connect=5),
            )
        return self._session

    def _real(self, url: str) -> str:
        parts = urlsplit(url)
        real = self._tunnel.get(f"{parts.scheme}://{parts.netloc}")
        return real + urlunsplit(("", "", parts.path, parts.query, "")) if real else url


class SocketPipe:
    """A media stream over a WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.extensions = socket.response.headers.get("Sec-WebSocket-Extensions", "") if socket.response else ""

    @property
    def port(self) -> int:
        """The one it was opened from; by it an outsider finds the process that carries the call."""
        return int(self._socket.local_address[1])

    async def send(self, text: str) -> None:
        try:
            await self._socket.send(text)
        except ConnectionClosed as closed:
            raise _closed(closed) from closed

    async def receive(self) -> str | bytes:
        try:
            return await self._socket.recv()
        except ConnectionClosed as closed:
            raise _closed(closed) from closed

    async def close(self) -> None:
        await self._socket.close()

    def abort(self) -> None:
        raw = self._raw()
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        self._socket.transport.abort()

    def pause(self) -> None:
        if not self._socket.transport.is_closing():
            self._socket.transport.pause_reading()

    def resume(self) -> None:
        if not self._socket.transport.is_closing():
            self._socket.transport.resume_reading()

    async def gone(self) -> None:
        raw = self._raw()
        while raw is not None and raw.fileno() >= 0 and _connected(raw):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)  # the kernel tells only when asked

    def _raw(self) -> TransportSocket | None:
        raw: TransportSocket | None = self._socket.transport.get_extra_info("socket")
        return raw


def _connected(raw: TransportSocket) -> bool:
    """Whether the kernel has heard nothing of an end from the other side. Where it cannot be asked (not Linux), it has not."""
    return TCP_INFO is None or raw.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 1)[0] == ESTABLISHED


def _closed(error: ConnectionClosed) -> PipeClosed:
    return PipeClosed(error.rcvd.code if error.rcvd is not None else 1006)
