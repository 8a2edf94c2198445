"""Our account at Twilio, as the settings say."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings

from bridge.twilio_rest import TwilioRest


def client() -> TwilioRest | None:
    """This process's client, one for as long as the settings stay the same. None: we were given no credentials.

    While the token is being rotated the first one is used; Twilio's REST API accepts both.
    """
    if not settings.TWILIO_ACCOUNT_SID or not settings.TWILIO_AUTH_TOKENS:
        return None
    return _client(settings.TWILIO_BASE_URL, settings.TWILIO_ACCOUNT_SID, settings.TWILIO_AUTH_TOKENS[0])


@lru_cache(maxsize=4)
def _client(base_url: str, account_sid: str, auth_token: str) -> TwilioRest:
    return TwilioRest(base_url, account_sid, auth_token)
