"""The last word to a Vapi call that has no control address: on its audio socket, opened again for this one message.

It blocks, so it is for workers and never for a media stream's loop. The address is a capability: it is not logged, and
no error repeats it.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

from bridge import vapi_messages, waiting
from bridge.errors import VapiRefused, VapiUnavailable

CONNECT_WITHIN_S = 0.5
ANSWER_WITHIN_S = 1.0
GOODBYE_WITHIN_S = 0.5  # with the two above: 2 s in all
OVER = (404, 410)

_silent = logging.Logger("vapi-ending", level=logging.CRITICAL)  # the library would log the address


def end_on_socket(url: str, *, headers: Mapping[str, str]) -> None:
    """Connect and send `end-call`, within 2 s. A call that is over already is no error. Raises VapiUnavailable or VapiRefused."""
    waiting.give_back()
    try:
        _say_end(url, headers)
    except InvalidStatus as refused:
        status = refused.response.status_code
        if status >= 500:
            raise VapiUnavailable("Vapi failed.", status=status) from None
        if status not in OVER:
            raise VapiRefused(f"Vapi refused with {status}.", status=status) from None
    except (WebSocketException, OSError, ValueError) as problem:  # a redirect is a ValueError: it is not followed
        raise VapiUnavailable(f"Vapi's audio socket could not be opened ({type(problem).__name__}).") from None


def _say_end(url: str, headers: Mapping[str, str]) -> None:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    wire = socket.create_connection((parts.hostname, port), timeout=CONNECT_WITHIN_S)  # our own, so that no redirect is followed
    with connect(
        url,
        sock=wire,
        additional_headers=dict(headers),
        compression=None,
        proxy=None,
        open_timeout=ANSWER_WITHIN_S,
        close_timeout=GOODBYE_WITHIN_S,
        ping_interval=None,
        logger=_silent,
    ) as call:
        call.send(vapi_messages.dump(vapi_messages.END_CALL))
