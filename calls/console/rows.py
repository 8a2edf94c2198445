"""The questions the pages ask of the database. Each answer is a constant number of queries, whatever the call or the day holds."""

from __future__ import annotations

from typing import Any, Self
from uuid import UUID

from django.db.models import BigIntegerField, Case, Count, F, IntegerField, OuterRef, Q, QuerySet, Subquery, Sum, TextField, Value, When
from django.db.models.functions import Cast, Length

from agents.teams import Sight
from calls.console.search import spellings
from calls.models import (
    CallbackRequest,
    CallEvent,
    CallSession,
    CallSessionQuerySet,
    InboxMessage,
    Recording,
    RecordingKind,
    RecordingState,
    TranscriptLine,
    VapiReport,
)

LIVE_SHOWN = 200
RECENT_SHOWN = 8
MERGED = 0  # place of the last report's time in what `changing` gives
TOLD_AT_MOST = 99  # how far the count beside a link goes

_COLUMNS = (
    *("public_id", "channel", "call_sid", "from_number", "to_number", "status", "rung", "end_reason", "outcome", "report"),
    *("started_at", "answered_at", "ended_at", "last_event_seq"),
    *("erased_at", "erased_why", "sound_erased_at", "bodies_erased_at"),
    *("disclosed_at", "disclosure_mark", "agreed_at", "unrecorded_at"),
    *("line__number", "line__name", "version__name", "version__number"),
    *("metrics__call", "metrics__first_audio_ms", "metrics__interruptions"),
)
_FIGURES = ("metrics__time_to_silence_ms", "metrics__turn_latency_ms", "metrics__audio", "metrics__cost_usd")
_CALLBACK = ("call", "asked_at", "due_at", "done_at", "done_by", "claimed_by", "note")
_OF_CALL = ("public_id", "channel", "from_number", "to_number", "started_at", "erased_at", "line__number", "line__name")


class ConsoleCalls(CallSessionQuerySet):
    """The questions about calls, one method each."""

    def listed(self) -> Self:
        """As rows of a list: one query, and no prompt comes along with the version's name."""
        ended = CallEvent.objects.filter(call=OuterRef("pk"), kind="call-ended").order_by("seq").values("ms")[:1]
        return (
            self.select_related("line", "version", "metrics")
            .only(*_COLUMNS)
            .annotate(ended_ms=Subquery(ended), queue_place=F("waiting__place"))
            .with_barge_ins()
            .order_by("-started_at", "-pk")
        )

    def with_barge_ins(self) -> Self:
        """Counts interruptions from the event log: a live call has no final figures yet."""
        flushed = CallEvent.objects.filter(call=OuterRef("pk"), kind="tts-buffer-flushed").order_by().values("call")
        return self.annotate(flushes=Subquery(flushed.annotate(n=Count("pk")).values("n"), output_field=IntegerField()))

    def with_last_words(self) -> Self:
        said = TranscriptLine.objects.filter(call=OuterRef("pk")).order_by("-n", "-vendor_ms", "-pk")
        return self.annotate(last_words=Subquery(said.values("said")[:1]), last_role=Subquery(said.values("role")[:1]))

    def with_line_that_says(self, looked_for: str) -> Self:
        """Brings the first line along that holds the words somebody looks for."""
        if not looked_for:
            return self
        says = Q()
        for spelling in spellings(looked_for):
            says |= Q(said__icontains=spelling)
        first = TranscriptLine.objects.filter(says, call=OuterRef("pk")).order_by("n", "vendor_ms", "pk").values("said")[:1]
        return self.annotate(found=Subquery(first), looked_for=Value(looked_for, output_field=TextField()))

    def changing(self) -> QuerySet[CallSession, tuple[Any, ...]]:
        """All that says whether a call page is out of date, in one query. Not every change of a row is an event as well."""
        sounds = Recording.objects.filter(call=OuterRef("pk")).order_by().values("call").annotate(n=Count("pk")).values("n")
        making = sounds.filter(state=RecordingState.IN_PROGRESS)
        merged = VapiReport.objects.filter(session__call=OuterRef("pk")).order_by("-merged_at").values("merged_at")[:1]
        # Every line that comes, goes or stands again changes this sum.
        signed = Case(When(retold=True, then=-F("pk")), default=F("pk"), output_field=BigIntegerField())
        lines = TranscriptLine.everything.filter(call=OuterRef("pk")).order_by().values("call").annotate(n=Sum(signed)).values("n")
        found: QuerySet[CallSession, tuple[Any, ...]] = self.annotate(
            sounds=Subquery(sounds), making=Subquery(making), merged=Subquery(merged), told=Subquery(lines)
        ).values_list(
            *("merged", "told", "last_event_seq", "status", "end_reason", "outcome", "report", "waiting__place"),
            *("sounds", "making", "callback__due_at", "callback__done_at"),
            *("agreed_at", "unrecorded_at", "erased_at", "sound_erased_at", "bodies_erased_at"),
        )
        return found

    def at_work(self, *, words: bool) -> Self:
        found = self.live().listed()
        return (found.with_last_words() if words else found)[:LIVE_SHOWN]

    def lately_over(self) -> Self:
        return self.filter(ended_at__isnull=False).listed()[:RECENT_SHOWN]

    def opened(self, public_id: UUID) -> Self:
        """The one call of a call page, with all its figures, what is promised, and how many messages there are of it."""
        inbox = InboxMessage.objects.filter(call=OuterRef("pk")).order_by().values("call").annotate(n=Count("pk")).values("n")
        promised = tuple(f"callback__{name}" for name in _CALLBACK)
        return (
            self.filter(public_id=public_id)
            .listed()
            .select_related("line", "version", "metrics", "callback")
            .only(*_COLUMNS, *_FIGURES, *promised)
            .annotate(messages=Subquery(inbox, output_field=IntegerField()))
        )


