"""The customer database of TechFlow, as far as one tool needs it: a JSON address that knows Alex."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

ACCOUNTS = {
    "alex@example.com": {
        "name": "Alex",
        "email": "alex@example.com",
        "plan": "pro",
        "status": "locked",
        "reason": "five failed sign-ins",
        "unlocked_now": True,
    }
}


async def get_user_account(request: web.Request) -> web.Response:
    """POST {"email"} -> the account; 404 for an address nobody has, 400 for a body that is not that."""
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("email"), str):
        return web.json_response({"error": "email is missing"}, status=400)
    account = ACCOUNTS.get(body["email"].strip().lower())
    if account is None:
        return web.json_response({"error": "no such account"}, status=404)
    return web.json_response(account)


def routes() -> list[web.RouteDef]:
    return [web.post("/crm/get_user_account", get_user_account)]


@asynccontextmanager
async def running() -> AsyncIterator[str]:
    """The database on a port of its own; yields host:port."""
    app = web.Application()
    app.add_routes(routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()
