"""Calls in the admin: for looking things up. History is read here and changed nowhere.

Which kinds of rows somebody sees, the permission to view each says: lines, events, tools and reports hold what was said.
Every list and page costs a constant number of queries, and long calls show their newest rows; the console shows them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html

from agents.models import PhoneLine
from agents.teams import seen, sight_of
from agents.trail import Who
from calls.console import shown, watched
from calls.console.appendix import report_of
from calls.models import (
    CallbackRequest,
    CallEvent,
    CallMetrics,
    CallSession,
    Recording,
    SecondFactor,
    ToolRun,
    TranscriptLine,
    VapiReport,
    VapiSession,
)
from calls.printed import words

NEWEST_EVENTS = 200
NEWEST_LINES = 200
CONSENT = ("disclosed_at", "agreed_at", "unrecorded_at")
ERASED = ("erased_at", "erased_why", "sound_erased_at", "bodies_erased_at")

if TYPE_CHECKING:
    CallAdmin = admin.ModelAdmin[CallSession]
    OwnAdmin = admin.ModelAdmin[Any]
    Inline = admin.TabularInline[Any, CallSession]
else:
    CallAdmin, OwnAdmin, Inline = admin.ModelAdmin, admin.ModelAdmin, admin.TabularInline


class History:
    """Nobody adds, changes or deletes what happened."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def linked(model: str, pk: int, words: str) -> str:
    """A link to a row's page in the admin."""
    return format_html('<a href="{}">{}</a>', reverse(f"admin:calls_{model}_change", args=[pk]), words)


class HistoryInline(History, Inline):
    """Rows that belong to a call. `call` comes along, or naming each row would cost a query."""

    extra = 0
    can_delete = False
    show_change_link = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("call")


class TranscriptInline(HistoryInline):
    model = TranscriptLine
    verbose_name_plural = f"Transcript (newest {NEWEST_LINES} lines)"
    fields = ("at", "role", "said", "heard", "heard_text")

    def get_queryset(self, request: HttpRequest) -> QuerySet[TranscriptLine]:
        match = request.resolver_match
        call = str(match.kwargs.get("object_id")) if match else ""
        newest = TranscriptLine.objects.filter(call_id=int(call) if call.isdigit() else None).order_by("-pk")
        return super().get_queryset(request).filter(pk__in=newest.values("pk")[:NEWEST_LINES])