def calls(sight: Sight) -> ConsoleCalls:
    return ConsoleCalls(model=CallSession).filter(sight.of("team"))


def voicemails(sight: Sight) -> QuerySet[Recording]:
    """Every message callers left, newest first, with its call and what was promised."""
    columns = (*("sid", "kind", "state", "seconds", "at", "erased_at"), *(f"call__{name}" for name in _OF_CALL))
    promised = tuple(f"call__callback__{name}" for name in _CALLBACK)
    found = Recording.objects.filter(sight.of("call__team"), kind=RecordingKind.VOICEMAIL).select_related("call__line", "call__callback")
    return found.only(*columns, *promised).order_by("-at", "-pk")


def callbacks(sight: Sight) -> QuerySet[CallbackRequest]:
    """Everybody who is to be called back: what is still to do by the time it is due, then what was done, newest first."""
    columns = (*_CALLBACK, *(f"call__{name}" for name in _OF_CALL), "call__end_reason", "call__outcome")
    found = CallbackRequest.objects.filter(sight.of("call__team")).select_related("call__line").only(*columns)
    said = TranscriptLine.objects.filter(call=OuterRef("call_id"), role="user").order_by("-n", "-vendor_ms", "-pk").values("said")[:1]
    return found.annotate(last_words=Subquery(said)).order_by(F("done_at").desc(nulls_first=True), "due_at", "pk")


def callbacks_to_do(sight: Sight) -> int:
    """How many are still to be called back; counts no further than one more than TOLD_AT_MOST."""
    return CallbackRequest.objects.filter(sight.of("call__team"), done_at=None).order_by().values("pk")[: TOLD_AT_MOST + 1].count()


def messages(sight: Sight) -> QuerySet[InboxMessage]:
    """Stored messages, newest first, without their bodies: only how long those are, in characters of their stored JSON.

    A message of no call belongs to no team.
    """
    size = Length(Cast("body", TextField()))
    own = InboxMessage.objects.filter(sight.of("call__team"))
    return own.select_related("call").defer("body").annotate(size=size).order_by("-received_at", "-pk")
