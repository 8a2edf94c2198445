"""Reads what the console shows. A page is a reader's first answer; its socket asks the same kind of reader for the rest.

One rule: reading goes on from a cursor, so a lost hint, a lost socket or a restarted server costs time and never a row.
Every read is a constant number of queries, whatever the call or the day holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from calls import admission, breaker
from calls.console import appendix, conversation, headline, shown
from calls.console.rows import MERGED, calls
from calls.console.shown import Item
from calls.console.viewer import Viewer
from calls.models import CallEvent, CallMetrics, CallSession, Outcome, Recording, RecordingState, Status, TranscriptLine, VapiSession

EVENTS_AT_ONCE = 1000
LINES_AT_ONCE = 1000
LINES_STILL_CHANGING = 20  # how much of a line was heard is known after it was stored
TOOLS_SHOWN = 200
RECORDINGS_SHOWN = 50
WITH_WORDS = ("events", "lines", "recordings", "reports", "figures")
FIGURES_OF = timedelta(hours=24)
FIGURES_FROM = 2000  # newest calls the percentiles are taken from


@dataclass(frozen=True, slots=True)
class News:
    """What changed since the last read. Lists named in `whole` replace what the page has; the others add to it."""

    lists: dict[str, list[Item]]
    head: Item | None = None
    whole: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()  # rows the page may have that are none any more
    after: int = 0  # number of the newest event the page now has
    line: int = 0  # key of the newest transcript line it has
    more: bool = False  # there is more to read at once
    over: bool = False  # the report is complete; nothing more is expected

    def as_json(self) -> dict[str, Any]:
        def plain(item: Item) -> dict[str, Any]:
            return {"id": item.id, "order": item.order, "slots": item.slots, "data": item.data, "href": item.href}

        return {
            "lists": {name: [plain(item) for item in items] for name, items in self.lists.items()},
            "head": plain(self.head) if self.head else None,
            "whole": self.whole,
            "gone": self.gone,
            "after": self.after,
            "line": self.line,
            "over": self.over,
        }


@dataclass(slots=True)
class CallReader:
    """Reads one call from a cursor: events after number `after`, transcript lines after key `line`."""

    public_id: UUID
    viewer: Viewer
    after: int = 0
    line: int = 0
    clock: Callable[[], datetime] = timezone.now
    _begun: bool = False
    _seen: tuple[Any, ...] | None = None
    _sent: dict[str, Item] = field(default_factory=dict)
    _kept: str | None = None  # what the page says of what is gone; with each change of it, the lists are whole again
    _retold: set[int] = field(default_factory=set)  # lines the page does not have, for another one has their words

    def exists(self) -> bool:
        return calls(self.viewer.sight).filter(public_id=self.public_id).exists()

    def read(self) -> News | None:
        """What is new; None when nothing is (one query) or the call is gone."""
        state = calls(self.viewer.sight).filter(public_id=self.public_id).changing().first()
        if state is None or state == self._seen:
            return None
        call = calls(self.viewer.sight).opened(self.public_id).first()
        if call is None:
            return None
        if not self._begun and state[MERGED]:
            self.line = 0  # a report may have said since that a line stands again which the page has dropped
        self._begun = True
        whole = self._from_the_start(call)
        events_of = CallEvent.objects.filter(call=call)
        events = list(events_of.filter(seq__gt=self.after).order_by("seq")[:EVENTS_AT_ONCE])
        self.after = events[-1].seq if events else self.after
        sessions = list(call.vapi_sessions.select_related("report"))
        recordings = list(call.recordings.order_by("at", "pk")[:RECORDINGS_SHOWN])
        gone, back = self._changed_standing(call)
        transcript, more_lines = self._transcript(call, sessions, back) if self.viewer.words else ([], False)
        lists = {
            "events": [conversation.event(happened, told=self.viewer.words) for happened in events],
            "lines": self._unsent(transcript),
            "recordings": self._unsent([appendix.recording(sound, call) for sound in recordings if self.viewer.may_hear(sound)]),
            **self._reports(sessions),
            "sessions": self._unsent([appendix.session(vapi) for vapi in sessions]),
            "counters": self._unsent(appendix.counters(call)),
        }
        silences = events_of.filter(kind="caller-hears-silence").order_by("seq").values_list("detail", flat=True)
        more = more_lines or len(events) == EVENTS_AT_ONCE
        self._seen = None if more else state
        head = headline.head(
            call,
            now=self.clock(),
            told=self.viewer.words,
            sessions=sessions,
            silences_noted=shown.numbers([detail.get("ms") for detail in silences]),
        )
        over = not more and self._is_over(call, recordings)
        return News(lists=lists, head=head, whole=whole, gone=gone, after=self.after, line=self.line, more=more, over=over)

    def _from_the_start(self, call: CallSession) -> tuple[str, ...]:
        """After an erasure the page must let go of what it has: the lists that are told whole now."""
        kept, before = headline.kept_words(call), self._kept
        self._kept = kept
        if before in (None, kept):
            return ()
        self.after = self.line = 0
        self._sent.clear()
        return WITH_WORDS

    def _changed_standing(self, call: CallSession) -> tuple[tuple[str, ...], set[int]]:
        """Lines to take off the page, whose words another line has as well; and the keys of those that stand again."""
        hidden = TranscriptLine.everything.filter(call=call, retold=True).order_by("-pk").values_list("pk", flat=True)
        retold = set(hidden[:LINES_AT_ONCE])
        for pk in retold:
            self._sent.pop(f"line-{pk}", None)
        gone, back, self._retold = retold - self._retold, self._retold - retold, retold
        return tuple(f"line-{pk}" for pk in sorted(gone)), back

    def _reports(self, sessions: list[VapiSession]) -> dict[str, list[Item]]:
        found = [(vapi, report) for vapi in sessions if (report := appendix.report_of(vapi))]
        return {
            "reports": self._unsent([appendix.report(vapi, report) for vapi, report in found if self.viewer.words]),
            "figures": self._unsent([row for vapi, report in found for row in appendix.figures(vapi, report, told=self.viewer.words)]),
        }

    def _is_over(self, call: CallSession, recordings: list[Recording]) -> bool:
        """Nothing more is expected: the report is in, every recording is ready, and who was promised a call had it."""
        recorded = all(sound.state != RecordingState.IN_PROGRESS for sound in recordings)
        callback = headline.callback_of(call)
        return call.status == Status.FINALISED and recorded and (callback is None or callback.done_at is not None)

    def _transcript(self, call: CallSession, sessions: list[VapiSession], back: set[int]) -> tuple[list[Item], bool]:
        """New and lately changed lines, and those that came `back`, with the tool calls among them, and whether there are more to read."""
        lines: QuerySet[TranscriptLine] = TranscriptLine.objects.filter(call=call)
        new = list(lines.filter(pk__gt=self.line).order_by("pk")[:LINES_AT_ONCE])
        self.line = new[-1].pk if new else self.line
        again = lines.filter(pk__in=back) if back else ()
        found = {line.pk: line for line in (*lines.order_by("-pk")[:LINES_STILL_CHANGING], *again, *new)}
        items = [conversation.spoken(line, call) for line in found.values()]
        items += [conversation.tool(run, call, sessions) for run in call.tool_runs.all()[:TOOLS_SHOWN]]
        return sorted(items, key=lambda item: item.order), len(new) == LINES_AT_ONCE

    def _unsent(self, items: list[Item]) -> list[Item]:
        fresh = [item for item in items if self._sent.get(item.id) != item]
        self._sent.update((item.id, item) for item in fresh)
        return fresh


@dataclass(slots=True)
class LiveReader:
    """Reads the calls that are on now, the ones that ended last, and the figures of the last 24 hours."""

    viewer: Viewer
    clock: Callable[[], datetime] = timezone.now
    _sent: dict[str, list[Item]] = field(default_factory=dict)
    _figures: dict[str, str] = field(default_factory=dict)
    _vapi: dict[str, str] = field(default_factory=dict)

    def exists(self) -> bool:
        return True

    def read(self) -> News | None:
        """Both lists and the figures, whole; None when nothing changed. The figures are taken again when a call ended."""
        now = [shown.row(call) for call in calls(self.viewer.sight).at_work(words=self.viewer.words)]
        recent = [shown.row(call) for call in calls(self.viewer.sight).lately_over()]
        lists = {"live": now, "recent": recent}
        vapi = shown.vapi_words(breaker.opened(), admission.short_of_lines(at=self.clock()))
        if lists == self._sent and vapi == self._vapi:
            return None
        if recent != self._sent.get("recent"):
            self._figures = self._of_a_day()
        self._sent, self._vapi = lists, vapi
        waiting = sum(item.data["tone"] == "wait" for item in now)
        live = {**vapi, "live": str(len(now)), "live_note": f"{waiting} not talking yet" if waiting else ""}
        return News(lists=lists, head=Item(id="head", order=(), slots={**self._figures, **live}), whole=("live", "recent"))

    def _of_a_day(self) -> dict[str, str]:
        since = self.clock() - FIGURES_OF
        count = (
            calls(self.viewer.sight)
            .filter(started_at__gte=since)
            .aggregate(
                calls=Count("pk"),
                over=Count("pk", filter=Q(ended_at__isnull=False)),
                handed_over=Count("pk", filter=Q(outcome=Outcome.HANDED_OVER)),
                failed=Count("pk", filter=Q(outcome=Outcome.FAILED)),
            )
        )
        felt = CallMetrics.objects.filter(self.viewer.sight.of("call__team"), call__started_at__gte=since).order_by("-call__started_at")
        figures = list(felt.values_list("first_audio_ms", "time_to_silence_ms")[:FIGURES_FROM])
        sounds = [first for first, _ in figures if first is not None]
        silences = [ms for _, each in figures for ms in shown.numbers(each)]
        return {
            "calls": str(count["calls"]),
            "handed_over": shown.share(count["handed_over"], count["over"]),
            "failed": shown.share(count["failed"], count["over"]),
            "first_sound": shown.span(shown.percentile(sounds, 50)),
            "first_sound_note": f"slowest {shown.span(max(sounds))}" if len(sounds) > 1 else "",
            "silence": shown.span(shown.percentile(silences, 95)),
            "silence_note": f"of {len(silences)} interruptions" if silences else "",
        }
