"""The trail: who did what to which thing. Each line carries the hash of the one before it, so none is changed, taken out or put in unseen.

The head, which is the newest line's number and hash, stands for all of them. Kept elsewhere it also shows that somebody who
has the database wrote the whole trail anew, or cut its end off: `audit_verify --expect`. No trigger guards the table.
Nothing here takes a lock: two who write at once want the same next number, it is unique, and the slower one tries again.
A line belongs into the transaction of what it tells, late in it: with PostgreSQL whoever writes meanwhile waits for its end.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db import Error, IntegrityError, transaction
from django.db.models import Q
from django.http import HttpRequest

from agents import visitor
from agents.models import AuditEntry

TRIES = 50
BEGINNING = "0" * 64  # what the first line carries as the hash before it
LATELY = timedelta(minutes=5)
NEARBY = 1000  # how far from its place a moved line is looked for
READ_AT_ONCE = 1000
UNREADABLE = (ValueError, TypeError, AttributeError)  # what a value that cannot have been ours becomes when it is read


class NotRecorded(Error):
    """The trail did not take the line: others were faster each time. What it tells must not happen."""


class Broken(Exception):
    """The first line that is not as it was written; the text says which one, and why."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"Entry {number} {why}.")
        self.number = number


class Head(NamedTuple):
    """The newest line, as it is noted down: NUMBER:HASH."""

    number: int
    hash: str

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


NOTHING_YET = Head(0, BEGINNING)


@dataclass(frozen=True, slots=True)
class Who:
    """Who did something, and where their browser was. Nobody: the house itself."""

    actor: str = ""
    address: str = ""

    @classmethod
    def at_the_shell(cls) -> Who:
        """Whoever runs a command, as the machine knows them."""
        try:
            name = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            name = str(os.getuid())
        return cls(f"command:{name}")

    @classmethod
    def asking(cls, request: HttpRequest | None) -> Who:
        """Whoever sent a request, and from where, as far as somebody trustworthy has seen it."""
        if request is None:
            return cls()
        user = getattr(request, "user", None)
        return cls(user.get_username() if user is not None else "", visitor.of(request))


def record(
    action: str, *, actor: str, subject: str = "", detail: Mapping[str, Any] | None = None, address: str = "", at: datetime
) -> AuditEntry:
    """Write a line. Raises django.db.Error when it cannot be written; what it tells must then not happen either."""
    entry = _line(action, Who(actor, address), subject, detail, at)
    _append(entry)
    return entry


def seen(action: str, *, who: Who, subject: str, detail: Mapping[str, Any] | None = None, at: datetime) -> None:
    """Write that somebody looks at something, once in LATELY. Raises django.db.Error: it must then not be shown."""
    line = _line(action, who, subject, detail, at)
    lately = Q(action=line.action, actor=line.actor, subject=line.subject, address=line.address, at__gt=at - LATELY)
    if not AuditEntry.objects.filter(lately).exists():
        _append(line, unless=lately)


def verify(*, expect: Head | None = None) -> Head:
    """Walk the whole trail, in handfuls; its head when every line is as it was written.

    `expect` is a head noted down earlier, which must still be a line of it. Raises Broken at the first line that is wrong.
    """
    head = _walk(_all(), NOTHING_YET, expect=expect)
    if expect is not None and head.number < expect.number:
        raise Broken(head.number + 1, f"is missing: the trail was cut off, it went on to entry {expect.number}")
    return head


def verify_end(count: int) -> int:
    """Walk the newest `count` lines; how many there are. The hash before them is taken as it stands. Raises Broken."""
    try:
        entries = list(AuditEntry.objects.order_by("-number")[: count + 1])[::-1]
    except UNREADABLE:
        raise Broken(_head().number, "or one of those before it cannot be read") from None
    if len(entries) <= count:
        return _walk(entries, NOTHING_YET).number
    first = entries[0]
    _walk(entries[1:], Head(first.number, first.hash))
    return count


def seal(entry: AuditEntry, *, number: int | None = None) -> str:
    """SHA-256, in hex, over all of a line but its own hash, as JSON with sorted names and no spaces; see docs/audit-trail.md."""
    told = {
        "number": entry.number if number is None else number,
        "at": entry.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "actor": entry.actor,
        "address": entry.address,
        "action": entry.action,
        "subject": entry.subject,
        "detail": entry.detail,
        "before": entry.before,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _line(action: str, who: Who, subject: str, detail: Mapping[str, Any] | None, at: datetime) -> AuditEntry:
    return AuditEntry(
        at=at,
        actor=_text(who.actor)[:150],
        address=_text(who.address)[:45],
        action=_text(action)[:40],
        subject=_text(subject)[:200],
        detail=_plain(detail or {}),
    )


def _append(entry: AuditEntry, *, unless: Q | None = None) -> None:
    """Add the line with the next number, but not when one that is like `unless` is there by then.

    The head is read first: whoever writes such a line after that takes the number we want.
    """
    for _ in range(TRIES):
        try:
            with transaction.atomic():
                head = _head()
                if unless is not None and AuditEntry.objects.filter(unless).exists():
                    return
                entry.number, entry.before = head.number + 1, head.hash
                entry.hash = seal(entry)
                entry.save()
                return
        except IntegrityError:  # somebody was faster
            continue
    raise NotRecorded("Others wrote to the trail each time.")


def _head() -> Head:
    newest = AuditEntry.objects.order_by("-number").values_list("number", "hash").first()
    return Head(*newest) if newest else NOTHING_YET


def _all() -> Iterator[AuditEntry]:
    """Every line by its number, those that are written meanwhile too; no reading stays open over the database."""
    entries = AuditEntry.objects.order_by("number")
    rest = entries
    while handful := list(rest[:READ_AT_ONCE]):
        yield from handful
        rest = entries.filter(number__gt=handful[-1].number)


def _walk(entries: Iterable[AuditEntry], head: Head, *, expect: Head | None = None) -> Head:
    try:
        for entry in entries:
            head = _next(head, entry)
            if expect is not None and head.number == expect.number and head.hash != expect.hash:
                raise Broken(head.number, "is not the one that is expected: the trail was written anew")
    except UNREADABLE:
        raise Broken(head.number + 1, "cannot be read: it was changed") from None
    return head


def _next(head: Head, entry: AuditEntry) -> Head:
    """The head after this line. Raises Broken when it is not the one that was written after the last."""
    if entry.number < 1:
        raise Broken(entry.number, "has a number that is never given")
    if entry.number != head.number + 1:
        raise Broken(head.number + 1, "is missing")
    if seal(entry) != entry.hash:
        nearby = range(max(entry.number - NEARBY, 1), entry.number + NEARBY)
        moved = any(seal(entry, number=number) == entry.hash for number in nearby)
        raise Broken(entry.number, "is another one: entries were reordered" if moved else "was changed after it was written")
    if entry.before != head.hash:
        raise Broken(entry.number, f"does not follow entry {head.number}: one of them was written anew")
    return Head(entry.number, entry.hash)


def _plain(value: Any) -> Any:
    """A value that every database gives back as it was: names, numbers without fractions, yes and no, and lists of them."""
    if isinstance(value, Mapping):
        return {_text(str(name)): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, int) else _text(str(value))


def _text(text: str) -> str:
    """Without control characters and half characters, which not every database takes."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
