"""An agent's words as the editing desk shows them: in the order a manager thinks of them, lists as people type them, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.db import models
from django.utils.html import format_html, format_html_join

from agents import presets
from agents.models import AgentWords, BargeIn, CallersFrom, TemplateVersion

OPENING = ("first_message_mode", "first_message", "first_message_interruptible", "prompt")
CAN_DO = ("may_transfer", "may_end_call", "end_call_message", "end_call_phrases")
VOICE = ("voice_provider", "voice_id", "voice_model", "voice_speed")
CALLERS = ("callers_from", "preset")
LISTENING = ("language", "keyterms", "denoise", "sound", "transcriber_provider", "transcriber_model", "endpointing_ms")
TURNS = (
    "barge_in",
    "wait_seconds",
    "turn_end",
    "stop_words",
    "stop_voice_seconds",
    "backoff_seconds",
    "acknowledgement_phrases",
    "interruption_phrases",
    "tell_heard",
)
KEYPAD = ("keypad", "keypad_digits", "keypad_end")
MODEL = ("model_provider", "model_name", "temperature", "max_tokens")
LIMITS = ("max_duration_s", "at_longest", "time_is_up", "silence_timeout_s")
LEFT_OUT = ("redact_cards", "redact_emails", "redact_phones", "redact_patterns")


def listed(name: str, label: str = "") -> Any:
    """A column that shows a list of phrases as people would write it down."""

    @admin.display(description=label or TemplateVersion._meta.get_field(name).verbose_name)  # type: ignore[union-attr]
    def column(row: models.Model) -> str:
        return " · ".join(getattr(row, name)) or "none"

    return column


def words_fieldsets(*, tools: str, lists: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
    """An agent's words in the order a manager thinks of them. `tools` shows its tools, `lists` its lists, where not editable."""
    groups = (
        ("What callers hear first, and what the agent knows", {"fields": OPENING}),
        ("What it can do", {"fields": (tools, *CAN_DO)}),
        ("Voice", {"fields": VOICE}),
        ("Your callers", {"fields": CALLERS}),
        ("Listening", {"fields": LISTENING}),
        ("Taking turns", {"fields": TURNS, "classes": ("collapse",)}),
        ("Keypad", {"fields": KEYPAD, "classes": ("collapse",)}),
        ("Model", {"fields": MODEL, "classes": ("collapse",)}),
        ("Limits of a call", {"fields": LIMITS, "classes": ("collapse",)}),
        ("What is left out before anything is stored", {"fields": LEFT_OUT}),
    )
    shown = lists or {}
    return tuple((title, {**group, "fields": tuple(shown.get(name, name) for name in group["fields"])}) for title, group in groups)


def preset_shown(words: AgentWords | None) -> str:
    """The three choices in words and values, and in what these words differ from their own."""
    names = [str(AgentWords._meta.get_field(name).verbose_name) for name in presets.FIELDS]  # type: ignore[union-attr]
    head = format_html_join("", '<th scope="col">{}</th>', ((label,) for label in CallersFrom.labels))
    means = format_html_join("", "<td>{}</td>", ((presets.PRESETS[name].means,) for name in CallersFrom.values))
    rows = format_html_join(
        "",
        '<tr><th scope="row">{}</th>{}</tr>',
        ((label, _of_each_preset(name)) for name, label in zip(presets.FIELDS, names, strict=True)),
    )
    table = format_html('<table class="desk-presets"><tr><td></td>{}</tr><tr><td></td>{}</tr>{}</table>', head, means, rows)
    return format_html("<p>{}</p>{}", _differs(words), table)


def _of_each_preset(name: str) -> str:
    words: dict[Any, Any] = {None: "the usual", **dict(BargeIn.choices)}
    given = (presets.PRESETS[each].values[name] for each in CallersFrom.values)
    return format_html_join("", "<td>{}</td>", ((words.get(value, value),) for value in given))


def _differs(words: AgentWords | None) -> str:
    if words is None or words.pk is None:
        return "What each choice fills in:"
    other = presets.changed({name: getattr(words, name) for name in AgentWords.word_fields()})
    names = "; ".join(str(AgentWords._meta.get_field(name).verbose_name) for name in other)  # type: ignore[union-attr]
    return f"Set otherwise here: {names}." if names else "All values are those of this choice."
