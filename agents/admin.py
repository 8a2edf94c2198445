"""The editing desk: who answers, with which words, and who helps when the agent cannot.

A manager edits a draft and publishes it; what callers hear is always a published version, and those are read-only here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.views.decorators.http import require_POST

from agents import hours, limits, services, signing, tool_request
from agents.forms import NOTE_CHARS, AgentForm, LineForm, OrderForm, Phrases, PublishForm, TargetForm, TeamForm, ToolForm
from agents.limits import PHRASE_LISTS
from agents.meanwhile import SharedList
from agents.models import (
    AgentWords,
    AssistantTemplate,
    Discretion,
    HandoffTarget,
    PhoneLine,
    Premade,
    Rollout,
    Team,
    TemplateVersion,
    Tool,
)
from agents.tasks import enqueue_premake
from agents.teams import seen, sight_of
from agents.trail import Who
from agents.words_shown import listed, preset_shown, words_fieldsets

if TYPE_CHECKING:  # generic for the type checker only
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

KEPT: tuple[str, Any] = ("How long things are kept", {"fields": limits.KEPT, "classes": ("collapse",)})


def seen_by(request: HttpRequest, name: str, rows: models.Manager[Any]) -> models.Prefetch[Any]:
    """Related rows for a list, without those of other teams."""
    return models.Prefetch(name, queryset=seen(rows.all(), sight_of(request.user)))


class DeskAdmin(ModelAdmin):
    """Rows and choices are those its user sees. Our lists say what to do when they are empty: `when_empty`, a sentence or two."""

    when_empty = ""

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return seen(super().get_queryset(request), sight_of(request.user))

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)  # a class made for this request
        form.sight = sight_of(request.user)  # type: ignore[attr-defined]  # of those that offer rows of teams
        return form

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Where something can be saved over, the page also holds when that was read (`agents.meanwhile`).

        Who may only look is shown lists of phrases as they are typed, and not as they are stored.
        """
        (title, first), *others = super().get_fieldsets(request, obj)
        names = [name for name in first["fields"] if name != "as_read"]
        if obj is not None and not self.has_change_permission(request, obj):
            shown: list[tuple[Any, Any]] = [(title, {**first, "fields": names}), *others]
            return [(title, {**group, "fields": [self._as_typed(name) for name in group["fields"]]}) for title, group in shown]
        if obj is not None and "as_read" in self.form.base_fields:
            names.append("as_read")
        return [(title, {**first, "fields": names}), *others]

    def _as_typed(self, name: Any) -> Any:
        field = self.form.base_fields.get(name)
        return listed(name, str(field.label)) if isinstance(field, Phrases) else name


