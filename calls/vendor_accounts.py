"""Our accounts at both vendors, as the settings say, for whoever has them delete something."""

from __future__ import annotations

from django.conf import settings

from agents import account
from calls import twilio_account
from calls.vendor_erasures import Vendors


def vendors() -> Vendors:
    return Vendors(
        vapi=account.client() if settings.VAPI_API_KEY else None,
        twilio=twilio_account.client(),
        backup=account.client(account.BACKUP) if account.has_backup() else None,
    )
