"""One person's data, found by their phone number: counted, erased, or handed over.

A number is written in many ways and stored in one: E.164. Withheld numbers find nothing, and neither do our own lines.
The trail and the vendors' list must not hold the number, so there a person is a mark: the start of a keyed hash.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast

from agents import trail
from agents.models import PhoneLine
from calls import consent, erasure, export
from calls.erasure import Gone
from calls.export import stamp
from calls.keeping import ALL
from calls.models import CallSession, ErasedWhy, InboxMessage, Recording, Status, ToolRun, TranscriptLine, VapiReport
from calls.storing import the_keeper

E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
SIGNS = str.maketrans("", "", " -()./\u00a0")


class NotAPerson(Exception):
    """The text is one sentence for whoever typed the number; it does not repeat it."""


@dataclass(frozen=True, slots=True)
class Held:
    """What we hold of a number now."""

    calls: int
    live: int
    lines: int
    messages: int
    recordings: int


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased. `unsettled`: calls that are on, or whose report is to come; nothing of it is kept, and the rest goes then."""

    gone: Gone
    unsettled: int
    mark: str


def normalised(typed: str) -> str:
    """The number in E.164. Raises NotAPerson."""
    number = typed.strip().translate(SIGNS)
    number = f"+{number[2:]}" if number.startswith("00") else number
    if not E164.fullmatch(number):
        raise NotAPerson("Write the number with + and country code, like +15550100199.")
    if PhoneLine.objects.filter(number=number).exists():
        raise NotAPerson("This is the number of one of your own lines. Calls are found by the number of whoever called.")
    return number


def mark(number: str) -> str:
    """Who it was, for lists that must not say so."""
    return hmac.new(settings.SECRET_KEY.encode(), b"person|" + number.encode(), hashlib.sha256).hexdigest()[:16]


def calls_of(number: str) -> QuerySet[CallSession]:
    """Calls from this number and to it, however a carrier wrote it."""
    bare = number[1:]
    spelt = [number, bare, f"00{bare}", f" {bare}"]
    addresses = [f"sip:{each}@" for each in (number, bare)]
    found = [Q(**{f"{field}__in": spelt}) for field in ("from_number", "to_number")]
    found += [Q(**{f"{field}__startswith": address}) for field in ("from_number", "to_number") for address in addresses]
    return CallSession.objects.filter(reduce(or_, found)).order_by("started_at", "pk")


def held(number: str) -> Held:
    calls = calls_of(number)
    of_calls = {"call__in": calls.order_by()}
    return Held(
        calls=calls.count(),
        live=calls.filter(ended_at=None).count(),
        lines=TranscriptLine.objects.filter(**of_calls).count(),
        messages=InboxMessage.objects.filter(**of_calls).count() + _strangers(number).count(),
        recordings=Recording.objects.filter(erased_at=None, **of_calls).count(),
    )


def erase(number: str, *, by: str, at: datetime, address: str = "") -> Erased:
    """Erase all of it now; the vendors are asked by whoever looks next (`vendor_erasures.ask`).

    What an outage left in a spool is stored first, so that its calls are found. What living processes keep comes later, and is
    left out then as all late news are.
    """
    the_keeper().adopt()
    gone, unsettled, person = Gone(), 0, mark(number)
    for call in calls_of(number):
        gone += erasure.wipe(pk=call.pk, parts=ALL, why=ErasedWhy.REQUEST, at=at, asked_for=person)
        unsettled += call.status != Status.FINALISED
        if not call.is_over:
            consent.stop_soon(call=call, at=at)
    gone += Gone(messages=_strangers(number).delete()[0])
    trail.record("erased", actor=by, subject=f"person {person}", detail={**gone.counts, "unsettled": unsettled}, address=address, at=at)
    return Erased(gone, unsettled, person)


def _strangers(number: str) -> QuerySet[InboxMessage]:
    """Messages of no call of ours that name the number."""
    return InboxMessage.objects.filter(call=None).annotate(text=Cast("body", TextField())).filter(text__contains=number)


def handed_over(number: str) -> Iterator[str]:
    """Everything we hold, one call a line, as JSON: the call as `export_calls` tells it, and what stands around it."""
    calls = calls_of(number)
    around = {call.call_sid: call for call in calls.select_related("callback")}
    for told in export.told(calls):
        call = around.get(told["call_sid"])
        yield json.dumps({**told, **(_around(call) if call else {})}) + "\n"
    for message in _strangers(number):
        yield json.dumps({"message": _message(message)}) + "\n"


def _around(call: CallSession) -> dict[str, Any]:
    return {
        "recordings": [
            {
                "sid": each.sid,
                "kind": each.kind,
                "state": each.state,
                "seconds": each.seconds,
                "at": stamp(each.at),
                "erased_at": stamp(each.erased_at),
            }
            for each in call.recordings.all()
        ],
        "tools": [_tool(run) for run in call.tool_runs.all()],
        "reports": [_report(report) for report in VapiReport.objects.filter(session__call=call)],
        "callback": _callback(call),
        "commands": [{"verb": each.verb, "at": stamp(each.asked_at), "detail": each.detail} for each in call.commands.all()],
        "messages": [_message(each) for each in call.inbox.all()],
    }


def _tool(run: ToolRun) -> dict[str, Any]:
    at = {"started_at": stamp(run.started_at), "ended_at": stamp(run.ended_at)}
    return {"name": run.name, **at, "arguments": run.arguments, "result": run.result, "problem": run.problem}


def _report(report: VapiReport) -> dict[str, Any]:
    said = {"summary": report.summary, "evaluation": report.success, "structured": report.structured}
    return {"at": stamp(report.merged_at), **said, "kept_at_vapi": sorted(report.artifacts)}


def _callback(call: CallSession) -> dict[str, Any] | None:
    asked = getattr(call, "callback", None)
    if asked is None:
        return None
    return {"asked_at": stamp(asked.asked_at), "due_at": stamp(asked.due_at), "done_at": stamp(asked.done_at), "note": asked.note}


def _message(message: InboxMessage) -> dict[str, Any]:
    return {"source": message.source, "kind": message.kind, "at": stamp(message.received_at), "body": message.body}