@admin.register(AssistantTemplate)
class AssistantTemplateAdmin(DeskAdmin):
    form = AgentForm
    list_display = ("name", "team", "state", "numbers_answered", "voice", "changed_at")
    search_fields, search_help_text = ("name", "prompt", "first_message"), "Name, greeting or any words of the instructions"
    fieldsets = ((None, {"fields": ("state", "name", "slug", "team")}), *words_fieldsets(tools="tools"), KEPT)
    prepopulated_fields: ClassVar = {"slug": ("name",)}
    readonly_fields = ("state", "preset")
    actions = ("publish",)
    action_form = PublishForm
    change_form_template = "admin/agents/assistanttemplate/change_form.html"
    when_empty = "No agent yet. Add one, write its greeting and instructions, and publish it; then give it a phone line."

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[AssistantTemplate]:
        lines = seen_by(request, "lines", PhoneLine.objects)
        return super().get_queryset(request).select_related("published", "team").prefetch_related("tools", lines)

    @admin.display(description="what callers hear")
    def state(self, template: AssistantTemplate) -> str:
        if template.pk is None or template.published is None:
            return "Nothing yet: this draft has never been published."
        heard = template.published
        link = format_html('<a href="{}">version {}</a>', reverse("admin:agents_templateversion_change", args=[heard.pk]), heard.number)
        if changed := services.changes(template):
            return format_html('{} · <span class="desk-draft">this draft is different: {}</span>', link, ", ".join(changed))
        return format_html("{}, the same as this draft", link)

    @admin.display(description="what that means")
    def preset(self, template: AssistantTemplate) -> str:
        return preset_shown(template)

    @admin.display(description="phone lines")
    def numbers_answered(self, template: AssistantTemplate) -> str:
        return ", ".join(str(line) for line in template.lines.all()) or "none yet"

    @admin.display(description="voice")
    def voice(self, template: AssistantTemplate) -> str:
        return f"{template.voice_id} ({template.voice_provider})"

    @admin.action(description="Publish: new calls use it at once", permissions=["change"])
    def publish(self, request: HttpRequest, queryset: models.QuerySet[AssistantTemplate]) -> None:
        for template in queryset:
            self._publish(request, template)

    def response_add(self, request: HttpRequest, obj: AssistantTemplate, post_url_continue: str | None = None) -> HttpResponse:
        return self._published(request, obj) or super().response_add(request, obj, post_url_continue)

    def response_change(self, request: HttpRequest, obj: AssistantTemplate) -> HttpResponse:
        return self._published(request, obj) or super().response_change(request, obj)

    def _published(self, request: HttpRequest, template: AssistantTemplate) -> HttpResponse | None:
        """The answer to the button “Save and publish”; None when another one was pressed."""
        if "_publish" not in request.POST:
            return None
        self._publish(request, template)
        return HttpResponseRedirect(reverse("admin:agents_assistanttemplate_change", args=[template.pk]))

    def _publish(self, request: HttpRequest, template: AssistantTemplate) -> None:
        note, by = request.POST.get("note", "")[:NOTE_CHARS], request.user.get_username()
        allowed = settings.TOOL_ALLOWED_PRIVATE
        try:
            version = services.publish(
                template=template, note=note, by=by, at=timezone.now(), allowed_private=allowed, who=Who.asking(request)
            )
        except services.NotPublishable as refused:
            reasons = "; ".join(f"{name}: {sentence}" for name, sentence in refused.problems.items())
            self.message_user(request, f"“{template}” was not published. {reasons}", messages.ERROR)
            return
        transaction.on_commit(partial(enqueue_premake, version.pk))
        self.log_change(request, template, f"Published version {version.number}.")
        self.message_user(request, f"“{template}” is published as version {version.number}. New calls use it at once.", messages.SUCCESS)


PHRASES = {name: listed(name) for name in (*PHRASE_LISTS, "redact_patterns")}


