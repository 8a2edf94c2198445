"""What can go wrong on the wires. The class answers the one question a caller has: is it worth trying again?"""

from __future__ import annotations


class BridgeError(Exception):
    """Something on one of the two wires. Its text is ours: never a vendor's body, which may hold speech."""


class BadMessage(BridgeError):
    """Bytes from outside that are not what the protocol says; the text is one plain sentence, `kind` a word to count it under."""

    def __init__(self, sentence: str, *, kind: str = "malformed") -> None:
        super().__init__(sentence)
        self.kind = kind


class VapiError(BridgeError):
    """Vapi did not do what was asked. `status` is the HTTP status, or None when there was no answer.

    `limit`: the whole account is refused, for its key, its credit or its lines; empty when that is not what Vapi said.
    """

    def __init__(self, sentence: str, *, status: int | None = None, limit: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        self.limit = limit


class VapiUnavailable(VapiError):
    """No answer in time, 429 or 5xx: worth trying again when the outcome is known (`sent` is False) or harmless.

    `sent` is True when the request may have been carried out all the same (a read time-out): a call may exist.
    `retry_after_s`: how long Vapi wants us to wait, when it says so.
    """

    def __init__(
        self, sentence: str, *, status: int | None = None, sent: bool = False, retry_after_s: float | None = None, limit: str = ""
    ) -> None:
        super().__init__(sentence, status=status, limit=limit)
        self.sent = sent
        self.retry_after_s = retry_after_s


class VapiRefused(VapiError):
    """Every other 4xx, and answers that are not what was asked for: trying again changes nothing."""


class TwilioError(BridgeError):
    """Twilio's REST API did not do what was asked. `status` is the HTTP status, or None when there was no answer."""

    def __init__(self, sentence: str, *, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status


class TwilioUnavailable(TwilioError):
    """No sane answer in time, 429 or 5xx: worth trying again later. What was asked for may have been done all the same."""


class TwilioRefused(TwilioError):
    """Every other 4xx: trying again changes nothing."""
