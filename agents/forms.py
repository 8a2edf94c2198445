"""The editing desk's forms: people's words on top, `agents.limits` below. Help texts quote the table that checks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.db.models import Q, QuerySet
from django.forms.fields import InvalidJSONInput
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from agents import discretion, limits, presets
from agents.meanwhile import SharedForm
from agents.models import AssistantTemplate, HandoffTarget, PhoneLine, Team, Tool
from agents.teams import EVERYTHING, seen
from bridge.errors import BadMessage
from bridge.untrusted import parse_untrusted

if TYPE_CHECKING:  # generic for the type checker only
    RowsField = forms.ModelMultipleChoiceField[Any]
else:
    RowsField = forms.ModelMultipleChoiceField

NOTE_CHARS = 200
KEY = re.compile(r"[0-9]{1,18}")
MAX_SCHEMA_BYTES = 64 * 1024
TYPED_NUMBER_CHARS = 40  # people write them with spaces and brackets
ADDRESS_HELP = "We send it what the model said; the model gets the answer as one line. It must start with https://."


class Phrases(forms.CharField):
    """A list of phrases, edited one a line."""

    widget = AdminTextareaWidget(attrs={"rows": 3})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        if "\0" in (value or ""):  # the field's own check would look at a list
            raise forms.ValidationError("Null characters are not allowed.")
        return [phrase for line in (value or "").splitlines() if (phrase := line.strip())]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool((initial or []) != self.to_python(data))


class Schema(forms.JSONField):
    """JSON as people can read it, held to the same caps as a stranger's; what they typed wrong stays as they typed it."""

    def to_python(self, value: Any) -> Any:
        if not isinstance(value, str) or not value.strip():
            return None if isinstance(value, str) else value
        try:
            return parse_untrusted(value, max_bytes=MAX_SCHEMA_BYTES)
        except BadMessage:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from None

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            return self.to_python(data)
        except forms.ValidationError:
            return InvalidJSONInput(data)

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return json.dumps(value, indent=2, ensure_ascii=False) if value else ""
        return super().prepare_value(value) if value else ""


class Suggestions(AdminTextInputWidget):
    """A text input that proposes names: Vapi's lists grow faster than ours, but most people want one of these."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = tuple(dict.fromkeys(names))

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        listed = f"id_{name}_names"
        shown = super().render(name, value, {**(attrs or {}), "list": listed}, renderer)
        options = format_html_join("", '<option value="{}"></option>', ((each,) for each in self.names))
        return format_html('{}<datalist id="{}">{}</datalist>', shown, listed, options)


class Rows(RowsField):
    """Rows to choose. What cannot be a key is no row, and is not looked for."""

    def clean(self, value: Any) -> Any:
        if any(not is_key(each) for each in value or ()):
            raise forms.ValidationError(self.error_messages["invalid_pk_value"], code="invalid_pk_value", params={"pk": "…"})
        return super().clean(value)


class Ticked(Rows):
    """Rows as boxes to tick."""

    widget = forms.CheckboxSelectMultiple


class Colleagues(Ticked):
    """People to tick, in the order in which they are called."""

    def label_from_instance(self, target: Any) -> str:
        return f"{target.order}. {target.name} · {target.number}"


def is_key(typed: Any) -> bool:
    """Whether this may be a row's primary key; the admin asks the database for anything, and SQLite fails beyond 64 bits."""
    return KEY.fullmatch(str(typed)) is not None


def _provider(name: str, known: Iterable[str]) -> forms.ChoiceField:
    """A choice among the providers the table knows, starting with the model's own default."""
    field = next(field for field in AssistantTemplate._meta.fields if field.name == name)
    return forms.ChoiceField(choices=[(each, each) for each in known], label=str(field.verbose_name).capitalize(), initial=field.default)


def _all(lists: Iterable[tuple[str, ...]]) -> list[str]:
    return [name for names in lists for name in names]


KEEPING_HELP = {
    "keep_days": "From the end of a call, for past calls too; then its words and the caller's number are erased. 0: right after the call. "
    "Empty: as long as everything here is kept, which is also the longest.",
    "keep_sound_days": "They may go before the transcript, not after it. Empty: as long as it.",
    "keep_bodies_days": "What Vapi sent, as it came. They may go before the transcript, not after it. Empty: as long as it.",
}


def _ranges() -> dict[str, str]:
    """Help for every field with a range, said by the range itself."""
    empty = " Empty: the usual."
    return {name: f"{limit}.".capitalize() + (empty if name in limits.OPTIONAL else "") for name, limit in limits.RANGES.items()}


