"""Where callers call from: one table, the same at the desk, in the file of agents as code and in what Vapi is told."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest
from django.forms.models import model_to_dict

from agents import limits, payload, presets
from agents.as_code import read
from agents.forms import AgentForm
from agents.models import AssistantTemplate, CallersFrom
from agents.words_shown import preset_shown
from tests.agents.words import SERVER, words

PLAIN = {"slug": "support", "name": "Support", "prompt": "You help.", "first_message": "Hi.", "voice": {"voiceId": "sam"}}


def imported(**keys: Any) -> dict[str, Any]:
    [wanted] = read({"templates": [PLAIN | keys]}, known={})
    return dict(wanted.fields)


def submitted(draft: AssistantTemplate, **typed: Any) -> AgentForm:
    """The desk's form as a browser sends it back: everything as it stood, but for what was typed."""
    shown = AgentForm(instance=draft)
    data = {name: shown[name].value() for name in shown.fields} | typed
    return AgentForm({name: value for name, value in data.items() if value is not None and value is not False}, instance=draft)


@pytest.fixture
def draft(db: None) -> AssistantTemplate:
    return AssistantTemplate.objects.create(slug="support", name="Support", prompt="You help.", first_message="Hi.", voice_id="sam")


@pytest.mark.parametrize("name", presets.PRESETS)
def test_vapi_takes_every_preset(name: str) -> None:
    filled = presets.values(name, transcriber="deepgram")
    assert limits.word_problems(filled | {"transcriber_provider": "deepgram", "transcriber_model": "nova-3", "language": "en"}) == {}
    assistant = payload.assistant(words(callers_from=name, **filled), server=SERVER)
    assert assistant["stopSpeakingPlan"]["numWords"] == filled["stop_words"]
    assert assistant["transcriber"].get("endpointing") == filled["endpointing_ms"]


def test_the_choices_are_the_presets_and_a_new_agent_is_one_of_them() -> None:
    assert list(presets.PRESETS) == CallersFrom.values
    fresh = AssistantTemplate()
    assert presets.changed({name: getattr(fresh, name) for name in AssistantTemplate.word_fields()}) == []


def test_a_transcriber_that_cannot_be_told_a_pause_is_told_none() -> None:
    assert presets.values("noisy", transcriber="openai")["endpointing_ms"] is None


def test_choosing_another_one_fills_the_fields(draft: AssistantTemplate) -> None:
    form = submitted(draft, callers_from="noisy")
    assert form.is_valid(), form.errors
    saved = form.save()
    assert (saved.barge_in, saved.stop_words, saved.endpointing_ms, saved.wait_seconds) == ("confirm", 2, 300, 0.6)


def test_what_is_typed_at_the_same_time_is_kept(draft: AssistantTemplate) -> None:
    saved = submitted(draft, callers_from="noisy", stop_words=1).save()
    assert (saved.barge_in, saved.stop_words) == ("confirm", 1)
    assert presets.changed(model_to_dict(saved)) == ["stop_words"]


def test_a_value_changed_later_stays(draft: AssistantTemplate) -> None:
    submitted(draft, callers_from="noisy").save()
    draft.refresh_from_db()
    saved = submitted(draft, stop_words=0).save()
    assert (saved.callers_from, saved.stop_words, saved.barge_in) == ("noisy", 0, "confirm")


def test_as_code_the_keys_that_are_left_out_are_the_presets() -> None:
    fields = imported(callers_from="noisy", wait_seconds=0.1)
    assert (fields["barge_in"], fields["stop_words"], fields["endpointing_ms"], fields["wait_seconds"]) == ("confirm", 2, 300, 0.1)
    assert imported()["barge_in"] == "instant"


def test_as_code_another_transcriber_is_told_what_it_can_be_told() -> None:
    ear = {"provider": "openai", "model": "gpt-4o-transcribe"}
    assert imported(callers_from="noisy", transcriber=ear)["endpointing_ms"] is None


def test_the_desk_shows_what_each_choice_means_and_in_what_an_agent_differs(draft: AssistantTemplate) -> None:
    shown = preset_shown(draft)
    assert all(preset.means in unescape(shown) for preset in presets.PRESETS.values())
    assert "All values are those of this choice." in shown
    draft.stop_words = 3
    assert "Set otherwise here: words that make an interruption" in preset_shown(draft)