@admin.register(TemplateVersion)
class TemplateVersionAdmin(DeskAdmin):
    list_display = ("name_and_number", "published_at", "published_by", "note", "lines_answered", "at_vapi")
    search_fields, search_help_text = ("name", "note", "prompt"), "Agent, note or any words of the instructions"
    list_display_links = ("name_and_number",)
    fieldsets = (
        (None, {"fields": ("name", "number", "published_at", "published_by", "note", "lines_answered", "preparation")}),
        *words_fieldsets(tools="tools_in_words", lists=PHRASES),
    )
    readonly_fields = (
        "lines_answered",
        "preparation",
        "tools_in_words",
        "preset",
        *AgentWords.word_fields(),
        *Discretion.rule_fields(),
        *PHRASES.values(),
    )
    actions = ("prepare",)
    change_form_template = "admin/agents/templateversion/change_form.html"
    when_empty = "No version yet. Open an agent and press “Save and publish”."

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[TemplateVersion]:
        return super().get_queryset(request).prefetch_related(models.Prefetch("rollouts", self._rollouts(request)))

    def _rollouts(self, request: HttpRequest) -> models.QuerySet[Rollout]:
        return Rollout.objects.filter(sight_of(request.user).of("line__team")).select_related("line")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_prepare_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("agents.change_assistanttemplate"))

    def get_urls(self) -> list[URLPattern]:
        return [
            path(f"<int:pk>/{name}/", self.admin_site.admin_view(view), name=f"agents_templateversion_{name}")
            for name, view in (("prepare", self.prepare_one), ("restore", self.restore_one))
        ] + super().get_urls()

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        may = {"may_act": self.has_prepare_permission(request)}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **may})

    @admin.display(description="version", ordering="number")
    def name_and_number(self, version: TemplateVersion) -> str:
        return str(version)

    @admin.display(description="what that means")
    def preset(self, version: TemplateVersion) -> str:
        return preset_shown(version)

    @admin.display(description="answers")
    def lines_answered(self, version: TemplateVersion) -> str:
        return ", ".join(f"{rollout.line} ({rollout.share} %)" for rollout in version.rollouts.all()) or "no line any more"

    @admin.display(description="at Vapi", ordering="premade")
    def at_vapi(self, version: TemplateVersion) -> str:
        return format_html('<span class="desk-{}">{}</span>', version.premade, version.get_premade_display())

    @admin.display(description="at Vapi")
    def preparation(self, version: TemplateVersion) -> str:
        if version.premade == Premade.READY:
            return "Ready"
        said = f"Could not be prepared: {version.premade_error}" if version.premade == Premade.FAILED else "Being prepared."
        return format_html('<span class="desk-{}">{} Calls work meanwhile and send its words along.</span>', version.premade, said)

    @admin.display(description="tools")
    def tools_in_words(self, version: TemplateVersion) -> str:
        def signed(tool: Mapping[str, Any]) -> str:
            return f" · signed with the secret in {tool['secret_env']}" if tool.get("secret_env") else ""

        rows = ((tool["name"], tool["description"], tool["url"], signed(tool)) for tool in version.tools)
        return format_html_join("", "<p><code>{}</code> {}<br><small>{}{}</small></p>", rows) or "none"

    @admin.action(description="Prepare again at Vapi", permissions=["prepare"])
    def prepare(self, request: HttpRequest, queryset: models.QuerySet[TemplateVersion]) -> None:
        queued = [version.pk for version in queryset if services.prepare_again(version_pk=version.pk)]
        for pk in queued:
            transaction.on_commit(partial(enqueue_premake, pk))
        said = "They are being prepared; look again in a few seconds." if queued else "They were all ready."
        self.message_user(request, said, messages.INFO)

    def restore(self, request: HttpRequest, queryset: models.QuerySet[TemplateVersion]) -> None:
        """Callers hear the version again; its draft is left alone."""
        for version in queryset.select_related("template"):
            restored = services.restore(version=version, at=timezone.now(), who=Who.asking(request))
            if restored:
                self.log_change(request, version.template, f"Restored version {version.number}.")
            said = "New calls use it at once; the draft is as it was." if restored else "Callers hear it already."
            self.message_user(request, f"“{version}”: {said}", messages.SUCCESS if restored else messages.INFO)

    def prepare_one(self, request: HttpRequest, pk: int) -> HttpResponse:
        """A button on a version's page."""
        return require_POST(self._act)(request, pk, self.prepare)

    def restore_one(self, request: HttpRequest, pk: int) -> HttpResponse:
        """A button on a version's page."""
        return require_POST(self._act)(request, pk, self.restore)

    def _act(self, request: HttpRequest, pk: int, act: Callable[[HttpRequest, models.QuerySet[TemplateVersion]], None]) -> HttpResponse:
        versions = self.get_queryset(request).filter(pk=pk)
        if not self.has_prepare_permission(request):
            raise PermissionDenied
        if not versions.exists():
            raise Http404
        act(request, versions)
        return HttpResponseRedirect(reverse("admin:agents_templateversion_change", args=[pk]))


@admin.register(PhoneLine)
class PhoneLineAdmin(DeskAdmin):
    form = LineForm
    list_display = ("number", "name", "team", "template", "answered_with", "people", "takes_messages", "records")
    list_select_related = ("template__published", "team")
    search_fields, search_help_text = ("number", "name", "team__name", "template__name"), "Number, name, team or agent"
    fieldsets = (
        (None, {"fields": ("number", "name", "team", "template", "answered_with")}),
        ("When a person is needed", {"fields": ("handoff", "zero_for_person", "voicemail", "callback_hours")}),
        ("When your people are at work", {"fields": ("time_zone", "hours", "holidays", "at_work")}),
        ("Announcement and recording", {"fields": ("disclosure", "record_calls", "all_party_consent")}),
        KEPT,
    )
    readonly_fields = ("answered_with", "at_work")
    when_empty = "No phone line yet. Publish an agent, then add your Twilio number here."

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[PhoneLine]:
        return super().get_queryset(request).prefetch_related("handoff", "rollouts__version")

    @admin.display(description="callers hear")
    def answered_with(self, line: PhoneLine) -> str:
        if line.pk is None:
            return "The published version of the agent you choose."
        shares = ", ".join(f"version {rollout.version.number} ({rollout.share} %)" for rollout in line.rollouts.all())
        if shares or line.template.published is None:
            return shares or "Nobody yet: publish the agent. Until then people or voicemail take the calls."
        return f"version {line.template.published.number}"

    @admin.display(description="now")
    def at_work(self, line: PhoneLine) -> str:
        now, open_at = timezone.now(), hours.of(line)
        if hours.is_open(open_at, now):
            return "Somebody is at work."
        opening = hours.next_opening(open_at, now)
        return f"Nobody is at work until {hours.said(opening, now, open_at.zone)}." if opening else "Nobody is at work, all year round."

    @admin.display(description="voicemail", boolean=True)
    def takes_messages(self, line: PhoneLine) -> bool:
        return line.voicemail

    @admin.display(description="recorded", boolean=True)
    def records(self, line: PhoneLine) -> bool:
        return line.record_calls

    @admin.display(description="hands over to")
    def people(self, line: PhoneLine) -> str:
        return ", ".join(target.name for target in line.handoff.all()) or "nobody"

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        services.settle_line(line_pk=form.instance.pk)