class OwnForm(SharedForm):
    """A form that offers what its user sees, and what the row has already: saving it neither reaches nor loses another team's.

    Who is in teams gives each row one of theirs, and need not choose where there is only one.
    """

    sight = EVERYTHING

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            if isinstance(field, forms.ModelChoiceField) and not self.sight.everything:
                self._narrow(name, field)

    def _narrow(self, name: str, field: forms.ModelChoiceField[Any]) -> None:
        rows: QuerySet[Any] = field.queryset  # type: ignore[assignment]  # of a field in use
        field.queryset = rows.filter(Q(pk__in=seen(rows, self.sight).order_by().values("pk")) | Q(pk__in=self._has(name)))
        if name == "team" and len(self.sight.teams) == 1:
            field.empty_label, field.initial = None, min(self.sight.teams)
        elif name == "team":
            field.required = bool(self.sight.teams)

    def clean_team(self) -> Team | None:
        chosen: Team | None = self.cleaned_data["team"]
        return Team.objects.get(pk__in=self.sight.teams) if chosen is None and len(self.sight.teams) == 1 else chosen

    def _has(self, name: str) -> list[Any]:
        """Keys of what the stored row has there."""
        stored: Any = getattr(self.instance, name, None) if self.instance.pk else None
        if hasattr(stored, "values_list"):
            return list(stored.values_list("pk", flat=True))
        return [stored.pk] if stored else []


class AgentForm(OwnForm):
    end_call_phrases = Phrases(
        required=False,
        label="Phrases of the agent that end the call",
        help_text="When the agent says one of these, the call ends. One a line.",
    )
    keyterms = Phrases(required=False, label="Words to listen for", help_text="Product and company names, one a line.")
    acknowledgement_phrases = Phrases(
        required=False,
        label="Phrases that never interrupt",
        help_text="Like “okay” or “mhm”. Said while the agent talks, they do not stop it. One a line.",
    )
    interruption_phrases = Phrases(
        required=False,
        label="Phrases that always interrupt",
        help_text="Like “stop” or “wait”. They stop the agent whatever else is set. One a line.",
    )
    redact_patterns = Phrases(
        required=False,
        label="Leave out whatever matches one of these patterns",
        help_text=f"Regular expressions, one a line, like CUST-[0-9]{{6}} or (?i)password is \\S+. At most {discretion.PATTERNS} of up to "
        f"{discretion.PATTERN_CHARS} characters. Whatever could take long is refused: looking ahead or back, and references to groups.",
    )
    tools = Ticked(Tool.objects.all(), required=False, help_text="What the agent may look up or do at an address of yours while it talks.")
    model_provider = _provider("model_provider", limits.MODELS)
    voice_provider = _provider("voice_provider", limits.VOICES)
    transcriber_provider = _provider("transcriber_provider", limits.TRANSCRIBERS)

    class Meta:
        model = AssistantTemplate
        exclude: ClassVar = ["published"]
        widgets: ClassVar = {
            "first_message": AdminTextareaWidget(attrs={"rows": 2}),
            "prompt": AdminTextareaWidget(attrs={"rows": 22, "class": "vLargeTextField prompt"}),
            "end_call_message": AdminTextareaWidget(attrs={"rows": 2}),
            "time_is_up": AdminTextareaWidget(attrs={"rows": 2}),
            "model_name": Suggestions(_all(limits.MODELS.values())),
            "voice_model": Suggestions(_all(voice.models for voice in limits.VOICES.values())),
            "transcriber_model": Suggestions(_all(each.models for each in limits.TRANSCRIBERS.values())),
            "language": Suggestions(_all(each.languages for each in limits.TRANSCRIBERS.values())),
        }
        help_texts: ClassVar = {
            **_ranges(),
            **KEEPING_HELP,
            "name": f"For you and your colleagues; callers never hear it. At most {limits.NAME_CHARS} characters.",
            "slug": "Stands for it in exports and addresses. Small letters, digits and dashes.",
            "prompt": "Who the agent is, what it can do, and when it must get a person. Callers never hear this.",
            "first_message": "The first words callers hear after the announcement.",
            "first_message_interruptible": "Recommended: people who call often do not wait for the end.",
            "end_call_message": "Said before the agent hangs up.",
            "voice_id": "The voice's id or name at its provider.",
            "voice_speed": "1 is normal. Most voices take 0.7 to 1.2.",
            "denoise": "Keeps traffic, keyboards and other people's voices from interrupting the agent.",
            "callers_from": "Choosing another one fills the fields below, but for those you change yourself at the same time.",
            "barge_in": "“Stop at once” feels quick; “pause first” suits noisy lines.",
            "tell_heard": "So that it does not take for known what the caller never heard.",
            "stop_words": f"{limits.RANGES['stop_words']}. With 0, any speech of the length below interrupts.",
            "sound": "Telephone is right for nearly all agents and costs the least. Wideband adds nothing the phone did not carry; "
            "some transcribers and voices work better with it.",
            "keypad": "What callers type, like a customer number, is told to the agent and kept nowhere else. "
            "Say in the instructions what it is for.",
            "keypad_digits": f"{limits.RANGES['keypad_digits']}. With so many it is complete; three seconds without a key complete it too.",
            "may_transfer": "Needs people under “hands over to” of the phone line.",
            "at_longest": "Going on costs for as long as the caller stays.",
            "time_is_up": "Said when the longest time is near, by an agent that then hangs up.",
            "silence_timeout_s": f"{limits.RANGES['silence_timeout_s']}. Empty: Vapi decides.",
            "redact_cards": "Written or spoken, also in parts. In their place stands [card], and nobody can get them back.",
            "redact_emails": "Written or spoken, like “alex at example dot com”. In their place stands [e-mail].",
            "redact_phones": "Seven digits or more, written or spoken. In their place stands [phone]; the number of the caller stays.",
        }

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if "callers_from" in self.changed_data and "callers_from" in cleaned:
            cleaned |= self._filled(cleaned)
        _complain(self, limits.word_problems(cleaned) | discretion.rule_problems(cleaned) | limits.keeping_problems(cleaned))
        return cleaned

    def _filled(self, cleaned: Mapping[str, Any]) -> dict[str, Any]:
        """What the newly chosen preset says of the fields nobody has typed in."""
        usual = presets.values(cleaned["callers_from"], transcriber=cleaned.get("transcriber_provider", ""))
        return {name: value for name, value in usual.items() if name not in self.changed_data and name not in self.errors}


