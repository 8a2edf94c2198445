"""Our account at Vapi, as the settings say: whom we call, and where they call back."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from agents.payload import ServerAddress
from bridge.vapi_http import VapiClient

WEBHOOK_PATH = "/webhook/vapi"


def client() -> VapiClient:
    """This process's client; one for as long as the settings stay the same."""
    return _client(settings.VAPI_BASE_URL, settings.VAPI_API_KEY, tuple(settings.VAPI_SOCKET_HOSTS))


def server() -> ServerAddress:
    """Where Vapi posts to, with the secret it shows us there: the first one while several are accepted."""
    secrets = settings.VAPI_WEBHOOK_SECRETS
    return ServerAddress(url=settings.PUBLIC_URL + WEBHOOK_PATH, secret=secrets[0] if secrets else "")


@lru_cache(maxsize=4)
def _client(base_url: str, api_key: str, socket_hosts: tuple[str, ...]) -> VapiClient:
    return VapiClient(base_url=base_url, api_key=api_key, socket_hosts=socket_hosts)
