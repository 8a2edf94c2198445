"""Calls in the admin: for looking things up. History is read here and changed nowhere.

Every list and page costs a constant number of queries, and long calls show their newest rows; the console shows them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.db.models import F, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from calls.console import shown
from calls.models import CallEvent, CallMetrics, CallSession, ToolRun, TranscriptLine, VapiSession
from calls.printed import words

NEWEST_EVENTS = 200
NEWEST_LINES = 200

if TYPE_CHECKING:
    CallAdmin = admin.ModelAdmin[CallSession]
    Inline = admin.TabularInline[Any, CallSession]
else:
    CallAdmin, Inline = admin.ModelAdmin, admin.TabularInline


class History:
    """Nobody adds, changes or deletes what happened."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


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
    fields = ("started_at", "name", "arguments", "result", "problem")


class VapiSessionInline(HistoryInline):
    """Without the two addresses: whoever has them has the call."""

    model = VapiSession
    verbose_name_plural = "Vapi sessions"
    fields = ("n", "state", "vapi_call_id", "claimed_by", "asked_at", "live_at", "ended_at", "failure", "ended_reason")


class MetricsInline(HistoryInline):
    model = CallMetrics
    verbose_name_plural = "Figures"
    fields = ("first_audio_ms", "interruptions", "time_to_silence_ms", "turn_latency_ms", "audio", "cost_usd")


@admin.register(CallSession)
class CallSessionAdmin(History, CallAdmin):
    list_display = ("started_at", "caller", "to_number", "agent", "status", "outcome", "ended_by", "duration")
    list_filter = ("status", "outcome", "end_reason", "rung", "line")
    list_select_related = ("line", "version")
    list_per_page = 50
    show_full_result_count = False
    date_hierarchy = "started_at"
    search_fields = ("call_sid", "from_number", "to_number", "vapi_sessions__vapi_call_id")
    search_help_text = "Twilio's CallSid, a phone number or Vapi's call id"
    fieldsets: ClassVar = (
        (None, {"fields": ("console_page", "status", "outcome", "end_reason", "rung")}),
        ("Who", {"fields": ("channel", "from_number", "to_number", "line", "version")}),
        ("When", {"fields": ("started_at", "answered_at", "ended_at", "last_seen_at")}),
        ("For engineers", {"fields": ("public_id", "call_sid", "account_sid", "stream_sid", "epoch"), "classes": ("collapse",)}),
    )
    inlines = (TranscriptInline, ToolRunInline, EventInline, MetricsInline, VapiSessionInline)

    def get_queryset(self, request: HttpRequest) -> QuerySet[CallSession]:
        return super().get_queryset(request).select_related("line", "version")

    def get_readonly_fields(self, request: HttpRequest, obj: CallSession | None = None) -> tuple[str, ...]:
        return ("console_page", "public_id")

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
