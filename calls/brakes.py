"""How often anybody may try to log in. Every try is paid for before a password or a code is looked at, so tries at once pay too.

Three brakes count tries that came to nothing: of an account from an address, of the account from anywhere, of the address
for anybody. Past its number each lets one more try through after a pause, and each further pause is three times as long.
A browser that has been in this account before (`device`) has a brake of its own and waits for nobody else's tries: whoever
guesses from a thousand addresses keeps strangers out, not the owner. Names that nobody has are braked like all others.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address

from django.db import transaction
from django.db.models import F, Q
from django.utils.crypto import salted_hmac

from calls.models import LogInBrake

PAUSE = timedelta(minutes=5)
GROWTH, GROWS_TIMES = 3, 8
FORGOTTEN_AFTER = timedelta(days=1)  # without a further try
NEIGHBOURS = 64  # bits that the addresses of one IPv6 connection share: its owner has all the others


@dataclass(frozen=True, slots=True)
class Rule:
    """So many tries `within` a time, then pauses up to the `longest`."""

    tries: int
    within: timedelta
    longest: timedelta


HERE = Rule(5, timedelta(days=1), longest=timedelta(days=1))  # a day: slow guessing is guessing, and who gets in begins anew
ACCOUNT = Rule(20, timedelta(hours=1), longest=timedelta(hours=1))
ADDRESS = Rule(30, timedelta(hours=1), longest=timedelta(hours=1))


class TooManyTries(Exception):
    """Not now. `pause` is how long there is no point in trying."""

    def __init__(self, pause: timedelta) -> None:
        super().__init__("Too many tries to log in.")
        self.pause = pause


@dataclass(frozen=True, slots=True)
class Knocker:
    """Who wants to log in: the name as typed, where from, and the browser's mark if it has been in this account before."""

    name: str
    address: str
    device: str = ""

    @property
    def brakes(self) -> dict[str, Rule]:
        name = plain(self.name)
        if self.device:
            return {_key("device", name, self.device): HERE}
        place = neighbourhood(self.address)
        rules = {_key("here", name, place): HERE, _key("account", name): ACCOUNT, _key("address", place): ADDRESS}
        return dict(sorted(rules.items()))  # everybody takes the rows they share in one order


def pay(knocker: Knocker, *, at: datetime) -> None:
    """Count a try before it is looked at. Raises TooManyTries, and then nothing is counted."""
    LogInBrake.objects.filter(forgotten_at__lt=at).delete()
    with transaction.atomic():
        for key, rule in knocker.brakes.items():
            _take(key, rule, at)


def give_back(knocker: Knocker) -> None:
    """It was the right one: what this browser or address tried on this account is forgotten, what the others count stays."""
    with transaction.atomic():
        for key, rule in knocker.brakes.items():
            mine = LogInBrake.objects.filter(key=key)
            if rule is HERE:
                mine.delete()
            else:
                mine.filter(tries__gt=0).update(tries=F("tries") - 1, blocked_until=None)


def plain(name: str) -> str:
    """A name as the brakes know it: another case or another way to write a letter is no other account."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def neighbourhood(address: str) -> str:
    """What one stranger holds: an IPv4 address, or a whole /64 of IPv6."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    return str(int(known) >> NEIGHBOURS) if isinstance(known, IPv6Address) and known.ipv4_mapped is None else address


def _take(key: str, rule: Rule, at: datetime) -> None:
    LogInBrake.objects.bulk_create([LogInBrake(key=key, since=at, forgotten_at=at + FORGOTTEN_AFTER)], ignore_conflicts=True)
    is_open = Q(blocked_until=None) | Q(blocked_until__lte=at)
    taken = LogInBrake.objects.filter(is_open, key=key).update(tries=F("tries") + 1)
    brake = LogInBrake.objects.get(key=key)  # whoever wrote it has it until the transaction ends
    if not taken:
        raise TooManyTries((brake.blocked_until or at) - at)
    if brake.tries <= rule.tries and at - brake.since > rule.within:
        brake.tries, brake.since = 1, at
    beyond = brake.tries - rule.tries
    brake.blocked_until = at + min(PAUSE * GROWTH ** min(beyond, GROWS_TIMES), rule.longest) if beyond >= 0 else None
    brake.forgotten_at = (brake.blocked_until or at) + FORGOTTEN_AFTER
    brake.save(update_fields=["tries", "since", "blocked_until", "forgotten_at"])


def _key(*parts: str) -> str:
    """Says neither who nor where: people mistype, and what stands in a name field may be a password."""
    return salted_hmac("calls.brakes", "\0".join(parts), algorithm="sha256").hexdigest()
