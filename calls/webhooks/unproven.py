"""Requests that nobody could prove to be a vendor's, counted by door; nothing of a stranger's is kept or logged.

A stranger who tries is no news. But many that look like the vendor's own, in a short time, mean that the vendor signs with another
secret than ours, and then nobody is helped by us: that is one alarm of this process, and not again for a while.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque

log = logging.getLogger(__name__)

ALARM_AT = 3
WITHIN_S = 60.0
QUIET_S = 600.0
SECRETS = {"Twilio": "TWILIO_AUTH_TOKEN", "Vapi": "VAPI_WEBHOOK_SECRET"}  # the setting, by whom it is shared with


class Unproven:
    """Whether an alarm is due. Pure but for its counts: `now` is monotonic seconds."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # by door, since this process began
        self._lately: dict[str, deque[float]] = {vendor: deque(maxlen=ALARM_AT) for vendor in SECRETS}
        self._quiet_until = dict.fromkeys(SECRETS, float("-inf"))
        self._lock = threading.Lock()

    def came(self, door: str, vendor: str, *, looks_genuine: bool, now: float) -> bool:
        """Count one; True when it is the one to raise the alarm of this vendor's secret at."""
        with self._lock:
            self.counts[door] += 1
            lately = self._lately[vendor]
            if not looks_genuine:
                return False
            lately.append(now)
            if len(lately) < ALARM_AT or now - lately[0] > WITHIN_S or now < self._quiet_until[vendor]:
                return False
            self._quiet_until[vendor] = now + QUIET_S
            return True

    def told(self) -> str:
        """The counts, for a log line."""
        with self._lock:
            return ", ".join(f"{door} {count}" for door, count in sorted(self.counts.items()))


unproven = Unproven()  # this process's


def refused(door: str, vendor: str, *, looks_genuine: bool) -> None:
    """A request at this door was not proven to be the vendor's."""
    if unproven.came(door, vendor, looks_genuine=looks_genuine, now=time.monotonic()):
        log.error(
            "Requests that look like a vendor's own fail their proof: does it sign with another secret than ours?",
            extra={"vendor": vendor, "setting": SECRETS[vendor], "refused_so_far": unproven.told()},
        )
