"""A Vapi call with the assistant that was stored there for its version, or with the version's words when Vapi has no such assistant.

Somebody may delete it at Vapi, or the key may be another organisation's by now: each create is refused then, and callers would have a
person instead of the agent until somebody publishes anew. A refusal comes at once, so the caller does not wait for the second create.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bridge.errors import VapiRefused
from bridge.vapi_answers import VapiCall

log = logging.getLogger(__name__)

NOT_THERE = (400, 404)  # what Vapi says is known of each for other things too: the second create tells which it was


class Vapi(Protocol):
    """What we need of `bridge.vapi_http.VapiClient`."""

    def create_call(self, request: Mapping[str, Any]) -> VapiCall: ...


def create(client: Vapi, request: Callable[[bool], Mapping[str, Any]]) -> tuple[VapiCall, bool]:
    """The Vapi call of `request(True)`, and whether a stored assistant that it names is not there.

    `request(False)` is the same with all words. Raises what `create_call` does.
    """
    first = request(True)
    try:
        return client.create_call(first), False
    except VapiRefused as problem:
        if "assistantId" not in first or problem.limit or problem.status not in NOT_THERE:
            raise
        refused = problem
    made = client.create_call(request(False))
    log.error("Vapi has no such assistant: calls send its words along", extra={"status": refused.status})
    return made, True