class ToolForm(SharedForm):
    parameters = Schema(
        required=False,
        label="What the model must tell it (JSON Schema)",
        widget=AdminTextareaWidget(attrs={"rows": 12, "class": "vLargeTextField code"}),
        help_text='Like {"type": "object", "properties": {"email": {"type": "string"}}, "required": ["email"]}. Empty: nothing.',
    )
    url = forms.URLField(
        label="Address", max_length=500, assume_scheme="https", widget=AdminTextInputWidget(attrs={"size": 60}), help_text=ADDRESS_HELP
    )

    class Meta:
        model = Tool
        fields: ClassVar = ["name", "description", "url", "parameters", "timeout_s", "waiting_sentence", "secret_env"]
        widgets: ClassVar = {
            "description": AdminTextareaWidget(attrs={"rows": 3}),
        }
        help_texts: ClassVar = {
            "name": "What the model calls it. Letters, digits, _ and -.",
            "description": "The model decides by these words when to use it.",
            "timeout_s": f"{limits.TOOL_TIMEOUT_S}. The caller hears nothing meanwhile, or the sentence below.",
            "waiting_sentence": "Like “One moment, I am looking that up.” Empty: nothing is said.",
            "secret_env": "The name of the variable on the server, never the secret itself; ask whoever runs the server. "
            "Your address can check by it that a request is ours. Empty: the secret all tools share, if there is one.",
        }
        labels: ClassVar = {"secret_env": "Signed with the secret in"}

    def clean_parameters(self) -> Any:
        return self.cleaned_data["parameters"] or {}

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        _complain(self, limits.tool_problems(cleaned, allowed_private=settings.TOOL_ALLOWED_PRIVATE))
        return cleaned


class TargetForm(OwnForm):
    number = forms.CharField(
        max_length=TYPED_NUMBER_CHARS,
        label="Phone number",
        help_text="With + and country code, like +15550100111. Premium, shared-cost and satellite numbers are not called.",
    )

    class Meta:
        model = HandoffTarget
        fields: ClassVar = ["name", "slug", "team", "number", "order", "ring_seconds", "talk_minutes"]
        help_texts: ClassVar = {
            "name": "Who picks up: a person or a group.",
            "slug": "What the model calls it; it never sees the number.",
            "order": "The smallest is called first. The list of colleagues lets you change all of them at once.",
            "ring_seconds": f"{limits.RING_SECONDS}. Then the next one is called.",
            "talk_minutes": f"{limits.TALK_MINUTES}. Then Twilio ends the call, however good the talk is.",
        }

    def clean_number(self) -> str:
        return _digits(self.cleaned_data["number"])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        _complain(self, limits.target_problems(cleaned))
        return cleaned


