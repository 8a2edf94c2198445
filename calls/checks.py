"""What `manage.py check --deploy` asks of the world outside: whether Twilio asks us, and somebody else when we do not answer."""

from __future__ import annotations

from typing import Any

from django.core import checks

from calls import numbers, twilio_account

LOST, WORTH_KNOWING = "calls.E001", "calls.W001"


@checks.register("numbers", deploy=True)
def check_numbers(**kwargs: Any) -> list[checks.CheckMessage]:
    """Takes `numbers.ALL_WITHIN_S` and one answer at most."""
    return [
        checks.Error(str(each), id=LOST) if each.grave else checks.Warning(str(each), id=WORTH_KNOWING)
        for each in numbers.findings(twilio=twilio_account.client())
    ]
