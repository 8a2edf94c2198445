"""The recordings: there, audible, in the shape every reader expects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge.sandbox import clips, script, sound
from bridge.sandbox.clips import CLIPS
from bridge.sandbox.script import CallTool, End, Heard, Say, Speak

BRIDGE_CLIPS = Path(clips.__file__).parents[1] / "clips"


def test_every_clip_is_whole_frames_of_audible_speech_with_little_around_it() -> None:
    for clip in CLIPS.values():
        assert len(clip.ulaw) % sound.FRAME == 0
        levels = [sound.energy_db(clip.ulaw[start : start + sound.FRAME]) for start in range(0, len(clip.ulaw), sound.FRAME)]
        assert max(levels) > -25, clip.name
        assert max(levels[:4]) > -42, clip.name
        assert b"\x00" * 8 not in clip.ulaw, clip.name


def test_the_password_explanation_is_long_enough_to_be_interrupted() -> None:
    assert CLIPS["reset_steps"].ms >= 7000


def test_texts_and_audio_are_unique() -> None:
    assert len({clip.text for clip in CLIPS.values()}) == len(CLIPS)
    assert len({clip.ulaw for clip in CLIPS.values()}) == len(CLIPS)
    assert clips.by_text("I already tried that") is CLIPS["already_tried"]
    assert clips.by_text("words nobody recorded") is None


def test_the_index_and_the_files_agree() -> None:
    names = json.loads((clips.HERE / "index.json").read_text())
    assert {path.stem for path in clips.HERE.glob("*.ulaw")} == set(names)


def test_the_bridge_plays_the_words_the_sandbox_knows() -> None:
    texts = json.loads((BRIDGE_CLIPS / "texts.json").read_text())
    assert texts.keys() == {path.stem for path in BRIDGE_CLIPS.glob("*.ulaw")}
    for name, text in texts.items():
        assert CLIPS[name].text == text
        assert (BRIDGE_CLIPS / f"{name}.ulaw").read_bytes() == CLIPS[name].ulaw


def test_copies_elsewhere_are_brought_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "one_moment.ulaw").write_bytes(b"old")
    (tmp_path / "ours.ulaw").write_bytes(b"kept")
    assert [path.stem for path in clips.copy_to(tmp_path)] == ["one_moment"]
    assert (tmp_path / "one_moment.ulaw").read_bytes() == CLIPS["one_moment"].ulaw
    assert (tmp_path / "ours.ulaw").read_bytes() == b"kept"


@pytest.mark.parametrize("scenario", script.SCENARIOS.values(), ids=lambda scenario: scenario.name)
def test_scenarios_say_only_what_was_recorded(scenario: script.Scenario) -> None:
    for step in scenario.caller:
        if isinstance(step.do, Say):
            assert CLIPS[step.do.clip].voice == "caller"
        if isinstance(step.when, Heard):
            assert CLIPS[step.when.clip].voice == "agent"
    for turns in ((scenario.opening,), *scenario.answers.values()):
        for act in (act for turn in turns for act in turn):
            match act:
                case Speak(clip) | End(clip=clip):
                    spoken = [clip] if clip else []
                case CallTool():
                    spoken = [*act.answers.values(), act.otherwise]
            assert all(CLIPS[name].voice == "agent" for name in spoken)


def test_making_clips_without_the_voice_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "Hibari", None)
    with pytest.raises(RuntimeError, match="extra `voice`"):
        clips.synthesise()


def test_clips_are_made_from_whatever_a_voice_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The whole path from 24 kHz speech to a file, with a voice that hums."""

    class Hum:
        def __call__(self, text: str, *, seed: int, speed: float) -> object:
            pause = [0.0] * 24_000
            hum = [0.3 * ((n // 50) % 2 * 2 - 1) for n in range(24_000)]
            return [*pause, *hum, *pause, *hum, *pause]

    monkeypatch.setattr(clips, "Hibari", Hum)
    (tmp_path / "index.json").write_text(json.dumps({"hum": {"text": "Hm.", "voice": "agent"}}))
    clips.synthesise(tmp_path)
    hum = clips.load(tmp_path)["hum"]
    assert hum.ms == pytest.approx(2000 + 400, abs=160)  # the second between the hums became the longest pause there is
    assert -26 < sound.energy_db(hum.ulaw[1600:8000]) < -14