class EventInline(HistoryInline):
    model = CallEvent
    verbose_name_plural = f"Event log (newest {NEWEST_EVENTS} events)"
    fields = ("seq", "at", "ms", "source", "what_happened")
    readonly_fields = ("what_happened",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[CallEvent]:
        return super().get_queryset(request).filter(seq__gt=F("call__last_event_seq") - NEWEST_EVENTS)

    @admin.display(description="what happened")
    def what_happened(self, event: CallEvent) -> str:
        return words(event.kind, event.detail)


class ToolRunInline(HistoryInline):
    model = ToolRun
    verbose_name_plural = "Tools"
    fields = ("started_at", "name", "arguments", "sent", "result", "problem")


class VapiSessionInline(HistoryInline):
    """Without the two addresses: whoever has them has the call."""

    model = VapiSession
    verbose_name_plural = "Vapi sessions"
    fields = ("n", "state", "vapi_call_id", "claimed_by", "asked_at", "live_at", "ended_at", "failure", "ended_reason", "report_page")
    readonly_fields = ("report_page",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[VapiSession]:
        return super().get_queryset(request).select_related("report")

    @admin.display(description="report")
    def report_page(self, session: VapiSession) -> str:
        report = report_of(session)
        return linked("vapireport", report.pk, "Open") if report else shown.NOTHING


class RecordingInline(HistoryInline):
    model = Recording
    fields = ("at", "kind", "state", "seconds", "sid")


class CallbackInline(HistoryInline):
    model = CallbackRequest
    verbose_name_plural = "Call back"
    fields = ("asked_at", "due_at", "done_at", "done_by", "note")


class MetricsInline(HistoryInline):
    model = CallMetrics
    verbose_name_plural = "Figures"
    fields = ("first_audio_ms", "interruptions", "time_to_silence_ms", "turn_latency_ms", "audio", "cost_usd")


class OwnLines(admin.RelatedFieldListFilter):
    """The lines of its user to filter by."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(str(line.pk), str(line)) for line in seen(PhoneLine.objects.all(), sight_of(request.user))]


class Watched(OwnAdmin):
    """What was said is on its pages: who opens one is told to the trail before."""

    def tell(self, who: Who, row: Any) -> None:
        raise NotImplementedError

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return watched.refused_untold(super().changeform_view)(request, *args, **kwargs)

    def render_change_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        self.tell(Who.asking(request), kwargs["obj"])
        return super().render_change_form(request, *args, **kwargs)


@admin.register(CallSession)
class CallSessionAdmin(History, Watched, CallAdmin):
    list_display = ("started_at", "caller", "to_number", "team", "agent", "status", "outcome", "ended_by", "duration")
    list_filter = ("status", "outcome", "end_reason", "rung", ("line", OwnLines))
    list_select_related = ("line", "version", "team")
    list_per_page = 50
    show_full_result_count = False
    date_hierarchy = "started_at"
    search_fields = ("call_sid", "from_number", "to_number", "vapi_sessions__vapi_call_id")
    search_help_text = "Twilio's CallSid, a phone number or Vapi's call id"
    when_empty = "No call has come in yet. Point a Twilio number's voice webhook at /webhook/twilio."
    fieldsets: ClassVar = (
        (None, {"fields": ("console_page", "status", "outcome", "end_reason", "rung")}),
        ("Who", {"fields": ("channel", "from_number", "to_number", "line", "team", "version")}),
        ("When", {"fields": ("started_at", "answered_at", "ended_at", "last_seen_at")}),
        ("What was agreed, and what is erased", {"fields": (*CONSENT, *ERASED), "classes": ("collapse",)}),
        ("For engineers", {"fields": ("public_id", "call_sid", "account_sid", "stream_sid", "epoch"), "classes": ("collapse",)}),
    )
    inlines = (TranscriptInline, ToolRunInline, RecordingInline, CallbackInline, EventInline, MetricsInline, VapiSessionInline)

    class Media:
        css: ClassVar = {"all": ("console/admin.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[CallSession]:
        return super().get_queryset(request).filter(sight_of(request.user).of("team")).select_related("line", "version", "team")

    def get_readonly_fields(self, request: HttpRequest, obj: CallSession | None = None) -> tuple[str, ...]:
        return ("console_page", "public_id")

    def tell(self, who: Who, row: CallSession) -> None:
        watched.call_read(who, row)

    @admin.display(description="caller", ordering="from_number")
    def caller(self, call: CallSession) -> str:
        return shown.caller_words(call)

    @admin.display(description="agent", ordering="version")
    def agent(self, call: CallSession) -> str:
        return shown.agent_words(call)

    @admin.display(description="ended by", ordering="end_reason")
    def ended_by(self, call: CallSession) -> str:
        return call.get_end_reason_display() if call.end_reason else shown.NOTHING

    @admin.display(description="duration")
    def duration(self, call: CallSession) -> str:
        return shown.length(shown.duration_ms(call))

    @admin.display(description="on one page")
    def console_page(self, call: CallSession) -> str:
        return format_html('<a href="{}">Open this call in the console</a>', reverse("console:call", args=[call.public_id]))


class OfACall(History, OwnAdmin):
    """Rows of one call each, with the way to its page."""

    list_per_page = 50
    show_full_result_count = False
    call_path = "call"

    class Media:
        css: ClassVar = {"all": ("console/admin.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        mine = sight_of(request.user).of(f"{self.call_path}__team")
        return super().get_queryset(request).filter(mine).select_related(self.call_path)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("call_page",)

    @admin.display(description="call")
    def call_page(self, row: Any) -> str:
        call = row
        for step in self.call_path.split("__"):
            call = getattr(call, step)
        return linked("callsession", call.pk, call.short_id)


@admin.register(Recording)
class RecordingAdmin(OfACall):
    list_display = ("at", "call_page", "kind", "state", "seconds")
    list_filter = ("kind", "state")
    date_hierarchy = "at"
    search_fields = ("sid", "call__call_sid")
    search_help_text = "Twilio's RecordingSid or CallSid"
    when_empty = "Nothing is recorded yet. A line's page says whether it records calls, and whether callers may leave a message."
    fields = ("call_page", "kind", "state", "seconds", "at", "sid")


@admin.register(CallbackRequest)
class CallbackRequestAdmin(OfACall):
    list_display = ("due_at", "call_page", "asked_at", "done_at", "done_by")
    list_filter = (("done_at", admin.EmptyFieldListFilter),)
    search_fields = ("call__call_sid", "call__from_number", "done_by", "note")
    search_help_text = "A phone number, Twilio's CallSid, who called back, or words of the note"
    when_empty = "Nobody was promised a call back yet. Callers are when they leave a message, or ask for one because nobody could talk."
    fields = ("call_page", "asked_at", "due_at", "done_at", "done_by", "note")


@admin.register(VapiReport)
class VapiReportAdmin(OfACall, Watched):
    """Without the addresses of its recordings: none is kept."""

    call_path = "session__call"
    list_display = ("merged_at", "call_page", "success", "lines_added")
    date_hierarchy = "merged_at"
    search_fields = ("session__vapi_call_id", "session__call__call_sid", "summary")
    search_help_text = "Vapi's call id, Twilio's CallSid, or words of the summary"
    when_empty = "No report yet. Vapi sends one some seconds after a call that its agent carried."
    fields = ("call_page", "merged_at", "summary", "success", "structured", "artifacts", "latencies", "costs", "lines_added")

    def tell(self, who: Who, row: VapiReport) -> None:
        watched.report_read(who, row.session.call)


@admin.register(SecondFactor)
class SecondFactorAdmin(OwnAdmin):
    """Who logs in with a code. Deleting one is how an admin helps somebody who has lost the phone; its secret is shown to nobody."""

    list_display = ("user", "confirmed_at")
    list_select_related = ("user",)
    search_fields, search_help_text = ("user__username",), "Name of a user"
    when_empty = "Nobody logs in with a code yet. Whoever is logged in finds it behind their name, at the top of the console."
    fields = readonly_fields = ("user", "confirmed_at")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
