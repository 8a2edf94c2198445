"""Stored assistants at the sandbox Vapi: made, read, changed, deleted."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable

from aiohttp import web

from bridge.sandbox import dto
from bridge.sandbox.evidence import Message
from bridge.sandbox.vapi_rest import BadQuery, Rest, listed

UNKNOWN = "Assistant does not exist."


class Assistants:
    """`stored` by id, oldest first."""

    def __init__(self, rest: Rest, *, org_id: str, rng: random.Random, now: Callable[[], str]) -> None:
        self.stored: dict[str, Message] = {}
        self._rest = rest
        self._org_id = org_id
        self._rng = rng
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/assistant", self._create),
            web.get("/assistant", self._list),
            web.get("/assistant/{id}", self._get),
            web.patch("/assistant/{id}", self._update),
            web.delete("/assistant/{id}", self._delete),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        body = await self._rest.body(request, dto.ASSISTANT)
        if isinstance(body, web.Response):
            return body
        now = self._now()
        made = {"id": str(uuid.UUID(int=self._rng.getrandbits(128), version=4)), "orgId": self._org_id, "createdAt": now, "updatedAt": now}
        self.stored[made["id"]] = {**made, "latestVersion": "v1", **body}
        return web.json_response(self.stored[made["id"]], status=201)

    async def _list(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(listed(reversed(self.stored.values()), request.query))
        except BadQuery as bad:
            return self._rest.refuse(request, 400, [bad.why])

    async def _get(self, request: web.Request) -> web.Response:
        assistant = self.stored.get(request.match_info["id"])
        return web.json_response(assistant) if assistant else self._rest.refuse(request, 404, UNKNOWN)

    async def _update(self, request: web.Request) -> web.Response:
        """Shallow: each top-level field that is sent replaces the whole of the old one."""
        assistant = self.stored.get(request.match_info["id"])
        if assistant is None:
            return self._rest.refuse(request, 404, UNKNOWN)
        body = await self._rest.body(request, dto.ASSISTANT)
        if isinstance(body, web.Response):
            return body
        version = f"v{int(assistant['latestVersion'][1:]) + 1}"
        assistant.update(body, updatedAt=self._now(), latestVersion=version)
        return web.json_response(assistant)

    async def _delete(self, request: web.Request) -> web.Response:
        assistant = self.stored.pop(request.match_info["id"], None)
        return web.json_response(assistant) if assistant else self._rest.refuse(request, 404, UNKNOWN)
