"""Our accounts at Vapi, as the settings say: whom we call, and where they call back.

The main one has every call. A backup, when there is one, has those that the main one does not take: it knows none of the
assistants we prepared, so it is given the whole agent with each call.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from django.conf import settings

from agents.payload import ServerAddress
from bridge.vapi_http import VapiClient

MAIN, BACKUP = "main", "backup"
WEBHOOK_PATH = "/webhook/vapi"


def client(account: str = MAIN) -> VapiClient:
    """This process's client; one for as long as the settings stay the same."""
    if account == BACKUP:
        return _client(settings.VAPI_BACKUP_BASE_URL, settings.VAPI_BACKUP_API_KEY, _backup_hosts())
    return _client(settings.VAPI_BASE_URL, settings.VAPI_API_KEY, tuple(settings.VAPI_SOCKET_HOSTS))


def has_backup() -> bool:
    return bool(settings.VAPI_BACKUP_API_KEY)


def keys() -> dict[str, str]:
    """The key of each account."""
    return {MAIN: settings.VAPI_API_KEY, BACKUP: settings.VAPI_BACKUP_API_KEY}


def server() -> ServerAddress:
    """Where Vapi posts to, with the secret it shows us there: the first one while several are accepted."""
    secrets = settings.VAPI_WEBHOOK_SECRETS
    return ServerAddress(url=settings.PUBLIC_URL + WEBHOOK_PATH, secret=secrets[0] if secrets else "")


def _backup_hosts() -> tuple[str, ...]:
    """Where the backup's sockets may lead: as the settings name them, and the backup's own host."""
    if not settings.VAPI_SOCKET_HOSTS:
        return ()
    host = urlsplit(settings.VAPI_BACKUP_BASE_URL).hostname or ""
    return (*settings.VAPI_SOCKET_HOSTS, host, f"*.{host}")


@lru_cache(maxsize=4)
def _client(base_url: str, api_key: str, socket_hosts: tuple[str, ...]) -> VapiClient:
    return VapiClient(base_url=base_url, api_key=api_key, socket_hosts=socket_hosts)
