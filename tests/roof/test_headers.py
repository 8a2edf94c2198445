"""What the whole house, as every server runs it, says to a browser, and which browser's sockets it lets in."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.models import User
from django.test import Client

from supportvoice import asgi
from supportvoice.limits import behind_tls

YEAR = 365 * 24 * 3600
PAGES = [
    *("/", "/login/", "/login/code/", "/second-factor/", "/calls/", "/nothing/here/", "/static/console/console.css", "/webhook/vapi"),
    *("/admin/", "/admin/login/", "/admin/agents/tool/"),
]
PROMISED = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Strict-Transport-Security": f"max-age={YEAR}; includeSubDomains",
}


@pytest.mark.django_db
@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("logged_in", [True, False])
def test_every_answer_has_every_header(client: Client, settings: Any, path: str, logged_in: bool) -> None:
    settings.SECURE_HSTS_SECONDS = YEAR  # as with DEBUG=0 and an https PUBLIC_URL
    if logged_in:
        client.force_login(User.objects.create_superuser("ann"))
    answer = Client().get(path, secure=True) if not logged_in else client.get(path, secure=True)
    assert {name: answer.headers.get(name) for name in PROMISED} == PROMISED
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "microphone=()" in answer.headers["Permissions-Policy"]


async def test_behind_tls_every_request_came_by_tls() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["scheme"])

    await behind_tls(app)({"type": "http", "scheme": "http"}, None, None)  # type: ignore[arg-type]
    assert seen == ["https"]


def socket(path: str, origins: list[bytes], *, extension: bool) -> Any:
    """A handshake as `serve` passes it on, or as daphne does (which cannot answer it with a sentence)."""
    scope = {
        "type": "websocket",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "subprotocols": [],
        "headers": [(b"host", b"localhost:8000"), *((b"origin", origin) for origin in origins)],
        "extensions": {"websocket.http.response": {}} if extension else {},
    }
    communicator: Any = ApplicationCommunicator
    return communicator(asgi.application, scope)


ORIGINS = (b"https://evil.example", b"null", b"", b"http://localhost:8000", b"https://api.twilio.com")


@pytest.mark.parametrize("extension", [True, False], ids=["serve", "daphne"])
@pytest.mark.parametrize("origin", ORIGINS)
async def test_the_media_door_is_for_no_web_page_not_even_ours(origin: bytes, extension: bool) -> None:
    door = socket("/webhook/twilio/media", [origin], extension=extension)
    await door.send_input({"type": "websocket.connect"})
    refused = await door.receive_output(5)
    assert refused.get("status", refused.get("code")) == (403 if extension else 1008)
    await door.wait()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("origins", [[], [b""], [b"null"], [b"https://evil.example"], [b"http://localhost:8000", b"https://evil.example"]])
async def test_the_doors_of_pages_are_for_our_own_alone(origins: list[bytes]) -> None:
    door = socket("/ws/console/live/", origins, extension=True)
    await door.send_input({"type": "websocket.connect"})
    refused = await door.receive_output(5)
    assert refused["type"] == "websocket.close"
    await door.wait()