class OrderForm(SharedForm):
    """A colleague in the list of all; of those only who was given another place is saved."""

    class Meta:
        model = HandoffTarget
        fields: ClassVar = ["order"]

    def clean_as_read(self) -> str:
        return super().clean_as_read() if self.has_changed() else ""


class LineForm(OwnForm):
    number = forms.CharField(
        max_length=TYPED_NUMBER_CHARS, label="Phone number", help_text="Your Twilio number, with + and country code, like +15550100100."
    )
    handoff = Colleagues(
        HandoffTarget.objects.all(),
        required=False,
        label="Hands over to",
        help_text="Called one after the other, by their numbers here, when the agent hands over or cannot answer. "
        "Those to tick are added under Colleagues.",
    )
    hours = Phrases(
        required=False,
        label="Hours",
        help_text="Days and times, one a line, like Mon-Fri 9:00-17:00 or Sat 10-12, 13-15. Outside them nobody is rung: the agent says so "
        "and promises a call back for when you are there. Empty: somebody is always there.",
    )
    holidays = Phrases(
        required=False,
        label="Holidays",
        help_text="Days nobody works, one a line: 2026-12-24 is that day, 25 December every year's. A remark may follow.",
    )

    class Meta:
        model = PhoneLine
        fields: ClassVar = [
            "number",
            "name",
            "team",
            "template",
            "handoff",
            "zero_for_person",
            "voicemail",
            "callback_hours",
            "time_zone",
            "hours",
            "holidays",
            "disclosure",
            "record_calls",
            "all_party_consent",
            *limits.KEPT,
        ]
        widgets: ClassVar = {
            "disclosure": AdminTextareaWidget(attrs={"rows": 2}),
            "time_zone": Suggestions(sorted(available_timezones())),
        }
        labels: ClassVar = {"disclosure": "Announcement", "record_calls": "Records calls, once the announcement has been said"}
        help_texts: ClassVar = {
            "name": "For you and your colleagues.",
            "team": "Whose line this is. Its members see its calls.",
            "template": "Callers hear its published version.",
            "zero_for_person": "For callers who do not want to talk to an AI. If the agent listens to the keypad, a 0 alone counts.",
            "callback_hours": f"{limits.CALLBACK_HOURS}. What a caller is told when nobody can talk and they ask to be called back.",
            "time_zone": "Whose clock the hours mean, like Europe/Berlin. With one, callers are promised a time of day.",
            "disclosure": "Said before the agent speaks. Many countries require that callers are told. Empty: nothing is said.",
            **KEEPING_HELP,
            "all_party_consent": "Callers are asked to press 1. Whoever does not is helped all the same, and not recorded.",
            "record_calls": "Twilio records both sides. The announcement above is said first, so it must say that calls are recorded.",
        }

    def clean_number(self) -> str:
        return _digits(self.cleaned_data["number"])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        _complain(self, limits.line_problems(cleaned) | limits.keeping_problems(cleaned))
        return cleaned


class TeamForm(SharedForm):
    class Meta:
        model = Team
        fields: ClassVar = ["name", "slug", "members"]
        help_texts: ClassVar = {
            "name": "As your colleagues say it.",
            "slug": "Stands for it in exports and commands. Small letters, digits and dashes.",
            "members": "They see the lines, agents, colleagues and calls of their teams, and no others. "
            "People in no team see those of no team.",
        }


class PublishForm(ActionForm):
    """Beside the list's actions: why a draft is published."""

    note = forms.CharField(
        required=False,
        max_length=NOTE_CHARS,
        label="Why",
        widget=forms.TextInput(attrs={"placeholder": "a note for the list of versions"}),
    )


def _digits(written: str) -> str:
    """People write numbers with spaces, dashes and brackets; we keep digits. Whether it is one, `agents.limits` says."""
    return "".join(sign for sign in written if sign not in " -()./\u00a0")


def _complain(form: SharedForm, problems: Mapping[str, str]) -> None:
    """Each problem at its field; at the top when the field is not on the form."""
    for name, sentence in problems.items():
        if name not in form.errors:
            form.add_error(name if name in form.fields else None, sentence)
