"""One person's data by their phone number: what we hold, a copy of it, and its end.

The number is typed into a form and posted, never part of an address: those are kept by browsers, proxies and logs. What was
erased is told by the trail, where a person is a mark; what a vendor has still to delete stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from agents import trail, visitor
from agents.models import AuditEntry
from calls import erasure, person, roles, vendor_accounts, vendor_erasures
from calls.console.doors import console_change, console_page, page
from calls.console.shown import Item, stamp
from calls.person import NotAPerson

LATEST = 20
WAIT_S = 10.0  # for the vendors, while somebody looks at the page
SURE = "yes"
SUBJECT = "person "


@console_page(roles.ERASE_PERSON)
def people(request: HttpRequest) -> HttpResponse:
    """The form, what was erased lately, and what the vendors have still to delete."""
    return page(request, "people.html", here="people", context=_page())


@console_change(roles.ERASE_PERSON)
def found(request: HttpRequest) -> HttpResponse:
    """What we hold of a number, with the two things that can be done about it."""
    try:
        number = person.normalised(request.POST.get("number", ""))
    except NotAPerson as wrong:
        return page(request, "people.html", here="people", context=_page() | {"typed": request.POST.get("number", ""), "wrong": str(wrong)})
    return page(request, "people.html", here="people", context=_page() | {"typed": number, "number": number, "held": person.held(number)})


@console_change(roles.ERASE_PERSON)
def erased(request: HttpRequest) -> HttpResponse:
    """Erase it, and ask the vendors at once; what they do not do in time is asked for again by itself."""
    try:
        number = person.normalised(request.POST.get("number", ""))
    except NotAPerson as wrong:
        messages.warning(request, f"Nothing was erased. {wrong}")
        return HttpResponseRedirect(reverse("console:people"))
    if request.POST.get("sure") != SURE:
        messages.warning(request, "Nothing was erased: tick the box that says you are sure.")
        return HttpResponseRedirect(reverse("console:people"))
    now = timezone.now()
    done = person.erase(number, by=request.user.get_username(), at=now, address=visitor.of(request))
    vendor_erasures.ask(vendors=vendor_accounts.vendors(), now=now, asked_for=done.mark, within_s=WAIT_S)
    erasure.leave_no_trace()
    messages.success(request, f"Erased: {counted(done.gone.counts)}.{_still_on(done.unsettled)}")
    return HttpResponseRedirect(reverse("console:people"))


@console_change(roles.ERASE_PERSON)
def exported(request: HttpRequest) -> HttpResponse:
    """A copy of it as a file, one call a line."""
    try:
        number = person.normalised(request.POST.get("number", ""))
    except NotAPerson as wrong:
        messages.warning(request, str(wrong))
        return HttpResponseRedirect(reverse("console:people"))
    subject, where = f"{SUBJECT}{person.mark(number)}", visitor.of(request)
    trail.record("exported", actor=request.user.get_username(), subject=subject, address=where, at=timezone.now())
    answer = HttpResponse("".join(person.handed_over(number)), content_type="application/jsonl")
    answer.headers["Content-Disposition"] = 'attachment; filename="person.jsonl"'
    return answer


def counted(counts: Mapping[str, Any]) -> str:
    """'3 calls, 14 lines, 20 messages, 1 recording'."""
    names = [name for name in ("calls", "lines", "messages", "recordings") if isinstance(counts.get(name), int)]
    return ", ".join(f"{counts[name]} {name if counts[name] != 1 else name[:-1]}" for name in names) or "nothing"


def _still_on(unsettled: int) -> str:
    if not unsettled:
        return ""
    which = "One call is" if unsettled == 1 else f"{unsettled} calls are"
    return f" {which} still on, or just over: nothing more of it is kept, and the vendors are told when its report is in."


def _page() -> dict[str, Any]:
    """What stands on the page whoever is looked for."""
    waiting = vendor_erasures.waiting()
    for_whom = dict(waiting.exclude(asked_for="").order_by().values_list("asked_for").annotate(n=Count("pk")))
    entries = AuditEntry.objects.filter(action="erased")[:LATEST]
    return {
        "latest": [_entry(entry, for_whom) for entry in entries],
        "waiting": [_waiting(row) for row in waiting[:LATEST]],
        "waiting_count": waiting.count(),
    }


def _entry(entry: AuditEntry, for_whom: Mapping[str, int]) -> Item:
    mark = entry.subject.removeprefix(SUBJECT) if entry.subject.startswith(SUBJECT) else ""
    left = for_whom.get(mark, 0)
    slots = {
        "at": stamp(entry.at),
        "by": entry.actor or "the server",
        "who": entry.subject,
        "what": counted(entry.detail),
        "vendors": f"{left} still to be deleted" if left else "",
    }
    return Item(id=f"erased-{entry.number}", order=(-entry.number,), data={"tone": "wait" if left else "good"}, slots=slots)


def _waiting(row: Any) -> Item:
    slots = {
        "what": row.get_kind_display(),
        "asked": stamp(row.asked_at),
        "next": stamp(row.next_at),
        "tries": str(row.tries),
        "problem": row.problem,
    }
    return Item(id=f"waiting-{row.pk}", order=(row.pk,), data={"tone": "bad" if row.problem else "wait"}, slots=slots)
