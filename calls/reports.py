"""Merging an end-of-call report: the words no final told become lines, its figures a row of their own.

Which lines the report adds is decided by all finals and the report together, each time one of them comes. A final that is
later than the report takes the place of what the report had to tell for it, so the order plays no part in the end. Nor does
it when a report that we fetched (`calls.lost_reports`) and the vendor's own are both there: its own is the one that counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import QuerySet

from calls import evidence, unsaid, vapi_report
from calls.discretion import rules_of
from calls.history import NewEvent, line_hash, mark_where_cut, record_events
from calls.models import InboxMessage, Source, TranscriptLine, VapiReport, VapiSession
from calls.redaction import Said, redact_body, redact_talk, same_number_once
from calls.vapi_kinds import FETCHED, REPORT
from calls.vapi_report import Line, Turn

A_DAY = timedelta(days=1)
NO_WORDS: Mapping[str, Any] = {"summary": "", "success": "", "structured": {}}
LONG = 500  # lines; with more of them, comparing all takes longer than somebody who waits for an answer should wait


def merge(*, session: VapiSession, report: Mapping[str, Any], at: datetime) -> bool:
    """Keep what a session's report says. True for the first time; the same report again changes nothing.

    A long report takes seconds to compare, so it is done before anybody has to wait for us, and again only if in the
    meantime a final came.
    """
    figures = asdict(vapi_report.figures(report))
    figures |= {name: redact_body(figures[name], rules_of(session.call.version_id)) for name in ("summary", "success", "structured")}
    said = _said(report, session)
    finals = _finals(session)
    wanted = vapi_report.missing(finals, said)
    with transaction.atomic():
        evidence.hold(call_sid=session.call.call_sid, at=at)
        if is_unkept := bool(unsaid.among({session.call_id})):
            figures |= NO_WORDS
        if FETCHED in report and FETCHED not in (_report_of(session) or report):
            return False
        if (by_now := _finals(session)) != finals:
            wanted = vapi_report.missing(by_now, said)
        wanted = [] if is_unkept else wanted
        kept, first = VapiReport.objects.get_or_create(session=session, defaults={**figures, "merged_at": at})
        _settle(session, wanted, at=kept.merged_at)
        VapiReport.objects.filter(pk=kept.pk).update(**figures, lines_added=len(wanted))
        if first:
            detail = {"n": session.n, "lines": len(wanted)}
            record_events(call_sid=session.call.call_sid, events=[NewEvent("report-merged", Source.VAPI, at, detail)])
    return first


def settle_again(*, sessions: Collection[VapiSession], at: datetime) -> None:
    """After late finals are stored: what the reports had to tell for them is told by the finals now. Compared as in `merge`.

    A report that is being merged looks at the finals once more when it has the call's row.
    """
    for kept in VapiReport.objects.filter(session__in=sessions).select_related("session__call"):
        _settle_with(kept, at=at)


def _settle_with(kept: VapiReport, *, at: datetime) -> None:
    session = kept.session
    report = _report_of(session)
    if report is None:
        return
    said, finals = _said(report, session), _finals(session)
    wanted = vapi_report.missing(finals, said)
    with transaction.atomic():
        evidence.hold(call_sid=session.call.call_sid, at=at)
        if (by_now := _finals(session)) != finals:
            wanted = vapi_report.missing(by_now, said)
        if unsaid.among({session.call_id}):
            return
        _settle(session, wanted, at=kept.merged_at)
        VapiReport.objects.filter(pk=kept.pk).update(lines_added=len(wanted))


def takes_long(session: VapiSession) -> bool:
    """True when a line that comes now would be compared with a long report."""
    return session.report_at is not None and _ours(session)[LONG:].exists()


def _report_of(session: VapiSession) -> Mapping[str, Any] | None:
    """The report that counts, as it is stored: the vendor's own before one that we fetched."""
    stored = InboxMessage.objects.filter(source=Source.VAPI, kind=REPORT, vapi_call_id=session.vapi_call_id)
    return min((row.body for row in stored), key=lambda body: FETCHED in body, default=None)


def _ours(session: VapiSession) -> QuerySet[TranscriptLine]:
    return TranscriptLine.everything.filter(call=session.call, vapi_call_id=session.vapi_call_id or "")


def _finals(session: VapiSession) -> list[Line]:
    told = _ours(session).filter(from_report=False, retold=False)
    return _with_numbers_once([Line(*line) for line in told.values_list("role", "said", "vendor_ms")])


def _said(report: Mapping[str, Any], session: VapiSession) -> list[Turn]:
    turns = vapi_report.turns(report)
    texts = redact_talk([Said(turn.role, turn.end, turn.text) for turn in turns], rules_of(session.call.version_id))
    return _with_numbers_once([replace(turn, text=text) for turn, text in zip(turns, texts, strict=True)])


Spoken = TypeVar("Spoken", Line, Turn)


def _with_numbers_once(spoken: Sequence[Spoken]) -> list[Spoken]:
    """A number that was left out has one mark, whether it was told in one line or in three; else it would be told again."""
    by_role: dict[str, list[int]] = {}
    for place, each in enumerate(spoken):
        by_role.setdefault(each.role, []).append(place)
    found = list(spoken)
    for places in by_role.values():
        for place, text in zip(places, same_number_once([spoken[place].text for place in places]), strict=True):
            found[place] = replace(spoken[place], text=text)
    return [each for each in found if each.text]


def _settle(session: VapiSession, lines: Sequence[Line], *, at: datetime) -> None:
    """Have exactly these lines from the report."""
    wanted = {(line.role, line.ms, line_hash(line.text)): line for line in lines}
    there = {(line.role, line.vendor_ms, line.text_hash): line for line in _ours(session).filter(from_report=True)}
    TranscriptLine.objects.bulk_create([_row(session, wanted[key], at) for key in wanted.keys() - there.keys()])
    for key, line in there.items():
        if line.retold == (key in wanted):
            TranscriptLine.everything.filter(pk=line.pk).update(retold=key not in wanted)
    mark_where_cut([session.call])


def _row(session: VapiSession, line: Line, at: datetime) -> TranscriptLine:
    return TranscriptLine(
        call=session.call,
        n=session.n,
        vapi_call_id=session.vapi_call_id or "",
        role=line.role,
        said=line.text,
        vendor_ms=line.ms,
        text_hash=line_hash(line.text),
        at=_moment(line.ms, at),
        from_report=True,
    )


def _moment(ms: int, merged_at: datetime) -> datetime:
    """The vendor's time of a line, unless its clock is a day off."""
    moment = datetime.fromtimestamp(ms / 1000, tz=UTC)
    return moment if abs(moment - merged_at) < A_DAY else merged_at