@admin.register(Tool)
class ToolAdmin(DeskAdmin):
    form = ToolForm
    list_display = ("name", "description", "used_by")
    search_fields, search_help_text = ("name", "description"), "Name or any words of what it does"
    fieldsets = (
        (None, {"fields": ("name", "description", "url", "parameters", "request_shown")}),
        ("While it works", {"fields": ("timeout_s", "waiting_sentence")}),
        ("Proof that it is us", {"fields": ("secret_env", "proof")}),
    )
    readonly_fields = ("request_shown", "proof")
    when_empty = "No tool yet. A tool is a web address of yours that the agent may ask while it talks, like an account look-up."

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Tool]:
        return super().get_queryset(request).prefetch_related(seen_by(request, "templates", AssistantTemplate.objects))

    @admin.display(description="used by")
    def used_by(self, tool: Tool) -> str:
        return ", ".join(template.name for template in tool.templates.all()) or "no agent that you see"

    @admin.display(description="what your address gets")
    def request_shown(self, tool: Tool) -> str:
        if tool.pk is None:
            return "Save the tool to see the request it will get."
        words = services.tool_words(tool)
        return format_html('<pre class="desk-request">{}</pre>', tool_request.text(words, signed=_is_signed(words)))

    @admin.display(description="now")
    def proof(self, tool: Tool) -> str:
        words = services.tool_words(tool)
        try:
            secret = signing.secret_of(words)
        except signing.SecretMissing:
            return format_html(
                '<span class="desk-failed">{}</span>', f"{tool.secret_env} is not set on this server: the tool is not called."
            )
        if not secret:
            return "Requests are not signed."
        return "Requests are signed: HMAC-SHA256 over the time, a dot and the body."


def _is_signed(tool: Mapping[str, Any]) -> bool:
    try:
        return bool(signing.secret_of(tool))
    except signing.SecretMissing:
        return True


@admin.register(HandoffTarget)
class HandoffTargetAdmin(DeskAdmin):
    form = TargetForm
    list_display = ("name", "team", "order", "number", "ring_seconds", "lines_served", "slug")
    list_editable = ("order",)
    list_display_links = ("name",)
    prepopulated_fields: ClassVar = {"slug": ("name",)}
    when_empty = "Nobody yet. Add the people callers can be handed to, then choose them on a phone line."

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[HandoffTarget]:
        return super().get_queryset(request).select_related("team").prefetch_related(seen_by(request, "lines", PhoneLine.objects))

    def get_changelist_form(self, request: HttpRequest, **kwargs: Any) -> Any:
        return super().get_changelist_form(request, **{"form": OrderForm, **kwargs})

    def get_changelist_formset(self, request: HttpRequest, **kwargs: Any) -> Any:
        return super().get_changelist_formset(request, **{"formset": SharedList, **kwargs})

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """What was typed and refused stands beside its own colleague, whatever place that one has by now."""
        answer = super().changelist_view(request, extra_context)
        shown = (getattr(answer, "context_data", None) or {}).get("cl")
        if shown is not None and shown.formset is not None and shown.formset.is_bound:
            shown.result_list = [form.instance for form in shown.formset.forms]
        return answer

    @admin.display(description="phone lines")
    def lines_served(self, target: HandoffTarget) -> str:
        return ", ".join(str(line) for line in target.lines.all()) or "none: choose them on a line"


@admin.register(Team)
class TeamAdmin(DeskAdmin):
    form = TeamForm
    list_display = ("name", "slug", "lines_owned", "people")
    prepopulated_fields: ClassVar = {"slug": ("name",)}
    filter_horizontal = ("members",)
    when_empty = "No team yet. You need none; with several, lines, agents, colleagues and calls are seen by their own team only."

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Team]:
        return super().get_queryset(request).prefetch_related("lines", "members")

    @admin.display(description="members")
    def people(self, team: Team) -> str:
        return ", ".join(member.get_username() for member in team.members.all()) or "nobody"

    @admin.display(description="phone lines")
    def lines_owned(self, team: Team) -> str:
        return ", ".join(str(line) for line in team.lines.all()) or "none"
