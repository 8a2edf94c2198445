"""The sandbox's own door, which no vendor has: what is to be played for a phone call, and afterwards what was seen of it.

POST /sandbox/calls/{CallSid} {"scenario", "fault"} before the call is placed; GET the same address after it.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from aiohttp import web

from bridge.sandbox.checking import one_of, shape
from bridge.sandbox.evidence import Message
from bridge.sandbox.faults import NAMED, Faults
from bridge.sandbox.script import SCENARIOS, Scenario
from bridge.sandbox.vapi_call import SandboxCall
from bridge.sandbox.vapi_rest import Rest

ORDER = shape({"scenario": one_of(*SCENARIOS), "fault": one_of(*NAMED)})


class Orders:
    """Both verbs of the door, on the tables of a running sandbox."""

    def __init__(self, rest: Rest, of_call: MutableMapping[str, tuple[Scenario, Faults]], calls: Mapping[str, SandboxCall]) -> None:
        self._rest = rest
        self._of_call = of_call
        self._calls = calls

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/sandbox/calls/{sid}", self._take), web.get("/sandbox/calls/{sid}", self._tell)]

    async def _take(self, request: web.Request) -> web.Response:
        body = await self._rest.body(request, ORDER)
        if isinstance(body, web.Response):
            return body
        fault = NAMED.get(body.get("fault", ""))
        scenario = SCENARIOS[body.get("scenario") or (fault.scenario if fault else "techflow")]
        self._of_call[request.match_info["sid"]] = (scenario, fault.switches() if fault else Faults())
        return web.json_response({"scenario": scenario.name}, status=201)

    async def _tell(self, request: web.Request) -> web.Response:
        sid = request.match_info["sid"]
        seen = [seen_of(call) for call in self._calls.values() if call.name.partition(".")[0] == sid]
        return web.json_response({"calls": seen, "refused": [list(each) for each in self._rest.refused]})


def seen_of(call: SandboxCall) -> Message:
    """What Vapi can say of a call: `troubles` are the client's mistakes."""
    evidence = call.evidence
    return {
        "id": call.id,
        "name": call.name,
        "endedReason": call.ended_reason,
        "understood": [final.clip_name for final in evidence.understood],
        "webhooks": [[each.kind, each.status, round(each.took_s * 1000)] for each in call.posted],
        "troubles": evidence.kinds("trouble"),
        "bytes": {"up": len(evidence.uplink), "down": len(evidence.downlink)},
    }
