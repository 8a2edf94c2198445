"""What stands in the place of what was left out, the same in rows, exports and on pages. Pure."""

from __future__ import annotations

import re

CARD, EMAIL, PHONE, LEFT_OUT = "[card]", "[e-mail]", "[phone]", "[left out]"
MARK = re.compile(r"\[(?:card|e-mail|phone|left out)\]")
WORDS = {
    CARD: "A card number was said here; it was left out before anything was stored",
    EMAIL: "An e-mail address was said here; it was left out before anything was stored",
    PHONE: "A phone number was said here; it was left out before anything was stored",
    LEFT_OUT: "Something was said here that was left out before anything was stored",
}
