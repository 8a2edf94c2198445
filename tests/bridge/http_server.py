"""A local HTTP server that answers as it is told, on a free port, in threads. It keeps what it was asked."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    path: str
    headers: dict[str, str]
    body: bytes
    method: str = "POST"

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Act = Callable[["Handler"], None]


def reply(status: int, body: Any = b"", *, headers: dict[str, str] | None = None, chunked: bool = False) -> Act:
    """Answer with these bytes, or with this value as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    def act(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        if chunked:
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n0\r\n\r\n")
        else:
            handler.send_header("Content-Length", str(len(raw)))
            handler.end_headers()
            handler.wfile.write(raw)

    return act


def hang(handler: Handler) -> None:
    """Say nothing until the server stops."""
    handler.server.stopping.wait(30)
    handler.close_connection = True


def drip(raw: bytes) -> Act:
    """A byte every 50 ms: no single wait is long."""

    def act(handler: Handler) -> None:
        handler.close_connection = True
        for byte in raw:
            if handler.server.stopping.wait(0.05):
                return
            try:
                handler.wfile.write(bytes([byte]))
            except OSError:
                handler.server.cut.set()
                return

    return act


def drop(handler: Handler) -> None:
    """Close without a word."""
    handler.close_connection = True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(Asked(self.path, dict(self.headers), body, self.command))
        acts = self.server.acts
        act = acts.pop(0) if len(acts) > 1 else acts[0]
        act(self)

    do_GET = do_DELETE = do_POST

    def log_message(self, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """With `tls`, each connection is wrapped in that, in its own thread."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *acts: Act, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self._tls = tls
        self.acts = list(acts)
        self.asked: list[Asked] = []
        self.connections = 0
        self.stopping, self.cut = threading.Event(), threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    def process_request(self, *args: Any) -> None:
        self.connections += 1
        super().process_request(*args)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self._tls is None:
            return super().finish_request(request, client_address)
        with self._tls.wrap_socket(request, server_side=True) as unwrapped:
            return super().finish_request(unwrapped, client_address)

    def handle_error(self, *args: Any) -> None:
        """A peer that went away is what some tests are about."""

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *args: Any) -> None:
        self.stopping.set()
        self.shutdown()
        socketserver.TCPServer.server_close(self)
